"""Read the settings of a training run from TOML files and ``section.key=value`` on the command line, strictly checked.

    config = load_config([Path("training/configs/film.toml")], ["optimizer.learning_rate=5e-5"])

The preset's values (docs/METHOD.md, 9.8) come first, then each file in order, then the command line; later values win. An
unknown key or a value of the wrong type is an error that names it. `training.settings.sections` explains the settings.
"""

import difflib
import json
import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from enum import StrEnum
from pathlib import Path

from svi_core.flow.flow_matching import EXPERT_RANGES
from svi_core.recycling.presets import PRESETS, preset
from training.settings.checks import require
from training.settings.sections import TrainingConfig
from training.settings.toml_file import MAX_DEPTH, parse_value, read_toml


def load_config(paths: Path | Sequence[Path], overrides: Sequence[str] = ()) -> TrainingConfig:
    """Return the settings of the preset, TOML files and ``section.key=value`` overrides; later ones win.

    Raises:
        ValueError: a file is missing or not TOML, a preset or key is unknown (the message suggests the nearest), or a value has
            the wrong type or range.
    """
    given = merged_table({}, [paths] if isinstance(paths, str | Path) else paths, overrides)
    table = _preset_table(given["preset"]) if given.get("preset") else {}
    data = given.get("data")
    if table and isinstance(data, Mapping) and not str(data.get("layout", "2.0")).startswith("2.0"):
        table["data"]["first_frame_draws"] = 0  # of all systems only 2.0 and 2.0 Pro were trained so
    _merge(table, given)
    return config_from(table)


def merged_table(table: Mapping[str, object], paths: Sequence[Path], overrides: Sequence[str]) -> dict[str, object]:
    """Return `table` with the values of TOML files and ``section.key=value`` overrides merged in; later ones win.

    Raises:
        ValueError: a file cannot be read, or an override has no key or no value.
    """
    merged: dict[str, object] = {}
    for part in (table, *map(_read_toml, map(Path, paths)), *map(_parse_override, overrides)):
        _merge(merged, part)
    return merged


def config_from(table: Mapping[str, object]) -> TrainingConfig:
    """Return the settings in `table`, which is nested like the TOML files.

    Raises:
        ValueError: see :func:`load_config`.
    """
    return _build(TrainingConfig, table, "")


def config_table(config: TrainingConfig) -> dict[str, object]:
    """Return `config` as plain JSON values; :func:`config_from` reads them back."""
    return json.loads(json.dumps(asdict(config)))


def config_differences(first: TrainingConfig, second: TrainingConfig) -> list[str]:
    """Return a line ``section.key: old -> new`` for each setting that differs."""
    old, new = (_flat(config_table(config)) for config in (first, second))
    keys = sorted(old.keys() | new.keys())
    return [f"{key}: {old.get(key)!r} -> {new.get(key)!r}" for key in keys if old.get(key) != new.get(key)]


def _preset_table(name: object) -> dict[str, object]:
    """Return the settings of the preset called `name` as a table."""
    if not isinstance(name, str) or name not in PRESETS:
        raise ValueError(f"preset is {repr(name)[:80]}: use one of {', '.join(map(repr, PRESETS))}, or none.")
    chosen = preset(name)
    expert = next(key for key, ids in EXPERT_RANGES.items() if ids == chosen.expert)
    return {
        "model": {"expert": expert},
        "lora": {"rank": chosen.lora_rank, "alpha": chosen.lora_alpha, "targets": list(chosen.lora_targets)},
        "data": {
            "layout": chosen.layout_name,
            "p_motion": chosen.p_motion,
            "width": chosen.width,
            "height": chosen.height,
            "frame_rate": round(chosen.layout.frame_rate),
            "default_caption": chosen.default_caption,
            "vae_tile": chosen.vae_tile,
            "first_frame_draws": chosen.first_frame_draws,
        },
        "drops": {
            "image": chosen.conditioning_drop_prob,
            "pose": chosen.pose_drop_prob,
            "sound": chosen.audio_drop_prob,
        },
        "recycling": asdict(chosen.recycling),
        "optimizer": {
            "learning_rate": chosen.learning_rate,
            "weight_decay": chosen.weight_decay,
            "max_gradient_norm": chosen.max_gradient_norm,
        },
        "loop": {"epochs": chosen.num_epochs, "checkpoint_every": chosen.checkpoint_every},
    }


def _read_toml(path: Path) -> dict[str, object]:
    try:
        return read_toml(path)
    except OSError as error:
        shipped = ", ".join(sorted(config.stem for config in (Path(__file__).parents[1] / "configs").glob("*.toml")))
        raise ValueError(f"config {path} cannot be read ({error.strerror}): training/configs holds {shipped}.") from error


def _parse_override(text: str) -> dict[str, object]:
    """Return the table for ``section.key=value``. A value that is not TOML is taken as a string."""
    key, equals, value = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not equals or not all(parts):
        raise ValueError(f"{text[:80]!r} is not a setting: write section.key=value, such as optimizer.learning_rate=5e-5.")
    try:
        parsed = parse_value(value, parts[-1])
    except ValueError as error:
        raise ValueError(f"{key[:80]}: {error}") from error
    if len(parts) > MAX_DEPTH:
        raise ValueError(f"{text[:80]!r} is not a setting: write section.key=value.")
    for part in reversed(parts):
        parsed = {part: parsed}
    return parsed


def _merge(into: dict[str, object], table: Mapping[str, object]) -> None:
    """Overwrite values of `into` with those of `table`, key by key in nested tables."""
    for key, value in table.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _build(kind: type, table: object, where: str):
    """Return the dataclass `kind` with the values of `table`; `where` is the section's name, for messages."""
    if not isinstance(table, Mapping):
        raise ValueError(f"{where} is {repr(table)[:80]}, but it is a section: write settings below [{where}].")
    kinds = typing.get_type_hints(kind)
    names = [item.name for item in fields(kind)]
    values = {}
    for key, value in table.items():
        place = f"{where}.{key}" if where else key
        if key not in names:
            raise ValueError(f"unknown setting {place[:80]!r}{_nearest(place, key, names)}")
        values[key] = _convert(value, kinds[key], place)
    try:
        return kind(**values)
    except ValueError as error:
        text = str(error)
        text = text if len(text) <= 500 else f"{text[:250]}...{text[-250:]}"  # it may quote a value of any length
        raise ValueError(f"[{where}] {text}" if where and where not in text else text) from error


def _nearest(place: str, key: str, names: Sequence[str]) -> str:
    """Return the end of an error message that suggests a similar name, the same name in another section, or all names."""
    prefix = place.removesuffix(key)
    if close := difflib.get_close_matches(key, names, n=1, cutoff=0.6):
        return f": did you mean {prefix}{close[0]}?"
    elsewhere = [f"{section.name}.{key}" for section in fields(TrainingConfig) if key in _names_in(section.name)]
    if elsewhere:
        return f": did you mean {elsewhere[0]}?"
    return f": known here are {', '.join(names)}."


def _names_in(section: str) -> list[str]:
    kind = typing.get_type_hints(TrainingConfig)[section]
    return [item.name for item in fields(kind)] if is_dataclass(kind) else []


def _convert(value: object, kind: object, place: str):
    """Return `value` converted to `kind`: a dataclass, an enum, bool, int, float, str, a tuple of these, or any table."""
    origin = typing.get_origin(kind)
    if is_dataclass(kind):
        return _build(kind, value, place)
    if origin is tuple:
        return _convert_tuple(value, typing.get_args(kind), place)
    if origin is not None and issubclass(origin, Mapping):
        require(isinstance(value, Mapping), place, value, "a table such as { betas = [0.9, 0.99] }")
        return dict(value)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        known = [choice.value for choice in kind]
        require(value in known, place, value, f"one of {', '.join(map(repr, known))}")
        return kind(value)
    return _convert_plain(value, kind, place)


def _convert_plain(value: object, kind: object, place: str):
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text in quotes"}
    require(type(value) is kind, place, value, names[kind])
    if kind is float:
        require(math.isfinite(value), place, value, "a finite number")
    return value


def _convert_tuple(value: object, kinds: tuple, place: str) -> tuple:
    require(isinstance(value, list | tuple), place, value, "a list in square brackets")
    if kinds[-1] is Ellipsis:
        return tuple(_convert(item, kinds[0], place) for item in value)
    require(len(value) == len(kinds), place, value, f"a list of {len(kinds)} values")
    return tuple(_convert(item, kind, place) for item, kind in zip(value, kinds, strict=True))


def _flat(table: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return flat
