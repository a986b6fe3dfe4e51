"""The inputs of node types, as ComfyUI's ``/object_info`` defines them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

GROWING_TYPE = "COMFY_AUTOGROW_V3"
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COMFY_DYNAMICCOMBO_V3")


@dataclass(frozen=True)
class Input:
    """One input of a node type, as ``/object_info`` defines it."""

    name: str
    type: str
    options: Mapping[str, Any]
    is_optional: bool
    label: str = ""  # what the page shows in place of the name

    @property
    def is_widget(self) -> bool:
        """Whether the value can be typed in; otherwise the input is a socket."""
        return self.type in WIDGET_TYPES and not self.options.get("forceInput")

    @property
    def is_text(self) -> bool:
        """Whether it is a multi-line text."""
        return bool(self.options.get("multiline"))

    def companion_values(self) -> list[str]:
        """Return the values of the widgets that the front end adds behind this one: a seed's control, an upload button."""
        if self.options.get("control_after_generate"):
            return ["fixed"]
        return ["image"] if self.options.get("image_upload") else []


def read_inputs(definition: Mapping[str, Any], given: Iterable[str] = ()) -> Iterator[Input]:
    """Yield the inputs of a node type in the order of its definition, required ones first.

    An input that grows with its use ("images") becomes one input for each of its `given` names ("images.image0") and a
    free one behind them.
    """
    for kind in ("required", "optional"):
        for name, (input_type, *options) in definition["input"].get(kind, {}).items():
            if input_type == GROWING_TYPE:
                ((_, (grown_type, _)),) = options[0]["template"]["input"]["required"].items()
                grown = [key for key in given if key.startswith(f"{name}.")]
                yield from (Input(key, grown_type, {}, False, key.rpartition(".")[2]) for key in grown)
                free = f"{options[0]['template']['prefix']}{len(grown)}"
                yield Input(f"{name}.{free}", grown_type, {}, True, free)
                continue
            known_type = "COMBO" if isinstance(input_type, list) else input_type
            yield Input(name, known_type, options[0] if options else {}, kind == "optional")


def check_values(node_type: str, inputs: Sequence[Input], values: Mapping[str, Any], links: Mapping[str, Any]) -> None:
    """Raise ValueError unless every widget has a value, every required socket a link, and nothing else is given."""
    known = {slot.name: slot for slot in inputs}
    unknown = (values.keys() | links.keys()) - known.keys()
    unset = [slot.name for slot in inputs if slot.is_widget and slot.name not in values.keys() | links.keys()]
    open_sockets = [s.name for s in inputs if not s.is_widget and not s.is_optional and s.name not in links]
    if unknown or unset or open_sockets:
        raise ValueError(f"{node_type}: unknown {sorted(unknown)}, without value {unset}, not linked {open_sockets}")
