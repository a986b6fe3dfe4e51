"""Check names that users give to files and folders: valid on every system, and inside ComfyUI's output folder."""

import re
import time
from pathlib import Path, PurePosixPath

from .name_pattern import at_time, with_values

MAX_NAME_BYTES = 120
_SPECIAL = re.compile(r'[\\:*?"<>|\x00-\x1f]')
_RESERVED_ON_WINDOWS = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def check_output_prefix(prefix: str, name: str = "filename_prefix") -> None:
    """Check that `prefix`, called `name` in messages, names a folder inside the output folder on every system.

    Raises:
        ValueError: empty, absolute, containing ``..``, a backslash, a colon or control characters, or too long.
    """
    _relative_path(at_time(with_values(prefix, lambda _: 0), time.gmtime(0)), prefix, name)


def run_folder(output_root: Path, prefix: str) -> Path:
    """Return the folder of the run `prefix`, without patterns, below `output_root`, without creating it.

    Raises:
        ValueError: see :func:`check_output_prefix`; or a symlink leads out of `output_root`.
    """
    folder = output_root / _relative_path(prefix, prefix)
    if not folder.resolve().is_relative_to(output_root.resolve()):
        raise ValueError(f"filename_prefix {prefix!r} leads out of the output folder {output_root}: choose another.")
    return folder


def _relative_path(prefix: str, written: str, name: str = "filename_prefix") -> PurePosixPath:
    """Return `prefix`, which the user wrote as `written`, as a path."""
    path = PurePosixPath(prefix)
    bad = [part for part in path.parts if not _is_plain_name(part)]
    if not path.parts or path.is_absolute() or bad or _SPECIAL.search(prefix):
        raise ValueError(
            f"{name} is {written!r}: use a relative name such as 'svi/story', without '..', backslashes, ':' or "
            f"other special characters, each part at most {MAX_NAME_BYTES} bytes."
        )
    return path


def is_file_name(name: str) -> bool:
    """Whether `name` is a valid file name on every system."""
    return bool(name) and "/" not in name and not _SPECIAL.search(name) and _is_plain_name(name)


def _is_plain_name(part: str) -> bool:
    """Whether `part` means the same name on Linux, macOS and Windows."""
    return (
        part not in ("..", "~")
        and part == part.strip(" ")
        and not part.endswith(".")
        and len(part.encode()) <= MAX_NAME_BYTES
        and not _RESERVED_ON_WINDOWS.fullmatch(part)
    )
