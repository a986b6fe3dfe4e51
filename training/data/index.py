"""The list of the examples of one configuration, which `python -m training.cache` writes for the trainer."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from svi_core.files.fingerprint import fingerprint

from .store import CacheFolder

FORMAT_VERSION = 1


@dataclass(frozen=True)
class IndexedExample:
    """One example of the cache.

    Attributes:
        key: of its latents.
        text_key: of the embedding of its caption.
        name: clip, window and variant, for messages.
        caption: the clip's caption.
        clip: hash of the clip's bytes.
        width: pixels.
        height: pixels.
        error_slots: first slot that image errors may be added to, and one past the last.
        draws: keys of its augmented conditioning latents.
    """

    key: str
    text_key: str
    name: str
    caption: str
    clip: str
    width: int
    height: int
    error_slots: tuple[int, int]
    draws: tuple[str, ...] = ()


@dataclass(frozen=True)
class CacheIndex:
    """Examples, and the settings and models that made them.

    Attributes:
        settings: the settings that cached values depend on.
        models: hash of each model file, by its role.
        examples: in the order of their clips.
    """

    settings: Mapping[str, object]
    models: Mapping[str, str]
    examples: tuple[IndexedExample, ...]


def write_index(cache: CacheFolder, index: CacheIndex) -> None:
    """Store `index` under a name derived from its settings."""
    cache.write_json(_name(index.settings), {"format": FORMAT_VERSION, **asdict(index)})


def read_index(cache: CacheFolder, settings: Mapping[str, object]) -> CacheIndex:
    """Return the index of the examples made with `settings`.

    Raises:
        ValueError: there is none; the message names the differences from the most similar one.
    """
    stored = cache.read_json(_name(settings))
    if stored is None or stored.get("format") != FORMAT_VERSION:
        raise ValueError(
            f"{cache.folder} holds no finished cache of this configuration{_difference(cache, settings)}: "
            "run python -m training.cache with it first."
        )
    return CacheIndex(stored["settings"], stored["models"], tuple(map(_example, stored["examples"])))


def _example(entry: Mapping) -> IndexedExample:
    tuples = {name: tuple(entry.get(name, ())) for name in ("error_slots", "draws")}
    return IndexedExample(**{**entry, **tuples})


def _name(settings: Mapping[str, object]) -> str:
    return f"index-{fingerprint(settings)[:16]}.json"


def _difference(cache: CacheFolder, settings: Mapping[str, object]) -> str:
    """Describe how the most similar stored index differs from `settings`; empty if none is stored."""
    indexes = (cache.read_json(path.name) for path in sorted(cache.folder.glob("index-*.json")))
    found = []
    for stored in (index["settings"] for index in indexes if index and "settings" in index):
        keys = (key for key in sorted({*stored, *settings}) if stored.get(key) != settings.get(key))
        found.append([f"{key} {_shown(stored, key)}, not {_shown(settings, key)}" for key in keys])
    return f" (it holds one with {'; '.join(min(found, key=len))})" if found else ""


def _shown(settings: Mapping[str, object], key: str) -> str:
    return repr(settings[key]) if key in settings else "unset"  # such as first_frame_draws before there were any


def indexed_keys(cache: CacheFolder) -> set[str]:
    """Return the keys of all entries in any index of the folder."""
    indexes = (cache.read_json(path.name) or {} for path in cache.folder.glob("index-*.json"))
    entries = [entry for index in indexes for entry in index.get("examples", ())]
    return {key for entry in entries for key in (entry["key"], entry["text_key"], *entry.get("draws", ()))}
