"""Patterns in the names of run folders, as in ComfyUI's Save Image: ``%date:yyyy-MM-dd%``, ``%year%``, ``%Node.widget%``.

Source: https://github.com/Comfy-Org/ComfyUI/pull/321 (dates, widgets); ComfyUI's folder_paths.py (the others).
"""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

_PATTERN = re.compile(r"%([^%]+)%")
_WORDS = {"year": "yyyy", "month": "MM", "day": "dd", "hour": "hh", "minute": "mm", "second": "ss"}
_FIELDS = {"M": 1, "d": 2, "h": 3, "m": 4, "s": 5}  # of a struct_time
_DATE = re.compile(r"dd?|MM?|hh?|mm?|ss?|yyyy|yy")
_NOT_IN_NAMES = re.compile(r'[/?<>\\:*|"\x00-\x1f\x7f]')


def with_values(prefix: str, value_of: Callable[[str], object]) -> str:
    """Return `prefix` with the values of ``%width%``, ``%height%`` and ``%Node.widget%``, in characters that names may have.

    A date over several folders becomes a date in each: ``%date:yyyy/MM%`` becomes ``%date:yyyy%/%date:MM%``.

    Args:
        value_of: "width", "height" or "Node.widget" -> value; may raise ValueError.

    Raises:
        ValueError: ``%date%`` without a format.
    """
    if "%date%" in prefix:
        raise ValueError(f"filename_prefix is {prefix!r}: write %date:yyyy-MM-dd% in place of %date%.")

    def replaced(match: re.Match[str]) -> str:
        if match[1].startswith("date:"):
            return match[0].replace("/", "%/%date:")
        is_value = match[1] in ("width", "height") or re.fullmatch(r"[^.:]+\.[^.:]+", match[1])
        return _NOT_IN_NAMES.sub("_", _as_in_a_browser(value_of(match[1]))) if is_value else match[0]

    return _PATTERN.sub(replaced, prefix)


def names_time(prefix: str) -> bool:
    """Whether `prefix` names the time, so that it means another folder tomorrow."""
    return any(_time_format(match[1]) is not None for match in _PATTERN.finditer(prefix))


def at_time(prefix: str, moment: time.struct_time) -> str:
    """Return `prefix` with the time `moment` in place of its patterns."""

    def replaced(match: re.Match[str]) -> str:
        time_format = _time_format(match[1])
        return match[0] if time_format is None else _DATE.sub(lambda letters: _part_at(letters[0], moment), time_format)

    return _PATTERN.sub(replaced, prefix)


def folders_at_any_time(root: Path, prefix: str) -> Iterator[Path]:
    """Yield the folders below `root` that `prefix`, without further patterns, has meant at some time."""
    found = [root]
    for part in prefix.split("/"):
        if not names_time(part):
            found = [folder / part for folder in found]
            continue
        known = re.compile(_time_expression(part))
        names = ((folder, entry.name) for folder in found if folder.is_dir() for entry in folder.iterdir())
        found = [folder / name for folder, name in names if known.fullmatch(name)]
    yield from (folder for folder in found if folder.is_dir())


def _time_expression(text: str) -> str:
    """Return a regular expression for what `text` is at any time."""
    pieces, end = [], 0
    for match in _PATTERN.finditer(text):
        time_format = _time_format(match[1])
        if time_format is not None:
            written = _DATE.sub(lambda letters: f"\0{letters[0]}\0", time_format).split("\0")
            pieces += [re.escape(text[end : match.start()]), *map(_digits, written)]
            end = match.end()
    return "".join([*pieces, re.escape(text[end:])])


def _digits(letters: str) -> str:
    if not _DATE.fullmatch(letters):
        return re.escape(letters)
    return rf"\d{{{len(letters)}}}" if len(letters) > 1 else r"\d{1,2}"


def _time_format(pattern: str) -> str | None:
    """Return the letters that a pattern stands for, "yyyy" for "year" for instance; None if it does not name the time."""
    return pattern.removeprefix("date:") if pattern.startswith("date:") else _WORDS.get(pattern)


def _part_at(letters: str, moment: time.struct_time) -> str:
    """Return one part of the time: "2026" for "yyyy", "03" for "MM", "3" for "M"."""
    if letters[0] == "y":
        return str(moment.tm_year)[-len(letters) :]
    return str(moment[_FIELDS[letters[0]]]).zfill(len(letters))


def _as_in_a_browser(value: object) -> str:
    """Return `value` as JavaScript writes it: 1, not 1.0, and true."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
