"""Check names that users give to files and folders: valid on every system, and inside ComfyUI's output folder."""

import os
import re
from pathlib import Path, PurePosixPath

MAX_NAME_BYTES = 120
MAX_FOLDER_BYTES = 3800  # of a path's 4096 on Linux; its files need the rest
_SPECIAL = re.compile('[\\\\:*?"<>|\x00-\x1f\ud800-\udfff]')
_RESERVED_ON_WINDOWS = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def check_output_prefix(prefix: str, name: str = "filename_prefix") -> PurePosixPath:
    """Return `prefix`, called `name` in messages, as a relative path that stays inside the output folder on every system.

    Raises:
        ValueError: empty, absolute, containing ``..``, a backslash, a colon, control characters or half a surrogate pair, or
            too long.
    """
    path = PurePosixPath(prefix)
    bad = [part for part in path.parts if not _is_plain_name(part)]
    if not path.parts or path.is_absolute() or bad or _SPECIAL.search(prefix):
        raise ValueError(
            f"{name} is {prefix[:300]!r}: use a relative name such as 'svi/story', without '..', backslashes, ':' or "
            f"other special characters, each part at most {MAX_NAME_BYTES} bytes."
        )
    return path


def run_folder(output_root: Path, prefix: str) -> Path:
    """Return the folder of the run `prefix` below `output_root`, without creating it.

    Raises:
        ValueError: see :func:`check_output_prefix`; or a symlink leads out of `output_root` or to itself, or the path is longer
            than a system allows.
    """
    folder = output_root / check_output_prefix(prefix)
    if (num_bytes := len(os.fsencode(folder))) > MAX_FOLDER_BYTES:
        raise ValueError(f"filename_prefix makes a path of {num_bytes} bytes: use a shorter one, at most {MAX_FOLDER_BYTES}.")
    if not follow_links(folder, "filename_prefix").is_relative_to(output_root.resolve()):
        raise ValueError(f"filename_prefix {prefix!r} leads out of the output folder {output_root}: choose another.")
    return folder


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
