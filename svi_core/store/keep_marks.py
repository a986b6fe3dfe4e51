"""Clips marked "keep", which are never removed to save space: one empty file beside each, ``<run>/clips/<key>.keep``.

A mark is a separate file because an active run rewrites its clips' records. So marks can be set and cleared at any time,
without the run's lock. A second lock, held for a moment, keeps a clip from being removed while it is marked.
"""

import re
from pathlib import Path

from filelock import FileLock

from ..files.atomic_file import sync_folder

_LOCK_SECONDS = 30.0  # longer than removing one clip takes on a slow network disk
_SUFFIX = ".keep"


def require_clip_key(key: object) -> str:
    """Return `key`, which becomes part of file names, if it is a clip's key.

    Raises:
        ValueError: it is not 64 hex digits.
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
    """Mark or unmark clip `key` as never to be removed to save space. A run may be active in the folder.

    Raises:
        ValueError: there is no such clip.
        OSError: the mark cannot be written.
    """
    latent = run_folder / "clips" / f"{require_clip_key(key)}.safetensors"
    message = f"there is no clip {key[:12]!r} in {latent.parent}: it may have been removed to save space."
    if not latent.exists():  # checked first, so that nothing is created in a folder that does not exist
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
    """Return the lock to hold while a clip is marked, or is removed after its mark was checked."""
    return FileLock(run_folder / ".keep.lock", timeout=_LOCK_SECONDS)


def _mark(run_folder: Path, key: str) -> Path:
    return run_folder / "clips" / f"{key}{_SUFFIX}"
