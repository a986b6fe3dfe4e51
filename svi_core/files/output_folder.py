"""Check names that users give to files and folders: valid on every system, and inside ComfyUI's output folder."""

import os
import re
import time
from pathlib import Path, PurePosixPath

from .name_pattern import at_time, with_values

MAX_NAME_BYTES = 120
_SUBFOLDERS = ("clips", "set_aside")  # of a run folder
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
        ValueError: see :func:`check_output_prefix` and :func:`require_no_way_out`; or a symlink leads out of `output_root`.
    """
    folder = output_root / _relative_path(prefix, prefix)
    if not folder.resolve().is_relative_to(output_root.resolve()):
        raise ValueError(f"filename_prefix {prefix!r} leads out of the output folder {output_root}: choose another.")
    require_no_way_out(folder)
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


def require_no_way_out(folder: Path) -> None:
    """Refuse a run folder that holds a link to a place outside it, which would be read or overwritten there.

    The folder itself and those above it may be links: a user may keep the whole output folder on another disk.

    Raises:
        ValueError: the message names the link.
    """
    inside = folder.resolve()
    parts = [folder, *(folder / name for name in _SUBFOLDERS)]
    for link in (link for part in parts for link in _links(part)):
        leads_to = _target(link)
        if leads_to is None or not leads_to.is_relative_to(inside):
            raise ValueError(
                f"{link} is a link that leads out of the run's folder (to {leads_to or 'nowhere'}), and SVI does not follow "
                "it: remove the link, or choose another filename_prefix. To use another disk, link ComfyUI's output folder."
            )


def _links(folder: Path) -> list[Path]:
    """Return what may be a link in `folder`: also the subfolders of a run, since a junction of Windows is no symlink."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [Path(entry.path) for entry in entries if entry.is_symlink() or entry.name in _SUBFOLDERS]


def _target(link: Path) -> Path | None:
    """Return where `link` leads, or None if it leads in a circle."""
    try:
        return link.resolve()
    except (OSError, RuntimeError):
        return None


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
