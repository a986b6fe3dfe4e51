"""Read JSON that people, browsers or other programs wrote. Anything that would fail later, or be misread, is refused here."""

import json
import math
from pathlib import Path

from .text_file import MAX_TEXT_BYTES, read_bytes, require_unicode

MAX_DEPTH = 64  # levels of lists and objects; files of this pack have six
_MAX_DIGITS = 20  # of an integer: enough for 64 bits


def read_json(path: Path, max_bytes: int = MAX_TEXT_BYTES) -> object:
    """Return the value in the JSON file `path`.

    Raises:
        ValueError: see :func:`~svi_core.files.text_file.read_bytes` and :func:`parse_json`; the message begins with the path.
    """
    return parse_json(read_bytes(path, max_bytes=max_bytes), str(path))


def parse_json(data: bytes | str, name: str) -> object:
    """Return the value in the JSON text `data`, UTF-8 if bytes; `name` is what messages call it.

    Raises:
        ValueError: not JSON, or JSON with a number that is not finite or has over 20 digits, a key twice in an object, half a
            surrogate pair, or over 64 levels. The message begins with `name` and has no period.
    """
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
        value = json.loads(
            text, object_pairs_hook=_object, parse_int=_integer, parse_float=_number, parse_constant=_refuse_constant
        )
        _require_plain(value)
    except UnicodeDecodeError as error:
        byte = f"byte {error.object[error.start]:#04x} at {error.start}"
        raise ValueError(f"{name} is not JSON (not UTF-8: {byte}): save it as UTF-8") from error
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise ValueError(f"{name} is not JSON ({error.msg} at {place}): correct it there") from error
    except RecursionError as error:
        raise ValueError(f"{name} {_too_deep()}") from error
    except ValueError as error:
        raise ValueError(f"{name} {str(error).removesuffix('.')}") from error
    return value


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    value = dict(pairs)
    if len(value) < len(pairs):
        seen: set[str] = set()
        key = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"has the key {key[:80]!r} twice in one object: keep one")
    return value


def _integer(text: str) -> int:
    if (num_digits := len(text.lstrip("-"))) > _MAX_DIGITS:
        raise ValueError(f"has a number of {num_digits} digits ({text[:12]}...): write at most {_MAX_DIGITS}")
    return int(text)


def _number(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"has the number {text[:20]}, which is too large: write a smaller one")
    return value


def _refuse_constant(text: str) -> None:
    raise ValueError(f"has the value {text}, which is not JSON: write a number")


def _require_plain(value: object) -> None:
    """Go through `value` level by level, without recursion; raise ValueError for too many levels or a lone surrogate."""
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        for text in (item for item in level if isinstance(item, str)):
            require_unicode(text, f"holds the text {text[:20]!r}")
        objects = [part for item in level if isinstance(item, dict) for part in (*item.keys(), *item.values())]
        level = [*objects, *(part for item in level if isinstance(item, list) for part in item)]
    if level:
        raise ValueError(_too_deep())


def _too_deep() -> str:
    return f"is nested more than {MAX_DEPTH} levels deep: write it flatter"
