"""Check images, sounds and videos before they are sent to a server."""

from __future__ import annotations

import functools
from pathlib import Path

from PIL import Image

from svi_core.files.fingerprint import file_sha256


def check_image(path: Path) -> None:
    """Raise ValueError unless the file is a picture that can be read to its end."""
    try:
        with Image.open(path) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is not a readable picture: {error}") from error


def check_recording(path: Path) -> None:
    """Raise ValueError unless the file is a video or a sound whose first frame can be decoded."""
    import av.error

    try:
        with av.open(str(path)) as container:
            next(iter(container.decode()))
    except (av.error.FFmpegError, OSError, ValueError, StopIteration) as error:
        raise ValueError(f"{path} is not a readable video or sound: {error or 'it holds no frame'}") from error


def name_by_content(path: Path) -> str:
    """Return a file name that is the same for the same bytes, wherever they are: clips that a server made stay valid."""
    facts = path.stat()
    return _name_by_content(path, facts.st_mtime_ns, facts.st_size)


@functools.lru_cache(maxsize=4096)
def _name_by_content(path: Path, modified: int, size: int) -> str:
    return f"{file_sha256(path)[:24]}{path.suffix.lower()}"
