"""Check images, sounds and videos before they are sent to a server."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

from svi_core.files.fingerprint import file_sha256


def check_image(path: Path) -> None:
    """Raise ValueError unless the file is a picture that can be read to its end."""
    if complaint := _complaint(path, *_version(path), _read_image):
        raise ValueError(f"{path} is not a readable picture: {complaint}")


def check_recording(path: Path) -> None:
    """Raise ValueError unless the file is a video or a sound whose first frame can be decoded."""
    if complaint := _complaint(path, *_version(path), _read_recording):
        raise ValueError(f"{path} is not a readable video or sound: {complaint}")


def _version(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_mtime_ns, facts.st_size


@functools.lru_cache(maxsize=4096)
def _complaint(path: Path, modified: int, size: int, read: Callable[[Path], str]) -> str:
    """Return what is wrong with a file, "" if nothing; many rows may name one."""
    return read(path)


def _read_image(path: Path) -> str:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return str(error) or type(error).__name__
    return ""


def _read_recording(path: Path) -> str:
    import av.error

    try:
        with av.open(str(path)) as container:
            next(iter(container.decode()))
    except (av.error.FFmpegError, OSError, ValueError, StopIteration) as error:
        return str(error) or "it holds no frame"
    return ""


def name_by_content(path: Path) -> str:
    """Return a file name that is the same for the same bytes, wherever they are: clips that a server made stay valid."""
    return _name_by_content(path, *_version(path))


@functools.lru_cache(maxsize=4096)
def _name_by_content(path: Path, modified: int, size: int) -> str:
    return f"{file_sha256(path)[:24]}{path.suffix.lower()}"
