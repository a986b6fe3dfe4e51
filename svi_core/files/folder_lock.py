"""The lock of a folder that one process at a time may write to; the system releases it when that process dies."""

from pathlib import Path

from filelock import FileLock, Timeout


def lock_folder(folder: Path, in_use: str) -> FileLock:
    """Return the lock of `folder`, acquired.

    Raises:
        ValueError: another process holds it; the message is `in_use`.
        OSError: the folder cannot be written.
    """
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(in_use) from None
    return lock
