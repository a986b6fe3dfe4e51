"""Records of stored clips and manifests of videos: the JSON files of a run folder."""

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, get_origin, get_type_hints

import torch

from ..files.fingerprint import file_sha256, fingerprint, large_file_fingerprint
from ..files.safetensors_file import read_tensors
from ..files.sealed_json import NotAnObjectError, read_sealed, write_sealed

FORMAT_VERSION = 1
MANIFEST = "run.json"
_SEGMENT_FACTS = ("sha256", "num_frames", "frames_sha256", "colour")  # a later version may know more
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClipRecord:
    """The record of one finished clip.

    Attributes:
        key: 64 hex digits; determines the latent.
        index: 0-based place in the video it was made for.
        prompt: its text.
        seed: its noise seed.
        segments: by name (which frames, which coding): {"sha256": of the file, "num_frames", "frames_sha256": of the frames,
            "colour": the correction that it ends with}.
        plan_key: as :attr:`key`, but from the graph alone (see ClipPlan.plan_key).
        measures: "sample_seconds", "decode_seconds", "peak_bytes" of GPU memory, and what these depend on: "num_steps",
            "num_passes" of the model per step, "num_slots", "latent_height", "latent_width".
        options, parent, made: in schedule syntax, without the seed; key of the clip or video that it continues, "" for none;
            when, in seconds since 1970. None, None and 0 in records of earlier versions.
    """

    key: str
    index: int
    prompt: str
    seed: int
    segments: dict[str, dict[str, Any]]
    plan_key: str = ""
    measures: dict[str, float] = field(default_factory=dict)
    options: str | None = None
    parent: str | None = None
    made: float = 0.0


@dataclass(frozen=True)
class ShownClip:
    """One clip as a video shows it.

    Attributes:
        key: of the clip in the store.
        prompt: its text.
        seed: its noise seed.
        num_frames: frames that it contributes to the video.
        whole_end: the clip's own last frame is shown last (or held), so the video can be continued from its latent.
    """

    key: str
    prompt: str
    seed: int
    num_frames: int
    whole_end: bool = True


@dataclass(frozen=True)
class Manifest:
    """What a video of a run shows.

    Attributes:
        video: its file name.
        clips: its clips in order.
        sha256: of the file; None for a video that still grows.
        sample: svi_core.files.fingerprint.large_file_fingerprint of a video that grows, which is too large to hash after each
            clip; None for a finished one, or if an earlier version wrote the manifest.
    """

    video: str
    clips: tuple[ShownClip, ...]
    sha256: str | None = None
    sample: str | None = None

    def fits(self, video: Path) -> bool:
        """Whether `video` has the bytes that the manifest names."""
        status = video.stat()
        if self.sha256 is not None and self.sha256 != _sha256_of(video, status.st_size, status.st_mtime_ns):
            return False
        return self.sample is None or self.sample == large_file_fingerprint(video)


@functools.lru_cache(maxsize=8)  # a plan and its run ask for the same large file
def _sha256_of(path: Path, _size: int, _changed: int) -> str:
    return file_sha256(path)


def read_manifest(video: Path) -> tuple[ShownClip, ...] | None:
    """Return the clips of `video` from its own manifest or the run's; None if neither describes this video.

    Raises:
        ValueError: the manifest is damaged.
    """
    manifest = manifest_of(video)
    return manifest.clips if manifest else None


def manifest_of(video: Path) -> Manifest | None:
    """Return the own manifest of `video`, or that of its run; None if neither describes this video.

    Outside a run's folder any file may lie beside a video.

    Raises:
        ValueError: the manifest is damaged.
    """
    damage = None
    for path in (video.with_suffix(".json"), video.parent / MANIFEST):
        try:
            manifest = parsed_manifest(path)
        except ValueError as error:
            damage = damage or error
            continue
        if manifest is not None and manifest.video == video.name:
            if damage:
                _log.warning("SVI: %s The run's manifest describes the video too.", damage)
            return manifest
    if damage and ((video.parent / MANIFEST).exists() or any((video.parent / "clips").glob("*.safetensors"))):
        raise damage
    return None


def require_unchanged(video: Path) -> None:
    """Refuse a video whose bytes are not those that its manifest names; a video without a manifest is accepted.

    Raises:
        ValueError: it is damaged, or its manifest is.
    """
    manifest = manifest_of(video)
    if manifest is not None and not manifest.fits(video):
        raise ValueError(f"{video} is damaged, or still being written: wait for its run, or run its graph again.")


def read_last_video(run_folder: Path) -> Path | None:
    """Return the last video of a run, finished or interrupted, or None if there is none.

    Raises:
        ValueError: a damaged manifest.
    """
    manifest = parsed_manifest(run_folder / MANIFEST)
    video = run_folder / Path(manifest.video).name if manifest else None
    return video if video is not None and video.is_file() else None


def parsed_manifest(path: Path) -> Manifest | None:
    """Return the manifest in `path`; None if the file is absent or is other JSON.

    Raises:
        ValueError: it is damaged, or not JSON at all.
    """
    try:
        return manifest_in(path)
    except ValueError as error:
        raise ValueError(f"{path} is not a manifest of an SVI run ({error}): run the graph again to write it anew.") from error


def manifest_in(path: Path) -> Manifest | None:
    """Return what :func:`parsed_manifest` does; an error gives the bare reason, for a message that names the file itself.

    Raises:
        ValueError: see :func:`parsed_manifest`.
    """
    if not path.is_file():
        return None
    try:
        facts = read_sealed(path)
        if len({"format", "video", "clips"} & facts.keys()) < 2:
            return None
        clips = [{name: clip[name] for name in ShownClip.__dataclass_fields__ if name in clip} for clip in facts["clips"]]
        shown = tuple(ShownClip(**clip) for clip in clips)
        manifest = Manifest(facts["video"], shown, facts.get("sha256"), facts.get("sample"))
        for part in (manifest, *manifest.clips):
            _require_types(part)
    except NotAnObjectError:
        return None
    except KeyError as error:
        raise ValueError(f"it lacks {error}") from error
    except (AttributeError, TypeError) as error:
        raise ValueError(str(error)) from error
    return manifest


def read_clip_latent(run_folder: Path, key: str) -> torch.Tensor | None:
    """Return the latent of clip `key` of a run, or None if it is not stored; changes nothing.

    Raises:
        ValueError: it is damaged.
    """
    path = run_folder / "clips" / f"{key}.safetensors"
    if not path.exists():
        return None
    try:
        return read_latent(path, key)
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}): run the graph of that run again to make the clip anew, or continue a copy of the "
            "video in another folder, from its frames."
        ) from error


def read_latent(path: Path, key: str) -> torch.Tensor:
    """Return the latent of clip `key` from its file `path`.

    Raises:
        ValueError: a damaged or foreign file, or one of another clip.
    """
    tensors, metadata = read_tensors(path)
    latent = tensors.get("latent")
    if latent is None or metadata.get("svi.key") != key or metadata.get("svi.sha256") != fingerprint(latent):
        raise ValueError("its key or its bytes are not what its header says")
    return latent


def read_records(run_folder: Path) -> list[ClipRecord]:
    """Return the records of a run's stored clips, in the video's order and without damaged ones. A run may be active."""
    paths = (run_folder / "clips").glob("*.safetensors")
    found = (read_record_if_unchanged(path.with_suffix(".json")) for path in paths)
    return sorted(filter(None, found), key=lambda record: (record.index, record.key))


def read_record_if_unchanged(path: Path) -> ClipRecord | None:
    """Return the record in `path`, parsed once until the file changes; None for none that can be trusted."""
    try:
        status = path.stat()
        return _parsed_record(path, status.st_size, status.st_mtime_ns)
    except (OSError, ValueError):
        return None


@functools.lru_cache(maxsize=16_384)  # a storyboard asks again and again
def _parsed_record(path: Path, _size: int, _changed: int) -> ClipRecord:
    return read_record(path)


def read_record(path: Path) -> ClipRecord:
    """Return the record in `path`.

    Raises:
        ValueError: it is damaged, or the record of another clip.
    """
    facts = read_sealed(path)
    try:
        record = ClipRecord(**{name: facts[name] for name in ClipRecord.__dataclass_fields__ if name in facts})
        _require_types(record)
        for segment in record.segments.values():
            _require_segment(**{name: fact for name, fact in segment.items() if name in _SEGMENT_FACTS})
    except TypeError as error:
        raise ValueError(f"its fields are not those of a clip: {error}") from error
    if record.key != path.stem:
        raise ValueError(f"it is the record of clip {record.key[:12]}")
    return record


def write_record(path: Path, record: ClipRecord) -> None:
    """Write `record` to `path`."""
    write_sealed(path, vars(record))


def _require_types(value: "ClipRecord | Manifest | ShownClip") -> None:
    """Raise TypeError unless each field is of its type: records of earlier versions have no checksum."""
    for name, kind in _types(type(value)).items():
        found = getattr(value, name)
        if not isinstance(found, kind) or isinstance(found, bool) is not (kind is bool):
            raise TypeError(f"{name} is {str(found)[:40]!r}")
    measures = getattr(value, "measures", {})
    if not all(isinstance(number, int | float) for number in measures.values()):
        raise TypeError(f"measures are {str(measures)[:80]!r}")


@functools.cache
def _types(of: type) -> dict[str, Any]:
    """Return the type of each field, for isinstance: `dict` for `dict[str, int]`."""
    origins = {name: (kind, get_origin(kind)) for name, kind in get_type_hints(of).items()}
    return {
        name: origin if isinstance(origin, type) and origin is not UnionType else kind
        for name, (kind, origin) in origins.items()
    }


def _require_segment(sha256: str, num_frames: int, frames_sha256: str, colour: Mapping[str, Any] | None = None) -> None:
    """Raise TypeError unless these are the facts of a segment; `colour` as in svi_core.video.colour."""
    colour = {} if colour is None else dict(colour)
    rows = [row for name, row in colour.items() if name in ("gain", "offset")]
    numbers = [number for row in rows for number in row if isinstance(number, int | float)]
    texts = isinstance(sha256, str) and isinstance(frames_sha256, str)
    if not texts or not isinstance(num_frames, int) or len(rows) != len(colour) or len(numbers) != 3 * len(rows):
        raise TypeError(f"a segment has {num_frames!r} frames and colour {str(colour)[:80]!r}")
