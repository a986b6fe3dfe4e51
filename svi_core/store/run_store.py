"""A run's folder: every finished clip under a key of all that determines it, so that nothing is made twice or lost.

    <run>/clips/<key>.safetensors   the clip's latent, with its key and the hash of its bytes in the header
    <run>/clips/<key>.json          what the clip is (prompt, seed) and the hashes of its video segments
    <run>/clips/<key>-<frames>.mp4  the frames that the clip adds to a video
    <run>/clips/<key>.keep          there if the clip is never to be removed to save space
    <run>/video.mp4                 the join of the segments so far; video-<name>.mp4 once it is finished
    <run>/run.json                  the clips that the video consists of, in their order
    <run>/finished.jsonl            the clips of the last run as they were finished
    <run>/set_aside/                what was found damaged or foreign; never trusted, never deleted

A clip's key contains the key of the clip before, so a changed prompt for clip 7 changes keys 7 and later only, and going
back to an earlier take finds it still there.
"""

import json
import logging
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from filelock import FileLock, Timeout
from safetensors.torch import save

from ..files.atomic_file import remove_stale_staging, write_bytes
from ..files.fingerprint import file_sha256, fingerprint, tensor_sha256
from .keep_marks import is_kept, removal_lock
from .records import FORMAT_VERSION, MANIFEST, ClipRecord, ShownClip, _read_latent, _read_record, read_last_video, read_manifest

_log = logging.getLogger(__name__)


def chain_key(previous_key: str | None, request: object) -> str:
    """Return the key of a clip from the key of the clip it moves on from and everything else that determines it."""
    return fingerprint("svi clip", FORMAT_VERSION, previous_key, request)


class RunStore:
    """The clips of one run's folder. Use it as a context manager: it holds the folder's lock."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.clips = folder / "clips"
        self._lock = FileLock(folder / ".lock")

    def __enter__(self) -> "RunStore":
        """Lock the folder and tidy what a killed process left half-written.

        Raises:
            ValueError: another process works in the folder.
            OSError: the folder cannot be created or written.
        """
        self.clips.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            owner = self._owner_path.read_text() if self._owner_path.exists() else "?"
            raise ValueError(
                f"the run folder {self.folder} is in use by process {owner}: wait for it, or choose another filename_prefix."
            ) from None
        try:
            write_bytes(self._owner_path, str(os.getpid()).encode())
            for folder in (self.folder, self.clips):
                remove_stale_staging(folder)
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_) -> None:
        try:
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

        A truncated, foreign, renamed or changed file is named in the log and moved to ``set_aside``.
        """
        path = self._latent_path(key)
        if not path.exists():
            return None
        try:
            return _read_latent(path, key)
        except (ValueError, KeyError) as error:
            self._set_aside(path, str(error))
            return None

    def save_latent(self, record: ClipRecord, latent: torch.Tensor) -> None:
        """Store a finished clip. A latent or record that is already there is left alone: equal keys mean equal clips.

        Raises:
            OSError: the disk is full or the folder vanished; nothing half-written stays.
        """
        path = self._latent_path(record.key)
        if not path.exists():
            latent = latent.contiguous()
            metadata = {"svi.key": record.key, "svi.sha256": tensor_sha256(latent), "svi.format": str(FORMAT_VERSION)}
            write_bytes(path, save({"latent": latent}, metadata))
        self.ensure_record(record)

    def ensure_record(self, record: ClipRecord) -> None:
        """Write the record of a stored clip unless there is one: a crash may have come between the latent and its record.

        A known clip asked for by another graph is from now on known as that graph's.
        """
        known = self.record(record.key)
        if known is None:
            self._write_record(record)
        elif known.plan_key != record.plan_key:
            self._write_record(replace(known, plan_key=record.plan_key))

    def record(self, key: str) -> ClipRecord | None:
        """Return what is known of clip `key`, or None; an unreadable record is set aside."""
        path = self.clips / f"{key}.json"
        if not path.exists():
            return None
        try:
            return _read_record(path)
        except (ValueError, KeyError, TypeError) as error:
            self._set_aside(path, str(error))
            return None

    def segment_path(self, key: str, name: str) -> Path:
        """Return where the segment `name` of clip `key` lies; the name says which frames, and how they are encoded."""
        return self.clips / f"{key}-{name}.mp4"

    def segment(self, key: str, name: str) -> Path | None:
        """Return the finished segment, or None if there is none that can be trusted."""
        path, record = self.segment_path(key, name), self.record(key)
        if not path.exists():
            return None
        known = record.segments.get(name) if record else None
        if record is None:
            self._set_aside(path, "its clip has no record")
            return None
        if known is None:
            _log.info("SVI run store: %s was cut off before it was recorded; it is removed and made again.", path)
            path.unlink()
            return None
        if known.get("sha256") != file_sha256(path):
            self._set_aside(path, "its bytes are not those of the clip it is named after")
            return None
        return path

    def add_segment(self, key: str, name: str, num_frames: int, frames_sha256: str, colour: Mapping[str, object]) -> None:
        """Record the segment file that was just moved into place, and the colour correction that it ends with."""
        record = self.record(key)
        assert record is not None, key
        sha256 = file_sha256(self.segment_path(key, name))
        facts = {"sha256": sha256, "num_frames": num_frames, "frames_sha256": frames_sha256, "colour": dict(colour)}
        self._write_record(replace(record, segments={**record.segments, name: facts}))

    def add_measure(self, key: str, name: str, value: float) -> None:
        """Note what making clip `key` took."""
        record = self.record(key)
        assert record is not None, key
        self._write_record(replace(record, measures={**record.measures, name: round(value, 3)}))

    def mark_used(self, key: str) -> None:
        """Note that clip `key` is in use now, which decides what is removed first to save space."""
        os.utime(self._latent_path(key))

    def write_manifest(self, clips: Iterable["ShownClip"], video: str, is_final: bool = False) -> None:
        """Write which clips, in which order, make up the file `video` of this folder, which is the run's last.

        Args:
            is_final: it is finished: write its bytes' hash, and a manifest of its own that outlives later videos.
        """
        manifest = {"format": FORMAT_VERSION, "video": video, "clips": [vars(clip) for clip in clips]}
        if is_final:
            manifest["sha256"] = file_sha256(self.folder / video)
        data = json.dumps(manifest, ensure_ascii=False, indent=1).encode()
        if is_final:
            write_bytes((self.folder / video).with_suffix(".json"), data)
        write_bytes(self.folder / MANIFEST, data)

    @contextmanager
    def within(self, budget_bytes: int, clips: Sequence["ShownClip"], segments: Sequence[Path]) -> Iterator[None]:
        """Make a video of `clips`, shown by `segments` (both grow meanwhile), and keep to the budget once it is made.

        If it is not made to its end, the clips of the video before stay too: they may be the same ones, not come to yet.
        """
        before = self._shown_before()
        try:
            yield
        except BaseException:
            self.prune(budget_bytes, before | {clip.key for clip in clips})
            raise
        self.prune(budget_bytes, {clip.key for clip in clips}, set(segments))

    def _shown_before(self) -> set[str]:
        """Return the keys of the clips that the run's last video shows; all of the folder if its manifest is damaged."""
        try:
            video = read_last_video(self.folder)
            return {clip.key for clip in (read_manifest(video) or ())} if video else set()
        except ValueError:
            return set(self._files_by_key())

    def prune(self, budget_bytes: int, in_use: set[str], shown: set[Path] | None = None) -> list[str]:
        """Remove the clips used longest ago until the folder's clips fit `budget_bytes` (0: no limit); return their keys.

        Clips `in_use` and clips marked "keep" are never removed, whatever the budget.

        Args:
            shown: the segments that the clips in use are shown by. Their others, of another coding or another seam, go first:
                they can be made again from the latents. None: they stay.
        """
        if budget_bytes == 0:
            return []
        groups = self._files_by_key()
        by_age = sorted(groups, key=lambda key: max(path.stat().st_mtime for path in groups[key]))
        parts = [(key, _segments_besides(groups[key], shown)) for key in by_age if key in in_use and shown is not None]
        takes = [(key, groups[key]) for key in by_age if key not in in_use]
        total, removed = sum(map(_size_of, groups.values())), []
        for key, paths in parts + takes:
            if total <= budget_bytes:
                break
            size = _size_of(paths)
            if paths and self._remove(key, paths):
                total -= size
                removed += [key] if key not in in_use else []
        return removed

    def _remove(self, key: str, paths: list[Path]) -> bool:
        """Remove the files of clip `key` unless it is marked "keep"; return whether they were removed."""
        with removal_lock(self.folder):
            if is_kept(self.folder, key):
                return False
            try:
                for path in sorted(paths, key=lambda path: path.suffix == ".safetensors"):  # the latent last
                    path.unlink()
            except OSError as error:  # open in a player on Windows, say
                _log.warning("SVI run store: %s could not be removed (%s); it stays for now.", path, error)
                return False
        return True

    def _files_by_key(self) -> dict[str, list[Path]]:
        groups: dict[str, list[Path]] = {}
        for path in self.clips.iterdir():
            if match := re.match(r"[0-9a-f]{64}(?=[-.])", path.name):  # other files are not ours to count or remove
                groups.setdefault(match.group(), []).append(path)
        return groups

    def _latent_path(self, key: str) -> Path:
        return self.clips / f"{key}.safetensors"

    def _write_record(self, record: ClipRecord) -> None:
        write_bytes(self.clips / f"{record.key}.json", json.dumps(vars(record), ensure_ascii=False, indent=1).encode())

    def _set_aside(self, path: Path, reason: str) -> None:
        folder = self.folder / "set_aside"
        folder.mkdir(exist_ok=True)
        stamp = time.time_ns()
        while (target := folder / f"{stamp}-{path.name}").exists():  # clocks jump back, and some are coarse
            stamp += 1
        os.replace(path, target)
        _log.warning("SVI run store: %s cannot be trusted (%s); moved to %s and made again.", path, reason, target)


def _segments_besides(paths: Iterable[Path], shown: set[Path]) -> list[Path]:
    return [path for path in paths if path.suffix == ".mp4" and path not in shown]


def _size_of(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths)
