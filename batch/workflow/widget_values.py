"""The values of a node's widgets, which a saved workflow holds as a list without names.

The list follows the widgets of the front end: inputs in the server's order, behind some seeds what happens to them after a
run, behind a choice the widgets that it brings.
Source: https://docs.comfy.org/specs/workflow_json; the front end's litegraph service and useIntWidget (read, not copied).
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping
from random import Random
from typing import Any

from batch.workflow.node_inputs import (
    NO_DEFAULT,
    InputSpec,
    chosen_specs,
    default_of,
    input_specs,
    is_widget,
    options_of,
    type_of,
)

_CONTROLS = ("fixed", "increment", "decrement", "randomize")
_COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)
_INNERMOST_BRACES = re.compile(r"(?<!\\)\{([^{}]*)(?<!\\)\}")


def widget_values(definition: Mapping[str, Any], node: Mapping[str, Any]) -> dict[str, Any]:
    """Return name -> value of the widgets of a saved `node`, as the front end sends them.

    Raises:
        ValueError: the node has values of which the server's definition knows nothing.
    """
    saved = node.get("widgets_values") or []
    if isinstance(saved, Mapping):
        return {name: _wrapped(value) for name, value in saved.items() if name != "videopreview"}
    marked = {entry["widget"]["name"] for entry in node.get("inputs") or [] if entry.get("widget")}
    values = deque(saved)
    named = dict(_named(input_specs(definition), values, marked))
    if not definition.get("output_node"):  # what these show is saved too
        _refuse_unknown(values)
    return named


def _refuse_unknown(values: Iterable[Any]) -> None:
    """Refuse values of widgets that a pack's own page script makes, as in lists of LoRAs; others too many mean nothing."""
    for value in values:
        is_button = isinstance(value, Mapping) and value.get("type") == "button"
        if isinstance(value, (Mapping, list)) and value and not is_button:
            raise ValueError(
                f"its value {str(value)[:80]} belongs to no widget that the server knows of: save the workflow in ComfyUI with "
                "Export (API) and use that file"
            )


def _named(specs: Iterable[tuple[str, InputSpec]], values: deque[Any], marked: Collection[str]) -> Iterator[tuple[str, Any]]:
    for name, spec in specs:
        if not is_widget(spec) and name not in marked:
            continue
        value = values.popleft() if values else default_of(spec)
        if value is NO_DEFAULT:
            continue
        if options_of(spec).get("dynamicPrompts") and isinstance(value, str):
            value = one_variant(value)
        yield name, _wrapped(value)
        yield from _named(chosen_specs(name, spec, value), values, marked)
        if values and values[0] in _CONTROLS and _has_control(name, spec):
            values.popleft()


def _has_control(name: str, spec: InputSpec) -> bool:
    told = options_of(spec).get("control_after_generate")
    return type_of(spec) == "INT" and name in ("seed", "noise_seed") if told is None else bool(told)


def one_variant(text: str) -> str:
    """Return `text` with one choice for each ``{a|b}``, without its comments; always the same choices for the same text."""
    text = _COMMENT.sub("", text)
    chance = Random(text)
    while (found := _INNERMOST_BRACES.search(text)) is not None:
        text = text[: found.start()] + chance.choice(found[1].split("|")) + text[found.end() :]
    return re.sub(r"\\([{}|])", r"\1", text)


def _wrapped(value: Any) -> Any:
    """Return a value that no server takes for a link."""
    return {"__value__": value} if isinstance(value, list) else value
