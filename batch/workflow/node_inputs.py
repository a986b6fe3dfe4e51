"""The inputs of a node as a server describes them (/object_info): which are widgets, their types, choices and defaults.

Source: https://docs.comfy.org/custom-nodes/backend/datatypes (types and options of inputs).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

ObjectInfo = Mapping[str, Mapping[str, Any]]
InputSpec = Sequence[Any]  # [type or choices, options]

DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
NO_DEFAULT = object()
_WIDGET_TYPES = {
    "INT",
    "FLOAT",
    "STRING",
    "BOOLEAN",
    "COMBO",
    "COLOR",
    "CURVE",
    "RANGE",
    "BOUNDING_BOX",
    "IMAGECOMPARE",
    DYNAMIC_COMBO,
}
_UPLOADS = ("image_upload", "audio_upload", "video_upload", "animated_image_upload")


def input_specs(definition: Mapping[str, Any]) -> Iterator[tuple[str, InputSpec]]:
    """Yield (name, spec) of a node's inputs in the order in which the front end makes its widgets."""
    for section in ("required", "optional"):
        specs = (definition.get("input") or {}).get(section) or {}
        named = (definition.get("input_order") or {}).get(section) or list(specs)
        yield from ((name, specs[name]) for name in named if name in specs)


def options_of(spec: InputSpec) -> Mapping[str, Any]:
    """Return the options of an input: default, min, max, ..."""
    return spec[1] if len(spec) > 1 and isinstance(spec[1], Mapping) else {}


def type_of(spec: InputSpec) -> str:
    """Return the type of an input; COMBO also for those written as a list of their choices."""
    return "COMBO" if isinstance(spec[0], list) else str(options_of(spec).get("widgetType") or spec[0])


def is_widget(spec: InputSpec) -> bool:
    """Whether the front end makes a widget for an input."""
    return type_of(spec) in _WIDGET_TYPES and not options_of(spec).get("forceInput")


def choices(spec: InputSpec) -> list[Any] | None:
    """Return what a combo offers; None for other types, and for those whose choices the server does not tell."""
    kind = type_of(spec)
    if kind == DYNAMIC_COMBO:
        return [option["key"] for option in options_of(spec).get("options") or []]
    if kind != "COMBO":
        return None
    found = spec[0] if isinstance(spec[0], list) else options_of(spec).get("options")
    return None if options_of(spec).get("remote") or found is None else list(found)


def takes_a_file(spec: InputSpec) -> bool:
    """Whether a combo names a file of the input folder, to which users upload."""
    return any(options_of(spec).get(upload) for upload in _UPLOADS)


def default_of(spec: InputSpec) -> Any:
    """Return the default of a widget, or NO_DEFAULT."""
    if "default" in options_of(spec):
        return options_of(spec)["default"]
    if options_of(spec).get("socketless"):
        return None  # a display: the server wants it named
    return next(iter(choices(spec) or []), NO_DEFAULT)


def chosen_specs(name: str, spec: InputSpec, value: object) -> Iterator[tuple[str, InputSpec]]:
    """Yield (full name, spec) of the inputs that the choice `value` of a dynamic combo brings, such as ``format.codec``."""
    if type_of(spec) == DYNAMIC_COMBO:
        for option in options_of(spec).get("options") or []:
            if option["key"] == value:
                yield from ((f"{name}.{part}", below) for part, below in input_specs({"input": option["inputs"]}))


def specs_in_use(definition: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, InputSpec]:
    """Return every input of a node with these values, with those that its dynamic combos bring."""
    found: dict[str, InputSpec] = {}
    waiting = list(input_specs(definition))
    while waiting:
        name, spec = waiting.pop(0)
        found[name] = spec
        waiting += chosen_specs(name, spec, values.get(name))
    return found
