"""The list of clips that a run has finished so far: one line of JSON each, appended as they come.

    <run>/finished.jsonl   of the last run in the folder; a new run begins it anew with its first finished clip

The run's manifest says what a joined video consists of, which may begin with another video and lags behind a little; this
list says what the schedule's clips became, at any moment, for whoever looks on.
"""

import json
import math
import os
import re
from dataclasses import dataclass, fields
from pathlib import Path

from ..files.atomic_file import write_bytes

LIST_NAME = "finished.jsonl"


@dataclass(frozen=True)
class FinishedClip:
    """One finished clip, as somebody who looks on wants to know it.

    Attributes:
        index: 0-based place in the schedule.
        key: of the clip in the run store.
        prompt: its text.
        seed: its noise seed.
        num_frames: frames that it gives to the video.
        seconds: that making it took, whenever that was.
        reused: found in the run store, not made by this run.
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
    """Add `clip` to the run's list; clip 0 begins a new one.

    Raises:
        OSError: the list cannot be written; the message names it.
    """
    path = run_folder / LIST_NAME
    line = json.dumps(vars(clip)).encode() + b"\n"
    if clip.index == 0:
        write_bytes(path, line)
        return
    try:
        with path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}: free space or check permissions", str(path)) from error


def read_finished(run_folder: Path) -> list[FinishedClip]:
    """Return the finished clips of the last run in their order, [] where there is none.

    Takes no lock. Lines that are not whole or not of this kind are left out, as the last one of a run that was killed.
    """
    path = run_folder / LIST_NAME
    if not path.exists():
        return []
    clips = (_parse(line) for line in path.read_bytes().split(b"\n") if line)
    return [clip for clip in clips if clip is not None]


def _parse(line: bytes) -> FinishedClip | None:
    """Return the clip of one line, None if the line is not what this module writes: the folder may come from anywhere."""
    try:
        facts = json.loads(line)
        clip = FinishedClip(**facts)
    except (ValueError, TypeError, RecursionError):
        return None
    typed = all(type(getattr(clip, field.name)) is field.type for field in fields(FinishedClip))
    if not typed or not math.isfinite(clip.seconds):
        return None
    named = re.fullmatch(r"([0-9a-f]{64})-[\w.-]+\.mp4", clip.segment)
    return clip if named and named[1] == clip.key else None
