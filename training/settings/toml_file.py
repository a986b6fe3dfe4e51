"""Read TOML, and show how to write a Windows path: in double quotes a backslash begins an escape.

Source: https://toml.io/en/v1.0.0#string (basic and literal strings).
"""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from svi_core.files.text_file import decode_text

MAX_DEPTH = 16  # levels of tables and lists; settings have four
_QUOTED = re.compile(r'"([^"\\\n]*\\[^"\n]*)"')
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_MAY_HAVE_LINES = {"default_caption", "prompts", "negative"}


def read_toml(path: Path) -> dict[str, object]:
    """Return the table in a TOML file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not TOML, or a path in double quotes has become something else; the message shows the line to write.
    """
    data, text = path.read_bytes(), ""  # also of a pipe: --config <(command)
    try:
        text = decode_text(data, "it").replace("\r\n", "\n")
        table = _parse(text)
    except ValueError as error:
        place = re.search(r"\(at line (\d+), column \d+\)", str(error))
        raise ValueError(f"config {path} is not TOML: {error}.{_fix(text, int(place[1])) if place else ''}") from error
    if changed := list(_changed_strings(table)):
        numbers = {value: n for n, line in enumerate(text.split("\n"), 1) for value in _strings_of(line)}
        if value := next((value for value in changed if value in numbers), None):
            number = numbers[value]
            raise ValueError(f"config {path}, line {number}: {value!r} holds control characters.{_fix(text, number)}")
    return table


def parse_value(text: str, key: str) -> object:
    """Return the value in `text` for the setting `key` of a section; `text` itself if it is not TOML.

    Raises:
        ValueError: a text in quotes that is not what it seems.
    """
    try:
        value = _parse(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError as error:
        if text.strip()[:1] in ("'", '"'):
            raise ValueError(f"{text.strip()} is not TOML: {error}.{_fix(text, 1)}") from error
        return text.strip()
    if _QUOTED.search(text) and (changed := next(_changed_strings({key: value}), None)):
        raise ValueError(f"{changed!r} holds control characters.{_fix(text, 1)}")
    return value


def _parse(text: str) -> dict[str, object]:
    """Return the table in `text`.

    Raises:
        ValueError: not TOML (tomllib.TOMLDecodeError), over 16 levels, or a whole number of over 64 bits, which TOML lacks.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        raise
    except (RecursionError, ValueError) as error:
        deep = isinstance(error, RecursionError)
        raise ValueError("it is nested too deeply" if deep else "a number in it has thousands of digits") from error
    level: list[object] = [table]
    for _ in range(MAX_DEPTH):
        if any(isinstance(item, int) and item.bit_length() > 63 for item in level):
            raise ValueError("a whole number in it has over 64 bits")
        lists = [part for item in level if isinstance(item, list) for part in item]
        level = lists + [part for item in level if isinstance(item, dict) for part in item.values()]
    if level:
        raise ValueError(f"it is nested more than {MAX_DEPTH} levels deep")
    return table


def _fix(text: str, number: int) -> str:
    """Return the sentence that shows line `number` with its paths in single quotes; "" if no backslash is in double quotes."""
    line = text.split("\n")[number - 1].strip()
    fixed = _QUOTED.sub(lambda match: _literal(match[1]), line)
    return "" if fixed == line else f" In double quotes a backslash begins an escape: write {fixed}"


def _literal(path: str) -> str:
    """Return `path` as a TOML string that keeps its backslashes, or with slashes where single quotes cannot hold it."""
    path = path.replace("\\\\", "\\") if re.match(r"[A-Za-z]:\\\\", path) else path
    return f'"{path.replace(chr(92), "/")}"' if "'" in path else f"'{path}'"


def _changed_strings(table: dict[str, object]) -> Iterator[str]:
    """Yield the strings that hold control characters, except those that may have several lines."""
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _changed_strings(value)
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, str) and key not in _MAY_HAVE_LINES and _CONTROL.search(item):
                yield item


def _strings_of(line: str) -> set[str]:
    """Return the values of the strings with a backslash in double quotes on a line."""
    found = set()
    for match in _QUOTED.finditer(line):
        try:
            found.add(tomllib.loads(f"value = {match[0]}")["value"])
        except tomllib.TOMLDecodeError:
            continue
    return found
