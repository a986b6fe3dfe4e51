"""The list of clips that a run has finished so far: one line of JSON per clip.

    <run>/finished.jsonl   of the last run in the folder; the first clip of a new run replaces it

The manifest describes a joined video, which may begin with another video and is written a little later. This list is current:
the clip panel shows it while a run is active.
"""

import functools
import json
import logging
import math
import os
import re
from dataclasses import dataclass, fields
from pathlib import Path

from ..files.atomic_file import named_disk_errors, write_bytes
from ..files.sealed_json import sealed, unsealed

LIST_NAME = "finished.jsonl"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FinishedClip:
    """One finished clip, for display.

    Attributes:
        index: 0-based position in the schedule.
        key: of the clip in the run store.
        prompt: its text.
        seed: its noise seed.
        num_frames: frames that it contributes to the video.
        seconds: that making it took, in this run or an earlier one.
        reused: found in the run store rather than made by this run.
        segment: name of the file in ``clips/`` that holds its frames.
    """

    index: int
    key: str
    prompt: str
    seed: int
    num_frames: int
    seconds: float
    reused: bool
    segment: str


def note_finished(run_folder: Path, clip: FinishedClip) -> None:
    """Append `clip` to the run's list; clip 0 starts a new list.

    Raises:
        OSError: the list cannot be written; the message names it.
    """
    path = run_folder / LIST_NAME
    line = json.dumps(sealed(vars(clip))).encode() + b"\n"
    if clip.index == 0:
        write_bytes(path, line)
        return
    with named_disk_errors(path), path.open("ab") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def read_finished(run_folder: Path) -> list[FinishedClip]:
    """Return the finished clips of the last run in order, [] if there are none.

    Takes no lock. An unchanged list is parsed once, because the panel asks for it again and again. Damaged and foreign lines
    are left out and named in the log, but for the incomplete last one of a killed run.
    """
    path = run_folder / LIST_NAME
    if not path.is_file():
        return []
    status = path.stat()
    return list(_parsed(path, status.st_size, status.st_mtime_ns))


@functools.lru_cache(maxsize=4)
def _parsed(path: Path, _size: int, _changed: int) -> tuple[FinishedClip, ...]:
    *lines, rest = path.read_bytes().split(b"\n")
    clips = [_parse(line) for line in (*lines, rest)]
    if damaged := [number for number, clip in enumerate(clips[:-1], start=1) if clip is None]:
        _warn_once(path, ", ".join(map(str, damaged[:10])))
    return tuple(clip for clip in clips if clip is not None)


@functools.lru_cache(maxsize=4)
def _warn_once(path: Path, numbers: str) -> None:
    _log.warning("SVI: %s: line %s cannot be trusted and is not shown.", path, numbers)


@functools.lru_cache(maxsize=16_384)  # a list grows by one line, and its other lines stay
def _parse(line: bytes) -> FinishedClip | None:
    """Return the clip of one line, or None if this module did not write it: the folder may come from anywhere."""
    try:
        clip = FinishedClip(**unsealed(line))
    except (ValueError, TypeError):
        return None
    typed = all(type(getattr(clip, field.name)) is field.type for field in fields(FinishedClip))
    if not typed or not math.isfinite(clip.seconds):
        return None
    named = re.fullmatch(r"([0-9a-f]{64})-[\w.-]+\.mp4", clip.segment)
    return clip if named and named[1] == clip.key else None
