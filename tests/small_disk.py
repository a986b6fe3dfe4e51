"""A real file system of a few kilobytes, to be full or read-only."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PAGE_BYTES = 4096  # what tmpfs hands out at once


@contextmanager
def small_disk(at: Path, num_pages: int) -> Iterator[Path]:
    """Mount a tmpfs of `num_pages` pages at the folder `at` while the block runs; skip the test where that is not allowed."""
    at.mkdir(parents=True, exist_ok=True)
    done = _mount("-t", "tmpfs", "-o", f"size={num_pages * PAGE_BYTES}", "tmpfs", str(at))
    if done.returncode:
        pytest.skip(f"a file system of its own needs root on Linux: {done.stderr.strip()}")
    try:
        yield at
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def set_writable(disk: Path, writable: bool) -> None:
    """Make a small disk read-only, or writable again."""
    done = _mount("-o", "remount,rw" if writable else "remount,ro", str(disk))
    assert done.returncode == 0, done.stderr


def fill(disk: Path, free_pages: int) -> None:
    """Leave `free_pages` pages on `disk`, by a file that :func:`free` removes."""
    filler = disk / "filler"
    filler.write_bytes(b"")
    num_bytes = _free_bytes(disk) - free_pages * PAGE_BYTES
    filler.write_bytes(b"x" * max(0, num_bytes))


def free(disk: Path) -> None:
    """Free what :func:`fill` took."""
    (disk / "filler").unlink()


def _free_bytes(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_bsize


def _mount(*arguments: str) -> subprocess.CompletedProcess:
    try:
        return subprocess.run(["mount", *arguments], capture_output=True, text=True)
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(arguments, 1, "", str(error))
