"""Files of the set-up, using only the standard library: paths, stamps, checked archives, locks, messages."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tarfile
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

REPOSITORY = Path(__file__).resolve().parent.parent
STAMP = ".svi-stamp.json"


class SetupError(RuntimeError):
    """The set-up failed; the message states the reason and the fix."""


class LockBusy(RuntimeError):
    """Another process holds the lock, and the caller does not wait."""


@dataclass(frozen=True)
class Layout:
    """Paths of the environment: ``repository`` holds requirements.txt, ``runtime`` everything that the set-up creates."""

    repository: Path = REPOSITORY
    runtime: Path = REPOSITORY / ".runtime"

    @property
    def venv(self) -> Path:
        return self.runtime / "venv"

    @property
    def venv_python(self) -> Path:
        return self.venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @property
    def comfyui(self) -> Path:
        return self.runtime / "ComfyUI"

    @property
    def downloads(self) -> Path:
        return self.runtime / "downloads"

    @property
    def lock(self) -> Path:
        return self.runtime / "setup.lock"


def say(message: str) -> None:
    """Write one line for the user to standard error; standard output is for results."""
    sys.stderr.write(f"[svi] {message}\n")
    sys.stderr.flush()


def read_stamp(folder: Path) -> dict[str, str]:
    """Return the stamp of `folder`; empty, which matches nothing, if it is missing or unreadable."""
    try:
        stamp = json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(folder: Path, stamp: dict[str, str]) -> None:
    """Write the stamp of `folder` atomically."""
    staging = folder / f"{STAMP}.{os.getpid()}"
    staging.write_text(json.dumps(stamp, indent=1, sort_keys=True), encoding="utf-8")
    staging.replace(folder / STAMP)


def check_sha256(path: Path, expected: str) -> None:
    """Delete the file and raise SetupError unless it has the expected sha256; a rerun then downloads it again."""
    with path.open("rb") as handle:
        found = hashlib.file_digest(handle, "sha256").hexdigest()
    if found != expected:
        path.unlink()
        raise SetupError(f"{path.name} has sha256 {found}, not the pinned {expected}: deleted; run the command again")


def extract_folder(archive: Path, folder: str, destination: Path, stamp: dict[str, str]) -> None:
    """Extract `folder` of a tar archive to `destination`, with `stamp` inside it, atomically.

    Raises:
        SetupError: the archive lacks the folder, or contains a link, a special file or a path that leads outside.
    """
    if not hasattr(tarfile, "data_filter"):
        raise SetupError("this Python cannot extract archives safely: use Python 3.11.4 or newer")
    staging = destination.with_name(f"{destination.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        with tarfile.open(archive) as tar:
            members = list(_members_below(tar, folder))
            if not members:
                raise SetupError(f"{archive.name} holds no folder {folder}")
            tar.extractall(staging, members, filter="data")
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        shutil.rmtree(staging, ignore_errors=True)
        raise SetupError(f"{archive.name} cannot be extracted: {error}") from error
    write_stamp(staging, stamp)
    staging.rename(destination)


def _members_below(tar: tarfile.TarFile, folder: str) -> Iterator[tarfile.TarInfo]:
    for member in tar:
        if member.name.startswith(f"{folder}/"):
            if not (member.isfile() or member.isdir()):
                raise SetupError(f"{member.name} in {tar.name} is neither a file nor a folder: refused")
            yield member.replace(name=member.name.removeprefix(f"{folder}/"), deep=False)


def comfyui_tree_digest(tree: Path) -> str:
    """Return the sha256 of the names and contents of a ComfyUI tree's own files, without those that users add."""
    skipped = {"__pycache__", "custom_nodes", "input", "models", "output", "temp", "user"}
    total = hashlib.sha256()
    files = [path for path in tree.rglob("*") if path.is_file() and path.name != STAMP]
    for path in sorted(files, key=lambda path: path.relative_to(tree).as_posix()):
        name = path.relative_to(tree).as_posix()
        if skipped.isdisjoint(name.split("/")):
            total.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return total.hexdigest()


@contextmanager
def file_lock(path: Path, waiting: str | None) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the system releases it even if this process is killed.

    Args:
        waiting: the message to show while another process holds it; None raises instead of waiting.

    Raises:
        LockBusy: another process holds it and `waiting` is None.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as handle:
        if not _try_lock(handle):
            if waiting is None:
                raise LockBusy(f"{path} is held by another process")
            say(waiting)
            while not _try_lock(handle):
                time.sleep(0.2)
        yield  # closing the file releases the lock


def _try_lock(handle: IO[bytes]) -> bool:
    try:
        if os.name == "nt":
            import msvcrt

            handle.seek(0)
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True
