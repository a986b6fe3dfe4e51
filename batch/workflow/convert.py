"""A user's workflow in the form that a server takes: API format, without subgraphs and all that only the front end knows."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batch.workflow.node_inputs import NO_DEFAULT, ObjectInfo, default_of, input_specs, is_widget
from batch.workflow.scopes import Output, Removed, Scope, Value, is_active
from batch.workflow.widget_values import widget_values
from svi_core.files.strict_json import read_json

Graph = dict[str, dict[str, Any]]  # node id -> {"class_type", "inputs", "_meta": {"title"}}
Target = tuple[str, str]  # node id and input


@dataclass(frozen=True)
class Workflow:
    """A graph in API format.

    Attributes:
        panels: id of a subgraph node -> its title, and its widgets by name with the inputs that they set.
    """

    graph: Graph
    panels: Mapping[str, tuple[str, Mapping[str, list[Target]]]] = field(default_factory=dict)


def read_workflow(path: Path) -> dict[str, Any]:
    """Return the content of a workflow file, in either format.

    Raises:
        ValueError: no workflow is in the file; the message begins with its path.
    """
    content = read_json(path)
    if not (_is_saved(content) or _is_api(content)):
        raise ValueError(f"{path} is no workflow of ComfyUI: save one with Export or Export (API)")
    assert isinstance(content, dict)
    return content


def _is_saved(content: object) -> bool:
    return (
        isinstance(content, dict)
        and isinstance(content.get("links"), list)
        and isinstance(content.get("nodes"), list)
        and all(isinstance(node, dict) and "id" in node and isinstance(node.get("type"), str) for node in content["nodes"])
    )


def _is_api(content: object) -> bool:
    return (
        isinstance(content, dict)
        and bool(content)
        and all(isinstance(node, dict) and _is_api_node(node) for node in content.values())
    )


def _is_api_node(node: Mapping[str, Any]) -> bool:
    return isinstance(node.get("class_type"), str) and isinstance(node.get("inputs"), dict)


def to_api(content: Mapping[str, Any], object_info: ObjectInfo) -> Workflow:
    """Return a workflow of either format in API format, for a server with these nodes.

    Raises:
        ValueError: the server lacks a node, or the workflow holds what cannot be converted; the message names the node.
    """
    if _is_api(content):
        return Workflow(copy.deepcopy(dict(content)))
    definitions = (content.get("definitions") or {}).get("subgraphs") or []
    root = Scope(content, {definition["id"]: definition for definition in definitions})
    graph: Graph = {}
    for scope, node in root.running():
        graph[f"{scope.prefix}{node['id']}"] = _converted(scope, node, object_info)
    for node in graph.values():
        node["inputs"] = {name: value for name, value in node["inputs"].items() if not _is_dangling(value, graph)}
    return Workflow(graph, dict(_panels(root)))


def _converted(scope: Scope, node: Mapping[str, Any], object_info: ObjectInfo) -> dict[str, Any]:
    definition = object_info.get(node["type"])
    named = f"node {scope.prefix}{node['id']} ({node.get('title') or node['type']})"
    if definition is None:
        if str(node["type"]).startswith(("workflow>", "workflow/")):
            raise ValueError(f"{named} is a group node of an old ComfyUI: convert it to a subgraph, or save with Export (API)")
        raise ValueError(f"{named} has the type {node['type']!r}, which the server does not know: install its pack there")
    try:
        inputs = widget_values(definition, node)
    except ValueError as error:
        raise ValueError(f"{named}: {error}") from error
    for slot in node.get("inputs") or []:
        source = scope.source(slot)
        if isinstance(source, Output):
            inputs[slot["name"]] = [source.node_id, source.slot]
        elif isinstance(source, Removed):
            inputs.pop(slot["name"], None)
        elif isinstance(source, Value) and slot.get("widget"):
            inputs[slot["name"]] = {"__value__": source.value} if isinstance(source.value, list) else source.value
    for name, spec in input_specs(definition):  # inputs that the workflow, made for an older node, does not name
        if is_widget(spec) and name not in inputs and name not in {slot["name"] for slot in node.get("inputs") or []}:
            default = default_of(spec)
            if default is not NO_DEFAULT:
                inputs[name] = default
    title = node.get("title") or definition.get("display_name") or node["type"]
    return {"inputs": inputs, "class_type": node["type"], "_meta": {"title": title}}


def _is_dangling(value: object, graph: Graph) -> bool:
    """Whether a value is a link to a node that does not run."""
    return isinstance(value, list) and len(value) == 2 and value[0] not in graph


def _panels(scope: Scope) -> Iterator[tuple[str, tuple[str, dict[str, list[Target]]]]]:
    """Yield the id of each subgraph node, with its title and widgets."""
    for node in scope.graph["nodes"]:
        if node["type"] not in scope.subgraphs or not is_active(node):
            continue
        inner = scope.inside(node)
        widgets = {inner.graph["inputs"][index]["name"]: list(_innermost(inner, index)) for index in inner.widgets}
        for index in inner.widgets:  # what the user sees, if that is another name
            widgets.setdefault(inner.graph["inputs"][index].get("label") or "", list(_innermost(inner, index)))
        widgets.pop("", None)
        for entry in (node.get("properties") or {}).get("proxyWidgets") or []:
            if str(entry[0]) in inner.nodes:
                widgets.setdefault(str(entry[1]), [(f"{inner.prefix}{entry[0]}", str(entry[1]))])
        title = node.get("title") or inner.graph.get("name") or ""
        yield f"{scope.prefix}{node['id']}", (title, widgets)
        yield from _panels(inner)


def _innermost(scope: Scope, index: int) -> Iterator[Target]:
    """Yield the inputs of nodes that the widget of the input `index` of a subgraph sets, through all subgraphs inside it."""
    for node, name in scope.targets(index):
        if node["type"] not in scope.subgraphs:
            yield f"{scope.prefix}{node['id']}", name
            continue
        inner = scope.inside(node)
        names = [entry["name"] for entry in inner.graph["inputs"]]
        if name in names:
            yield from _innermost(inner, names.index(name))
