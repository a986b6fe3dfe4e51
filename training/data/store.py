"""The folder of encoded examples: files that are complete or absent, and hold their own checksum.

Layout::

    texts/KEY.safetensors      the embedding of one caption
    windows/KEY.safetensors    latents of one example
    clips/HASH.json            the scan of one clip
    index-SETTINGS.json        the examples of one configuration
    report.json                what the last run used and skipped, and why

A key is a hash of everything that determines the values: bytes of the clip, frames, crop, caption, model files. So a changed
setting never finds an old value, several configurations can share a folder, and a killed run resumes where it stopped.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from filelock import FileLock
from torch import Tensor

from svi_core.files.atomic_file import remove_stale_staging, write_bytes
from svi_core.files.fingerprint import fingerprint
from svi_core.files.folder_lock import lock_folder
from svi_core.files.safetensors_file import read_tensors, write_tensors

TEXTS, WINDOWS, CLIPS = "texts", "windows", "clips"
REPORT = "report.json"
_HEADER = "svi_cache"


class CacheFolder:
    """A cache on disk. Reading needs no lock; to write, use it as a context manager, which locks the folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._lock: FileLock | None = None

    def __enter__(self) -> "CacheFolder":
        """Create and lock the folder, and remove what a killed process left half-written.

        Raises:
            ValueError: another process writes to the folder.
            OSError: the folder cannot be created or written.
        """
        try:
            for kind in (TEXTS, WINDOWS, CLIPS):
                (self.folder / kind).mkdir(parents=True, exist_ok=True)
            in_use = f"the cache {self.folder} is in use by another process: wait for it, or set data.cache to another folder."
            self._lock = lock_folder(self.folder, in_use)
        except OSError as error:
            reason = f"{error.strerror}: set data.cache to a folder that can be written"
            raise OSError(error.errno, reason, str(self.folder)) from error
        for folder in (self.folder, *(self.folder / kind for kind in (TEXTS, WINDOWS, CLIPS))):
            remove_stale_staging(folder)
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._lock.release()

    def path(self, kind: str, key: str) -> Path:
        """Return the file of an entry."""
        return self.folder / kind / f"{key}.safetensors"

    def write(self, kind: str, key: str, tensors: Mapping[str, Tensor], about: str) -> None:
        """Store `tensors` under `key`, atomically and with their checksum; `about` describes them to a human reader.

        Raises:
            OSError: the disk is full, for example; the message names the file.
        """
        header = json.dumps({"key": key, "about": about, "sha256": fingerprint(tensors)})
        write_tensors(self.path(kind, key), tensors, {_HEADER: header})

    def read(self, kind: str, key: str) -> dict[str, Tensor]:
        """Return the tensors stored under `key`.

        Raises:
            ValueError: the file is missing, damaged or another entry's; the message names it.
        """
        path = self.path(kind, key)
        if not path.is_file():
            raise ValueError(f"{path} is missing: run python -m training.cache again with the same configuration.")
        tensors, metadata = read_tensors(path)
        header = _parsed(metadata.get(_HEADER, ""))
        if header.get("key") != key:
            other = header.get("about", "unknown")
            raise ValueError(f"{path} is another entry ({other}): run python -m training.cache again.")
        if header.get("sha256") != fingerprint(tensors):
            raise ValueError(f"{path} is damaged (its checksum does not match): run python -m training.cache again.")
        return tensors

    def write_json(self, name: str, value: dict) -> None:
        """Store a JSON object, indented, atomically and with its checksum."""
        text = json.dumps({"checksum": _checksum(value), **value}, indent=1, ensure_ascii=False)
        write_bytes(self.folder / name, text.encode())

    def read_json(self, name: str) -> dict | None:
        """Return a stored JSON object, or None if it is missing or damaged."""
        try:
            value = _parsed((self.folder / name).read_bytes())
        except OSError:
            return None
        return value if value.pop("checksum", None) == _checksum(value) else None

    def entries(self, kind: str) -> dict[str, int]:
        """Return the size in bytes of every stored entry, by key."""
        with os.scandir(self.folder / kind) as found:
            return {Path(entry.name).stem: entry.stat().st_size for entry in found if entry.name.endswith(".safetensors")}

    def remove(self, kind: str, key: str) -> None:
        """Remove an entry if it exists."""
        self.path(kind, key).unlink(missing_ok=True)


def _parsed(text: str | bytes) -> dict:
    """Return the JSON object in `text`, or an empty one."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def _checksum(value: dict) -> str:
    """Return a hash of a JSON object as read back, where tuples are lists."""
    return fingerprint(json.loads(json.dumps(value)))
