"""Clips marked "keep", which are never removed to save space: one empty file beside each, ``<run>/clips/<key>.keep``.

A mark is a file of its own, because the run rewrites its clips' records while it goes; so marks are set and cleared at any
time, without the run's lock. Only removing clips and marking them exclude each other, for a moment, by a lock of their own:
a clip that was marked is there to stay.
"""

import re
from pathlib import Path

from filelock import FileLock

from ..files.atomic_file import sync_folder

_LOCK_SECONDS = 30.0  # longer than removing one clip takes on a slow network disk
_SUFFIX = ".keep"


def require_clip_key(key: object) -> str:
    """Return `key`, which names files, if it is the key of a clip: 64 hex digits, nothing else.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(key, str) or not re.fullmatch(r"[0-9a-f]{64}", key):
        raise ValueError(f"the clip's key is {str(key)[:80]!r}: it should be 64 hex digits, as SVI Generate gave it.")
    return key


def is_kept(run_folder: Path, key: str) -> bool:
    """Whether clip `key` is marked."""
    return _mark(run_folder, key).exists()


def kept_keys(run_folder: Path) -> set[str]:
    """Return the keys of all marked clips of a run."""
    return {path.stem for path in (run_folder / "clips").glob(f"*{_SUFFIX}")}


def set_keep(run_folder: Path, key: str, keep: bool) -> None:
    """Mark clip `key` as never to be removed to save space, or no longer. A run may be going on in the folder.

    Raises:
        ValueError: there is no such clip.
        OSError: the mark cannot be written.
    """
    latent = run_folder / "clips" / f"{require_clip_key(key)}.safetensors"
    message = f"there is no clip {key[:12]!r} in {latent.parent}: it may have been removed to save space."
    if not latent.exists():  # before anything is created in a folder that may not exist
        raise ValueError(message)
    with removal_lock(run_folder):
        if not latent.exists():
            raise ValueError(message)
        if keep:
            _mark(run_folder, key).touch()
        else:
            _mark(run_folder, key).unlink(missing_ok=True)
        sync_folder(latent.parent)


def removal_lock(run_folder: Path) -> FileLock:
    """Return the lock to hold, for a moment, while a clip is removed after a look at its mark, or while it is marked."""
    return FileLock(run_folder / ".keep.lock", timeout=_LOCK_SECONDS)


def _mark(run_folder: Path, key: str) -> Path:
    return run_folder / "clips" / f"{key}{_SUFFIX}"
