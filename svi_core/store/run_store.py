"""A run folder: each finished clip is stored under a key of everything that determines it, so none is made twice or lost.

    <run>/clips/<key>.safetensors   the clip's latent, with its key and the hash of its bytes in the header
    <run>/clips/<key>.json          what the clip is (prompt, seed) and the hashes of its video segments
    <run>/clips/<key>-<frames>.mp4  the frames that the clip adds to a video; -processed-<hash>.mp4 what a stage made of them
    <run>/clips/<key>.keep          marks a clip that is never removed to save space
    <run>/video.mp4                 the join of the segments so far; video-<name>.mp4 once it is finished
    <run>/run.json                  the clips of that video, in order
    <run>/finished.jsonl            the clips of the last run, in the order they finished
    <run>/set_aside/                damaged or foreign files; never trusted, never deleted

A clip's key includes the key of the clip before it. So a changed prompt for clip 7 changes keys 7 and later only, and going
back to an earlier take finds it still stored.
"""

import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from ..files.atomic_file import remove_stale_staging, write_bytes
from ..files.checked_file import set_aside
from ..files.fingerprint import file_sha256, fingerprint, large_file_fingerprint
from ..files.folder_lock import lock_folder
from ..files.output_folder import require_no_way_out
from ..files.safetensors_file import write_tensors
from ..files.sealed_json import write_sealed
from .records import FORMAT_VERSION, MANIFEST, ClipRecord, ShownClip, manifest_in, read_latent, read_record, write_record

GROWING_VIDEO = "video.mp4"
_log = logging.getLogger(__name__)


def chain_key(previous_key: str | None, request: object) -> str:
    """Return a clip's key: of the key of the clip before it, and of everything else that determines it."""
    return fingerprint("svi clip", FORMAT_VERSION, previous_key, request)


class RunStore:
    """The clips of one run's folder. Use it as a context manager: it holds the folder's lock."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.clips = folder / "clips"
        self._lock: FileLock
        self._record_lock = threading.Lock()  # a segment is recorded in the background

    def __enter__(self) -> "RunStore":
        """Lock the folder, remove what a killed process left half-written, and set a damaged manifest aside.

        Raises:
            ValueError: another process uses the folder, or a link in it leads elsewhere.
            OSError: the folder cannot be created or written.
        """
        require_no_way_out(self.folder)
        self.clips.mkdir(parents=True, exist_ok=True)
        owner = self._owner_path.read_bytes()[:20].decode(errors="replace") if self._owner_path.exists() else "?"
        in_use = f"the run folder {self.folder} is in use by process {owner}: wait for it, or choose another filename_prefix."
        self._lock = lock_folder(self.folder, in_use)
        try:
            write_bytes(self._owner_path, str(os.getpid()).encode())
            for folder in (self.folder, self.clips):
                remove_stale_staging(folder)
            self._check_manifest()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_) -> None:
        try:
            for folder in (self.folder, self.clips):
                remove_stale_staging(folder)  # of a killed process whose ffmpeg wrote on for a moment
            self._owner_path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("SVI run store: %s could not be removed (%s); the lock is released.", self._owner_path, error)
        finally:
            self._lock.release()

    @property
    def _owner_path(self) -> Path:
        return self.folder / ".owner"

    def load_latent(self, key: str) -> torch.Tensor | None:
        """Return the latent stored under `key`, or None if there is none that can be trusted.

        A truncated, foreign, renamed or changed file is logged and moved to ``set_aside``.
        """
        path = self._latent_path(key)
        if not path.exists():
            return None
        try:
            return read_latent(path, key)
        except ValueError as error:
            self.set_aside(path, error)
            return None

    def save_latent(self, record: ClipRecord, latent: torch.Tensor) -> None:
        """Store a finished clip. A latent or record that is already there is left alone: equal keys mean equal clips.

        Raises:
            OSError: the disk is full or the folder vanished; nothing half-written stays.
        """
        path = self._latent_path(record.key)
        if not path.exists():
            metadata = {"svi.key": record.key, "svi.sha256": fingerprint(latent), "svi.format": str(FORMAT_VERSION)}
            write_tensors(path, {"latent": latent}, metadata)
        self.ensure_record(record)

    def ensure_record(self, record: ClipRecord) -> None:
        """Write the record of a stored clip unless it has one: a crash may have come between the latent and its record.

        If another graph or another place of the video asks for a stored clip, its record takes that graph's key and that place.
        """
        asked = {name: getattr(record, name) for name in ("index", "plan_key", "options", "parent")}
        asked = {name: value for name, value in asked.items() if value is not None}
        self._change_record(record.key, lambda known: replace(known, **asked) if known else record)

    def record(self, key: str) -> ClipRecord | None:
        """Return what is known of clip `key`, or None; an unreadable record is set aside."""
        path = self.clips / f"{key}.json"
        if not path.exists():
            return None
        try:
            return read_record(path)
        except ValueError as error:
            self.set_aside(path, error)
            return None

    def segment_path(self, key: str, name: str) -> Path:
        """Return the path of segment `name` of clip `key`; the name says which frames, and how they are encoded."""
        return self.clips / f"{key}-{name}.mp4"

    def segment(self, key: str, name: str) -> dict[str, Any] | None:
        """Return what is recorded of the finished segment, or None if there is none that can be trusted."""
        path, record = self.segment_path(key, name), self.record(key)
        if not path.exists():
            return None
        if record is None:
            self.set_aside(path, "its clip has no record")
            return None
        known = record.segments.get(name)
        if known is None:
            _log.info("SVI run store: %s was cut off before it was recorded; it is removed and made again.", path)
            path.unlink()
            return None
        if known.get("sha256") != file_sha256(path):
            self.set_aside(path, "its bytes are not those of the clip it is named after")
            return None
        return known

    def add_segment(
        self,
        key: str,
        name: str,
        num_frames: int,
        frames_sha256: str,
        colour: Mapping[str, object],
        more: Mapping[str, object] | None = None,
    ) -> None:
        """Record the segment file just moved into place, the colour correction that it ends with, and `more` facts."""
        sha256 = file_sha256(self.segment_path(key, name))
        facts = {"sha256": sha256, "num_frames": num_frames, "frames_sha256": frames_sha256, "colour": dict(colour)}

        def change(record: ClipRecord | None) -> ClipRecord:
            assert record is not None, key
            return replace(record, segments={**record.segments, name: {**facts, **(more or {})}})

        self._change_record(key, change)

    def add_measure(self, key: str, name: str, value: float) -> None:
        """Record one measurement of making clip `key`."""

        def change(record: ClipRecord | None) -> ClipRecord:
            assert record is not None, key
            return replace(record, measures={**record.measures, name: round(value, 3)})

        self._change_record(key, change)

    def mark_used(self, key: str) -> None:
        """Record that clip `key` is in use now: the clips unused for longest are removed first to save space."""
        os.utime(self._latent_path(key))

    def write_manifest(self, clips: Iterable[ShownClip], video: str, is_final: bool = False) -> None:
        """Write the manifest of `video`, a file of this folder and the run's last video: its clips in order.

        Args:
            is_final: the video is finished: write it a manifest of its own, too, that outlives later videos.
        """
        path = self.folder / video
        check = {"sha256": file_sha256(path)} if is_final else {"sample": large_file_fingerprint(path)}
        facts = {"format": FORMAT_VERSION, "video": video, "clips": [vars(clip) for clip in clips], **check}
        if is_final:
            write_sealed(path.with_suffix(".json"), facts)
        write_sealed(self.folder / MANIFEST, facts)

    def set_aside(self, path: Path, reason: object) -> None:
        """Move a damaged file of the run to its ``set_aside``; the log says why."""
        set_aside(path, reason, self.folder)

    def _check_manifest(self) -> None:
        """Set a damaged manifest aside, with the unfinished video, whose clips are then unknown."""
        path, growing = self.folder / MANIFEST, self.folder / GROWING_VIDEO
        try:
            manifest_in(path)
        except ValueError as error:
            self.set_aside(path, error)
            if growing.exists():
                self.set_aside(growing, "its manifest is damaged")

    def _latent_path(self, key: str) -> Path:
        return self.clips / f"{key}.safetensors"

    def _change_record(self, key: str, change: Callable[[ClipRecord | None], ClipRecord]) -> None:
        """Write what `change` makes of the record of clip `key`, unless it is the same; no other thread comes between."""
        with self._record_lock:
            known = self.record(key)
            if known != (now := change(known)):
                write_record(self.clips / f"{key}.json", now)
