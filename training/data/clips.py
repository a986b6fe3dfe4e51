"""Look through the clips of a dataset: which can be used, what examples they give, and under which names those are kept."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from svi_core.files.fingerprint import file_sha256, fingerprint
from svi_core.systems.layouts import Condition

from ..settings.data import DataConfig
from .report import CacheReport, used_clip
from .scan import SCAN_VERSION, ClipScan, scan_clip
from .sound import require_sound
from .sources import ClipSource, find_clips
from .store import CLIPS, CacheFolder
from .tables import Rejected
from .windows import WindowPlan, plan_windows

FORMAT_VERSION = 1  # part of every key: raise it when the same inputs give other values


@dataclass(frozen=True)
class UsableClip:
    """A clip that gives examples.

    Attributes:
        source: its file and caption.
        content: hash of its bytes.
        plans: its examples, by the key that names their latents.
        text_key: names the embedding of its caption.
    """

    source: ClipSource
    content: str
    plans: Mapping[str, WindowPlan]
    text_key: str


def look_through(
    cache: CacheFolder, config: DataConfig, models: Mapping[str, str], report: CacheReport, progress: bool = False
) -> list[UsableClip]:
    """Return the clips that give examples, each content once; the others go into the report.

    Args:
        cache: remembers what was found in a clip.
        config: the data.
        models: hash of each model file, part of the keys.
        report: is added to.
        progress: show a bar on standard error.
    """
    sources, rejected = find_clips(Path(config.folder), config.default_caption, config.cache_folder)
    report.rejected += rejected
    clips: dict[str, UsableClip] = {}
    for source in tqdm(sources, "looking through clips", unit="clip", disable=not progress):
        try:
            content = _hash_of(source.path)
            if content in clips:
                raise ValueError(f"holds the same video as {clips[content].source.name}")
            scan = _scan(cache, source.path, content, config.frame_rate)
            seen = (content, *_followed(source, config, models))
            plans = {_window_key(seen, plan, config, models): plan for plan in plan_windows(scan, content, config)}
        except ValueError as error:
            report.rejected.append(Rejected(source.name, str(error)))
            continue
        text_key = fingerprint("svi text", FORMAT_VERSION, source.caption, models["text_encoder"], config.storage)
        clips[content] = UsableClip(source, content, plans, text_key)
        report.used.append(used_clip(source.name, scan, list(plans.values()), config.svi_layout, config.frame_rate))
    return list(clips.values())


def _hash_of(path: Path) -> str:
    """Return the hash of a file's bytes.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return file_sha256(path)
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error


def _followed(source: ClipSource, config: DataConfig, models: Mapping[str, str]) -> tuple[str, ...]:
    """Return hashes of what the clip follows besides text and image, where the layout has that, and of what encodes it.

    Raises:
        ValueError: there is no such file, or it cannot be read.
    """
    if config.svi_layout.condition is None:
        return ()
    if config.svi_layout.condition is Condition.SOUND:
        require_sound(source.sound)
        return (_hash_of(source.sound), models["audio_encoder"])
    if source.pose is None:
        stem = source.path.stem
        raise ValueError(
            f"has no pose video, which {config.layout} needs: put {stem}.pose.mp4 beside it, or name it in a Pose column"
        )
    return (_hash_of(source.pose),)


def _scan(cache: CacheFolder, path: Path, content: str, rate: int) -> ClipScan:
    """Return what is known of a clip, from the cache where it was looked through before."""
    name = f"{CLIPS}/{fingerprint(content, rate, SCAN_VERSION)}.json"
    stored = cache.read_json(name)
    if stored is not None:
        return ClipScan(**{**stored, "plain": tuple(stored["plain"])})
    scan = scan_clip(path, rate)
    cache.write_json(name, vars(scan))
    return scan


def _window_key(seen: tuple[str, ...], plan: WindowPlan, config: DataConfig, models: Mapping[str, str]) -> str:
    """Return the name of an example: a hash of all that its tensors depend on, `seen` being the files by their hashes."""
    made_with = (models["vae"], models["clip_vision"], config.storage, config.vae_tile, config.frame_rate)
    return fingerprint("svi example", FORMAT_VERSION, *seen, plan, config.svi_layout, made_with)
