"""Records of stored clips and manifests of videos: the JSON files of a run folder."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..files.fingerprint import file_sha256, fingerprint
from ..files.safetensors_file import read_tensors
from ..files.strict_json import parse_json, read_json
from ..files.text_file import read_bytes

FORMAT_VERSION = 1
MANIFEST = "run.json"


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
        plan_key: as :attr:`key`, but computed from the graph alone (see ClipPlan.plan_key), without a model.
        measures: "sample_seconds", "decode_seconds", "peak_bytes" of GPU memory, and what these depend on: "num_steps",
            "num_passes" of the model per step, "num_slots", "latent_height", "latent_width".
    """

    key: str
    index: int
    prompt: str
    seed: int
    segments: dict[str, dict[str, Any]]
    plan_key: str = ""
    measures: dict[str, float] = field(default_factory=dict)


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


def read_manifest(video: Path) -> tuple[ShownClip, ...] | None:
    """Return the clips of `video` from its own manifest or the run's; None if neither describes this video.

    Raises:
        ValueError: a damaged manifest.
    """
    for path in (video.with_suffix(".json"), video.parent / MANIFEST):
        manifest = _manifest(path)
        if manifest is not None and manifest["video"] == video.name:
            try:
                return tuple(ShownClip(**clip) for clip in manifest["clips"])
            except (KeyError, TypeError) as error:
                raise _not_a_manifest(path, error) from error
    return None


def read_last_video(run_folder: Path) -> Path | None:
    """Return the last video of a run, finished or interrupted, or None if there is none.

    Raises:
        ValueError: a damaged manifest.
    """
    manifest = _manifest(run_folder / MANIFEST)
    video = run_folder / Path(str(manifest["video"])).name if manifest else None
    return video if video is not None and video.is_file() else None


def is_intact(video: Path) -> bool:
    """Whether the bytes of `video` match the hash in its own manifest."""
    try:
        manifest = _manifest(video.with_suffix(".json"))
        return manifest is not None and manifest.get("sha256") == file_sha256(video)
    except (OSError, ValueError):
        return False


def _manifest(path: Path) -> dict[str, Any] | None:
    """Return the manifest in `path`; None if the file is absent or is other JSON.

    Raises:
        ValueError: not JSON at all.
    """
    if not path.exists():
        return None
    try:
        manifest = parse_json(read_bytes(path), "it")
    except ValueError as error:
        raise _not_a_manifest(path, error) from error
    return manifest if isinstance(manifest, dict) and {"format", "video", "clips"} <= manifest.keys() else None


def _not_a_manifest(path: Path, error: Exception) -> ValueError:
    return ValueError(f"{path} is not a manifest of an SVI run ({error}): run the graph again to write it anew.")


def read_clip_latent(run_folder: Path, key: str) -> torch.Tensor | None:
    """Return the latent of clip `key` of a run, or None if it is missing or damaged; changes nothing."""
    try:
        return read_latent(run_folder / "clips" / f"{key}.safetensors", key)
    except (OSError, ValueError, KeyError):
        return None


def read_latent(path: Path, key: str) -> torch.Tensor:
    """Return the latent of clip `key` from its file `path`.

    Raises:
        ValueError: a damaged or foreign file, or one of another clip.
        KeyError: the file holds no latent.
    """
    tensors, metadata = read_tensors(path)
    latent = tensors["latent"]
    if metadata.get("svi.key") != key or metadata.get("svi.sha256") != fingerprint(latent):
        raise ValueError("its key or its bytes are not what its header says")
    return latent


def read_records(run_folder: Path) -> list[ClipRecord]:
    """Return the records of the stored clips of a run, in the video's order.

    Takes no lock and changes nothing, so a run may be active meanwhile; damaged records are left out.
    """
    records: list[ClipRecord] = []
    for path in (run_folder / "clips").glob("*.safetensors"):
        try:
            records.append(read_record(path.with_suffix(".json")))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return sorted(records, key=lambda record: (record.index, record.key))


def read_record(path: Path) -> ClipRecord:
    """Return the record in `path`.

    Raises:
        ValueError: not JSON, or the record of another clip.
        KeyError, TypeError: it lacks a field.
    """
    facts: Any = read_json(path)
    if facts["key"] != path.stem:
        raise ValueError(f"it is the record of clip {str(facts['key'])[:12]}")
    return ClipRecord(**{name: facts[name] for name in ClipRecord.__dataclass_fields__ if name in facts})
