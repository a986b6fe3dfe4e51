"""Files that are either wholly there or not there: staging file in the same folder, fsync, rename, fsync of the folder."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

STAGING_MARK = ".staging"


@contextmanager
def staged(final: Path) -> Iterator[Path]:
    """Give a staging path to write; at the end of the block it becomes `final` durably and at once.

    If the block raises, `final` stays as it was and the staging file is removed.

    Raises:
        OSError: the disk is full or the folder cannot be written; the message names `final`.
    """
    staging = final.with_name(f"{final.stem}.{os.getpid()}{STAGING_MARK}{final.suffix}")
    try:
        yield staging
        with staging.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(staging, final)
        sync_folder(final.parent)
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, f"{error.strerror}: free space or check permissions", str(final)) from error
        raise
    finally:
        staging.unlink(missing_ok=True)


def write_bytes(final: Path, data: bytes) -> None:
    """Write `data` to `final` atomically."""
    with staged(final) as staging:
        staging.write_bytes(data)


def remove_stale_staging(folder: Path) -> None:
    """Remove what a killed process left half-written in `folder`. Call it only while holding the folder's lock."""
    for path in folder.glob(f"*{STAGING_MARK}*"):
        path.unlink(missing_ok=True)


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
