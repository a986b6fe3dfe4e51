"""A value of a table as the type that a node's input has."""

from __future__ import annotations

import difflib
import math

from batch.workflow.node_inputs import InputSpec, choices, options_of, type_of

_TRUE, _FALSE = ("true", "yes", "1", "on"), ("false", "no", "0", "off")


def typed_value(value: object, spec: InputSpec) -> object:
    """Return `value`, a text or typed, as the input `spec` wants it.

    Raises:
        ValueError: it cannot be that, is out of range, or is none of the choices.
    """
    kind = type_of(spec)
    if kind in ("INT", "FLOAT"):
        return _number(value, spec)
    if kind == "BOOLEAN":
        word = str(value).strip().lower()
        if word not in (*_TRUE, *_FALSE):
            raise ValueError(f"{value!r} is neither true nor false")
        return word in _TRUE
    offered = choices(spec)
    if offered is None:
        return value if isinstance(value, dict) else str(value)
    return _choice(value, offered)


def _number(value: object, spec: InputSpec) -> int | float:
    try:
        number = int(str(value)) if type_of(spec) == "INT" else float(str(value))
    except ValueError:
        raise ValueError(f"{str(value)[:40]!r} is no {'whole ' if type_of(spec) == 'INT' else ''}number") from None
    smallest, largest = options_of(spec).get("min", -math.inf), options_of(spec).get("max", math.inf)
    if isinstance(value, bool) or not smallest <= number <= largest:
        raise ValueError(f"{value} is not in {smallest} to {largest}")
    return number


def _choice(value: object, offered: list[object]) -> object:
    for choice in offered:
        if choice == value or str(choice) == str(value):
            return choice
    texts = [str(choice) for choice in offered]
    near = difflib.get_close_matches(str(value), texts, n=3, cutoff=0.3) or texts[:3]
    there = ", ".join(near) + (" and others" if len(texts) > len(near) else "") if texts else "none"
    raise ValueError(f"{str(value)!r} is not on the server: there is {there}")
