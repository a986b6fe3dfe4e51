"""Scan the clips of a dataset: which are usable, which examples they give, and under which keys the cache stores those."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from svi_core.files.fingerprint import file_sha256, fingerprint
from svi_core.systems.layouts import Condition
from training.data.ignored import find_ignored
from training.data.report import CacheReport, used_clip
from training.data.scan import SCAN_VERSION, ClipScan, scan_clip
from training.data.sound import require_sound
from training.data.sources import ClipSource, find_clips
from training.data.store import CLIPS, CacheFolder
from training.data.tables import Rejected
from training.data.video_reading import usual_colours
from training.data.windows import WindowPlan, plan_windows
from training.settings.data import DataConfig

FORMAT_VERSION = 1  # part of every key: increase it when the same inputs give other values


@dataclass(frozen=True)
class UsableClip:
    """A clip that gives examples.

    Attributes:
        source: file and caption.
        content: hash of the file's bytes.
        plans: the examples by the cache key of their latents.
        text_key: cache key of the caption's embedding.
    """

    source: ClipSource
    content: str
    plans: Mapping[str, WindowPlan]
    text_key: str


def find_usable_clips(
    cache: CacheFolder, config: DataConfig, models: Mapping[str, str], report: CacheReport, progress: bool = False
) -> list[UsableClip]:
    """Return the clips that give examples, each content once. The others go into the report.

    Args:
        cache: stores the scans of clips.
        config: the data settings.
        models: hash of each model file, part of the keys.
        report: gets the used and the rejected clips.
        progress: show a progress bar on standard error.
    """
    sources, rejected = find_clips(Path(config.folder), config.default_caption, config.cache_folder)
    report.rejected += rejected
    report.ignored += find_ignored(Path(config.folder), config.cache_folder)
    clips: dict[str, UsableClip] = {}
    for source in tqdm(sources, "scanning clips", unit="clip", disable=not progress):
        try:
            content = _hash_of(source.path)
            if content in clips:
                raise ValueError(f"holds the same video as {clips[content].source.name}")
            wide = usual_colours(source.path).wide
            scan = _scan(cache, source.path, content, config.frame_rate)
            converted = ("converted from", wide) if wide else ()  # which earlier versions took for ordinary colours
            hashes = (content, *converted, *_condition_hashes(source, config, models))
            plans = {_window_key(hashes, plan, config, models): plan for plan in plan_windows(scan, content, config)}
        except ValueError as error:
            report.rejected.append(Rejected(source.name, str(error)))
            continue
        text_key = fingerprint("svi text", FORMAT_VERSION, source.caption, models["text_encoder"], config.storage)
        clips[content] = UsableClip(source, content, plans, text_key)
        report.used.append(used_clip(source.name, scan, list(plans.values()), config.svi_layout, config.frame_rate, wide))
    return list(clips.values())


def _hash_of(path: Path) -> str:
    """Return the hash of a file's bytes.

    Raises:
        ValueError: the file cannot be read.
    """
    try:
        return file_sha256(path)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error


def _condition_hashes(source: ClipSource, config: DataConfig, models: Mapping[str, str]) -> tuple[str, ...]:
    """Return hashes of the clip's pose video or sound and of the sound's encoder, where the layout needs them.

    Raises:
        ValueError: the file is missing or cannot be read.
    """
    if config.svi_layout.condition is None:
        return ()
    if config.svi_layout.condition is Condition.SOUND:
        require_sound(source.sound)
        return (_hash_of(source.sound), models["audio_encoder"])
    if source.pose is None:
        stem = source.path.stem
        raise ValueError(
            f"has no pose video, which {config.layout} needs: put {stem}.pose.mp4 next to it, or name it in a Pose column"
        )
    return (_hash_of(source.pose),)


def _scan(cache: CacheFolder, path: Path, content: str, rate: int) -> ClipScan:
    """Return the scan of a clip, from the cache if it was scanned before."""
    name = f"{CLIPS}/{fingerprint(content, rate, SCAN_VERSION)}.json"
    stored = cache.read_json(name)
    if stored is not None:
        return ClipScan(**{**stored, "plain": tuple(stored["plain"])})
    scan = scan_clip(path, rate)
    cache.write_json(name, vars(scan))
    return scan


def _window_key(hashes: tuple[str, ...], plan: WindowPlan, config: DataConfig, models: Mapping[str, str]) -> str:
    """Return an example's cache key: a hash of everything that its tensors depend on. `hashes` are those of its files.

    The 0 stands for the side of the VAE's tiles, which changed latents in older versions: examples made so are encoded again.
    """
    made_with = (models["vae"], models["clip_vision"], config.storage, 0, config.frame_rate)
    return fingerprint("svi example", FORMAT_VERSION, *hashes, plan, config.svi_layout, made_with)
