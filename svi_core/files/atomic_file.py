"""Files and folders that are complete or absent: write under a staging name, fsync, rename, fsync the folder.

Hand-written: the standard library has no durable atomic write, and `os.replace` alone does not survive a power failure.
"""

import errno
import logging
import os
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

STAGING_MARK = ".staging"
_log = logging.getLogger(__name__)


@contextmanager
def staged(final: Path, durable: bool = True) -> Generator[Path]:
    """Yield a staging path to write; at the end of the block it becomes `final`, atomically and durably.

    If the block raises, `final` stays as it was and the staging file is removed. With `durable` off, the system writes the file
    to the disk when it likes: for files that can be made again.

    Raises:
        OSError: the disk is full or the folder cannot be written; the message names `final`.
    """
    staging = final.with_name(f"{final.stem}.{os.getpid()}{STAGING_MARK}{final.suffix}")
    try:
        with named_disk_errors(final):
            yield staging
            if durable:
                with staging.open("rb+") as file:
                    os.fsync(file.fileno())
            os.replace(staging, final)
            if durable:
                sync_folder(final.parent)
    finally:
        staging.unlink(missing_ok=True)


def write_bytes(final: Path, data: bytes) -> None:
    """Write `data` to `final` atomically."""
    with staged(final) as staging:
        staging.write_bytes(data)


def staging_folder(final: Path) -> Path:
    """Return the path at which to build the folder `final`, for :func:`publish_folder`; several processes may write in it."""
    return final.with_name(final.name + STAGING_MARK)


def publish_folder(final: Path) -> None:
    """Rename the staging folder of `final`, whose files were written atomically, to `final`; replaces an older folder."""
    staging = staging_folder(final)
    sync_folder(staging)
    if final.exists():
        shutil.rmtree(final)
    os.replace(staging, final)
    sync_folder(final.parent)


def remove_stale_staging(folder: Path) -> None:
    """Remove what a killed process left half-written in `folder`. Call it only while holding the folder's lock."""
    for path in folder.glob(f"*{STAGING_MARK}*"):
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:  # on Windows, the ffmpeg of a killed process has its file open for a moment longer
            _log.warning("SVI: %s, left by a stopped process, could not be removed (%s); it stays for now.", path, error)


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable. Windows has no such call and needs none."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # network and FUSE mounts have no fsync of folders
            raise
    finally:
        os.close(handle)


@contextmanager
def named_disk_errors(path: Path) -> Generator[None]:
    """Name `path` in an OSError of the block that names no file, as that of a full disk."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, f"{error.strerror}: free space or check permissions", str(path)) from error
        raise
