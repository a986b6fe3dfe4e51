"""Check names that users give to files and folders: valid on every system, and inside ComfyUI's output folder."""

import os
import re
import time
from pathlib import Path, PurePosixPath

from .name_pattern import at_time, with_values

MAX_NAME_BYTES = 120
_MAX_FOLDER_BYTES = 3800  # of a path's 4096 on Linux; its files need the rest
_SUBFOLDERS = ("clips", "set_aside")  # of a run folder
_SPECIAL = re.compile('[\\\\:*?"<>|\x00-\x1f\ud800-\udfff]')
_RESERVED_ON_WINDOWS = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def check_output_prefix(prefix: str, name: str = "filename_prefix") -> None:
    """Check that `prefix`, called `name` in messages, names a folder inside the output folder on every system.

    Raises:
        ValueError: empty, absolute, containing ``..``, a backslash, a colon, control characters or half a surrogate pair, or
            too long.
    """
    _relative_path(at_time(with_values(prefix, lambda _: 0), time.gmtime(0)), prefix, name)


def run_folder(output_root: Path, prefix: str) -> Path:
    """Return the folder of the run `prefix`, without patterns, below `output_root`, without creating it.

    Raises:
        ValueError: see :func:`check_output_prefix` and :func:`require_no_way_out`; or a symlink leads out of `output_root` or
            to itself, or the path is longer than a system allows.
    """
    folder = output_root / _relative_path(prefix, prefix)
    if (num_bytes := len(os.fsencode(folder))) > _MAX_FOLDER_BYTES:
        raise ValueError(f"filename_prefix makes a path of {num_bytes} bytes: use a shorter one, at most {_MAX_FOLDER_BYTES}.")
    if not follow_links(folder, "filename_prefix").is_relative_to(output_root.resolve()):
        raise ValueError(f"filename_prefix {prefix!r} leads out of the output folder {output_root}: choose another.")
    require_no_way_out(folder)
    return folder


def _relative_path(prefix: str, written: str, name: str = "filename_prefix") -> PurePosixPath:
    """Return `prefix`, which the user wrote as `written`, as a path."""
    path = PurePosixPath(prefix)
    bad = [part for part in path.parts if not _is_plain_name(part)]
    if not path.parts or path.is_absolute() or bad or _SPECIAL.search(prefix):
        raise ValueError(
            f"{name} is {written[:300]!r}: use a relative name such as 'svi/story', without '..', backslashes, ':' or "
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


def follow_links(path: Path, name: str) -> Path:
    """Return `path`, called `name` in messages, without symlinks.

    Raises:
        ValueError: a link in it leads to itself, or no system has such a path.
    """
    try:
        return path.resolve()
    except ValueError as error:  # a zero byte, or half a surrogate pair
        raise ValueError(f"{name} is {str(path)[:300]!r}, which no file can be called: use another name.") from error
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        raise ValueError(
            f"{name} is {str(path)[:300]!r}, which cannot be followed ({error}): a link in it may lead to itself; remove the "
            "link, or use another name."
        ) from error


def is_file_name(name: str) -> bool:
    """Whether `name` is a valid file name on every system."""
    return bool(name) and "/" not in name and not _SPECIAL.search(name) and _is_plain_name(name)


def _is_plain_name(part: str) -> bool:
    """Whether `part` means the same name on Linux, macOS and Windows."""
    return (
        part not in ("..", "~")
        and part == part.strip(" ")
        and not part.endswith(".")
        and len(part.encode(errors="surrogatepass")) <= MAX_NAME_BYTES
        and not _RESERVED_ON_WINDOWS.fullmatch(part)
    )
