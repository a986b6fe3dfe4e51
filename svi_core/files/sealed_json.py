"""JSON objects that carry the checksum of their own content, so that damage is noticed.

Objects of earlier versions have no checksum. They are read as they are, and their readers check types.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .atomic_file import write_bytes
from .fingerprint import fingerprint
from .text_file import decode_text

_CHECKSUM = "checksum"


class NotAnObjectError(ValueError):
    """A file holds JSON of another kind, which no damage makes of an object."""


def sealed(facts: Mapping[str, object]) -> dict[str, object]:
    """Return `facts` with their checksum, for json.dumps."""
    return {**facts, _CHECKSUM: fingerprint(json.loads(json.dumps(facts)))}


def unsealed(data: bytes) -> dict[str, Any]:
    """Return the JSON object in `data`, a file or a line, without its checksum.

    Raises:
        ValueError: not JSON in UTF-8, or its checksum does not fit; the message begins with "it" or "a number in it".
        NotAnObjectError: a list, a number or the like.
    """
    text = decode_text(data, "it")
    try:
        facts = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error.msg} at line {error.lineno}, column {error.colno})") from error
    except (ValueError, RecursionError) as error:
        deep = isinstance(error, RecursionError)
        raise ValueError("it is nested too deeply" if deep else "a number in it has thousands of digits") from error
    if not isinstance(facts, dict):
        raise NotAnObjectError(f"it is a JSON {type(facts).__name__} instead of an object")
    names = [_CHECKSUM] if _CHECKSUM in facts else [name for name, value in facts.items() if _is_hash(value)]
    for name in names:
        others = {key: value for key, value in facts.items() if key != name}
        fits = facts[name] == fingerprint(others)
        if name == _CHECKSUM and fits:
            return others
        if name == _CHECKSUM or fits:  # a damaged content, or a damaged name of the checksum
            raise ValueError("its content does not fit its checksum")
    return facts


def write_sealed(path: Path, facts: Mapping[str, object]) -> None:
    """Write `facts` with their checksum to `path`, indented and atomically.

    Raises:
        OSError: the disk is full, for example; the message names the file.
    """
    write_bytes(path, json.dumps(sealed(facts), ensure_ascii=False, indent=1).encode())


def read_sealed(path: Path) -> dict[str, Any]:
    """Return the JSON object in the file `path` without its checksum.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged; see :func:`unsealed`.
    """
    return unsealed(path.read_bytes())


def _is_hash(value: object) -> bool:
    return isinstance(value, str) and len(value) == 64
