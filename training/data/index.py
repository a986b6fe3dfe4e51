"""The list of the examples that one configuration consists of, as `python -m training.cache` leaves it for the trainer."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from svi_core.files.fingerprint import fingerprint

from .store import CacheFolder

FORMAT_VERSION = 1


@dataclass(frozen=True)
class IndexedExample:
    """One example of the cache.

    Attributes:
        key: names its latents.
        text_key: names the embedding of its caption.
        name: clip, window and variant, for messages.
        caption: the clip's caption.
        clip: hash of the clip's bytes.
        width: pixels.
        height: pixels.
        error_slots: first slot that image errors may be added to, and the slot after the last.
    """

    key: str
    text_key: str
    name: str
    caption: str
    clip: str
    width: int
    height: int
    error_slots: tuple[int, int]


@dataclass(frozen=True)
class CacheIndex:
    """Examples, and what they were made with.

    Attributes:
        settings: the settings that cached values depend on.
        models: hash of each model file, by its role.
        examples: in the order of their clips.
    """

    settings: Mapping[str, object]
    models: Mapping[str, str]
    examples: tuple[IndexedExample, ...]


def write_index(cache: CacheFolder, index: CacheIndex) -> None:
    """Store `index` under the name that its settings give it."""
    cache.write_json(_name(index.settings), {"format": FORMAT_VERSION, **asdict(index)})


def read_index(cache: CacheFolder, settings: Mapping[str, object]) -> CacheIndex:
    """Return the index of the examples made with `settings`.

    Raises:
        ValueError: the folder holds none; the message says in what the one nearest to it differs.
    """
    stored = cache.read_json(_name(settings))
    if stored is None or stored.get("format") != FORMAT_VERSION:
        raise ValueError(
            f"{cache.folder} holds no finished cache of this configuration{_difference(cache, settings)}: "
            "run python -m training.cache with it first."
        )
    examples = tuple(IndexedExample(**{**entry, "error_slots": tuple(entry["error_slots"])}) for entry in stored["examples"])
    return CacheIndex(stored["settings"], stored["models"], examples)


def _name(settings: Mapping[str, object]) -> str:
    return f"index-{fingerprint(settings)[:16]}.json"


def _difference(cache: CacheFolder, settings: Mapping[str, object]) -> str:
    """Return in words how the most similar stored index differs from `settings`; nothing if there is none."""
    indexes = (cache.read_json(path.name) for path in sorted(cache.folder.glob("index-*.json")))
    found = []
    for stored in (index["settings"] for index in indexes if index and "settings" in index):
        keys = (key for key in sorted({*stored, *settings}) if stored.get(key) != settings.get(key))
        found.append([f"{key} {stored.get(key)!r}, not {settings.get(key)!r}" for key in keys])
    return f" (it holds one with {'; '.join(min(found, key=len))})" if found else ""


def indexed_keys(cache: CacheFolder) -> set[str]:
    """Return the keys of all entries that any index in the folder names."""
    indexes = (cache.read_json(path.name) or {} for path in cache.folder.glob("index-*.json"))
    return {entry[key] for index in indexes for entry in index.get("examples", ()) for key in ("key", "text_key")}
