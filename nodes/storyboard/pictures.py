"""Pictures of stored clips, and the badges that tell how a clip looks beside others; each file is decoded once."""

import functools
import io
import itertools
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
from PIL import Image

from ...svi_core.look.clip_look import Badge, ClipLook, badges, look_of
from ...svi_core.video.source_video import probe_video
from ...svi_core.video.video_file import read_frames
from ..bridge.routes import Asked, asked_folder, typed

WIDTH = 320  # px
_FILE = re.compile(r"[0-9a-f]{64}-[\w.-]+\.mp4")
_WHICH = {"first": 0.0, "middle": 0.5, "last": 1.0}


class GoneError(ValueError):
    """A clip whose frames are no longer on the disk."""


def picture(asked: Asked) -> bytes:
    """Return a frame of a stored clip as a JPEG.

    Raises:
        ValueError: a bad name.
        GoneError: the file is gone.
        OSError: it cannot be read.
    """
    which = str(asked.get("frame", "middle"))
    if which not in _WHICH:
        raise ValueError(f"frame is {which[:80]!r}: send one of {', '.join(_WHICH)}.")
    path = _asked_clip(asked, "file")
    return _jpeg(path, path.stat().st_mtime_ns, _WHICH[which])


def look(asked: Asked) -> dict:
    """Return the badges of a clip, compared with the first clip of its video and the one before it.

    Raises:
        ValueError: a bad name.
        GoneError: a file is gone.
        OSError: it cannot be read.
    """
    paths = {name: _asked_clip(asked, name) for name in ("file", "first", "before") if asked.get(name)}
    if "file" not in paths:
        raise ValueError("file is missing: send the name of a clip's file.")
    looks = {name: _look(path, path.stat().st_mtime_ns) for name, path in paths.items()}
    _known[_key(paths["file"], paths.get("first"), paths.get("before"))] = found = tuple(
        badges(looks["file"], looks.get("first"), looks.get("before"))
    )
    return {"badges": [vars(badge) for badge in found]}


def known_badges(file: Path, first: Path | None, before: Path | None) -> list[dict] | None:
    """Return the badges that :func:`look` found for these clips in this process; None if it was not asked."""
    found = _known.get(_key(file, first, before))
    return None if found is None else [vars(badge) for badge in found]


def address(route: str, query: Mapping[str, str | None]) -> str:
    """Return the address of a route with the parts of `query` that are there."""
    return f"{route}?{urlencode({name: value for name, value in query.items() if value})}"


_known: dict[tuple[str, ...], tuple[Badge, ...]] = {}  # a few hundred bytes for each pair of clips looked at


def _key(*paths: Path | None) -> tuple[str, ...]:
    return tuple("" if path is None else path.name for path in paths)


def _asked_clip(asked: Asked, name: str) -> Path:
    file = typed(asked, name, str)
    if not _FILE.fullmatch(file):
        raise ValueError(f"{name} is {file[:80]!r}: send the name of a clip's file, as /svi/plan gave it.")
    path = asked_folder(asked) / "clips" / file
    if not path.is_file():
        raise GoneError(f"the frames of clip {file[:12]} are gone: the next Run makes them again.")
    return path


@functools.lru_cache(maxsize=4096)  # 10 KB each
def _jpeg(path: Path, _changed: int, share: float) -> bytes:
    last = probe_video(path).num_frames - 1
    frame = next(_frames(path, round(share * last)), None)
    if frame is None:
        raise OSError(f"{path} ends before its frame {round(share * last) + 1}: delete it, and the next Run makes it again.")
    height = max(1, round(frame.shape[0] * WIDTH / frame.shape[1]))
    data = io.BytesIO()
    Image.fromarray(frame).resize((WIDTH, height), Image.Resampling.LANCZOS).save(data, "JPEG", quality=85)
    return data.getvalue()


@functools.lru_cache(maxsize=4096)  # 45 KB each
def _look(path: Path, _changed: int) -> ClipLook:
    return look_of(_frames(path))


def _frames(path: Path, first: int = 0) -> Iterator[np.ndarray]:
    with closing(read_frames(path)) as frames:
        yield from itertools.islice(frames, first, None)
