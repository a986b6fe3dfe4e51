"""Files whose hash is kept in a JSON file beside them, and what happens to damaged files: they are set aside, never deleted."""

import logging
import os
import time
from pathlib import Path

from .fingerprint import file_sha256
from .sealed_json import read_sealed, write_sealed

SET_ASIDE = "set_aside"
_log = logging.getLogger(__name__)


def set_aside(path: Path, reason: object, folder: Path | None = None) -> Path:
    """Move the damaged file `path` to ``set_aside`` in `folder` (its own, if None), log why, and return its new path.

    Raises:
        OSError: it cannot be moved.
    """
    aside = (folder or path.parent) / SET_ASIDE
    aside.mkdir(exist_ok=True)
    stamp = time.time_ns()
    while (target := aside / f"{stamp}-{path.name}").exists():  # clocks jump back, and some are coarse
        stamp += 1
    os.replace(path, target)
    _log.warning("SVI: %s cannot be trusted (%s); moved to %s.", path, reason, target)
    return target


def write_hash(path: Path) -> None:
    """Write the hash of the file `path` to the JSON file beside it."""
    write_sealed(path.with_suffix(".json"), {"sha256": file_sha256(path)})


def is_unchanged(path: Path) -> bool:
    """Whether `path` has the bytes whose hash the JSON file beside it names. A damaged file of the two is set aside.

    False without a warning if one of them is missing, as after a crash between the two.
    """
    beside = path.with_suffix(".json")
    if not (path.exists() and beside.exists()):
        return False
    try:
        known = read_sealed(beside).get("sha256")
    except ValueError as error:
        set_aside(beside, error)
        return False
    if known == file_sha256(path):
        return True
    set_aside(path, "its bytes are not those that were written")
    return False
