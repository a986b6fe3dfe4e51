"""The links of a saved workflow, followed through subgraphs, reroutes, primitives, bypassed and muted nodes.

Source: https://docs.comfy.org/specs/workflow_json; the front end's ExecutableNodeDTO (read, not copied).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

Node = Mapping[str, Any]
VIRTUAL = ("Note", "MarkdownNote", "PrimitiveNode", "Reroute", "GetNode", "SetNode")  # in the front end only
_MUTED, _BYPASSED = 2, 4
_INPUTS, _OUTPUTS = -10, -20  # the two ends of a subgraph, as ids of nodes
_LONGEST_PATH = 200  # links from a node to its source; more are a circle


@dataclass(frozen=True)
class Output:
    """An output of a node that runs."""

    node_id: str
    slot: int


@dataclass(frozen=True)
class Value:
    """What a primitive node, or a widget of a subgraph, gives."""

    value: Any


class Removed:
    """An output of a muted node: the input that it is linked to is not sent."""


Source = Output | Value | Removed | None  # None: nothing is linked, so a widget keeps its value


def is_active(node: Node) -> bool:
    """Whether a node is neither muted nor bypassed."""
    return node.get("mode", 0) not in (_MUTED, _BYPASSED)


def same_type(one: object, other: object) -> bool:
    """Whether two slots of these types may be linked."""
    if one in (0, "", "*") or other in (0, "", "*"):
        return True
    return not {part.strip().lower() for part in str(one).split(",")}.isdisjoint(
        part.strip().lower() for part in str(other).split(",")
    )


@dataclass(frozen=True)
class Scope:
    """A graph: the workflow's own, or that of one subgraph node in it.

    Attributes:
        graph: its nodes and links, with inputs and outputs if it is a subgraph.
        subgraphs: id -> definition of every subgraph of the workflow.
        parent: the graph that holds the subgraph node `instance`.
    """

    graph: Mapping[str, Any]
    subgraphs: Mapping[str, Mapping[str, Any]]
    parent: Scope | None = None
    instance: Node | None = None

    @cached_property
    def prefix(self) -> str:
        """What the ids of the nodes begin with, such as "12:"."""
        return "" if self.parent is None or self.instance is None else f"{self.parent.prefix}{self.instance['id']}:"

    @cached_property
    def nodes(self) -> dict[str, Node]:
        """The nodes by their ids in this graph."""
        return {str(node["id"]): node for node in self.graph["nodes"]}

    @cached_property
    def origins(self) -> dict[Any, tuple[Any, int]]:
        """Id of a link -> where it comes from: node and slot."""
        links = (_link(link) for link in self.graph["links"])
        return {link["id"]: (link["origin_id"], link["origin_slot"]) for link in links}

    def inside(self, node: Node) -> Scope:
        """Return the graph of a subgraph node."""
        definition = self.subgraphs[node["type"]]
        if any(above.graph is definition for above in self.path()):
            raise ValueError(f"the subgraph {definition.get('name', '')!r} holds itself")
        return Scope(definition, self.subgraphs, self, node)

    def path(self) -> Iterator[Scope]:
        """Yield this graph and those that hold it."""
        scope: Scope | None = self
        while scope is not None:
            yield scope
            scope = scope.parent

    def running(self) -> Iterator[tuple[Scope, Node]]:
        """Yield every node that runs, with the graph that it is in."""
        for node in self.graph["nodes"]:
            if is_active(node) and node["type"] in self.subgraphs:
                yield from self.inside(node).running()
            elif is_active(node) and node["type"] not in VIRTUAL:
                yield self, node

    def source(self, slot: Mapping[str, Any], steps: int = 0) -> Source:
        """Return what the input `slot` of a node in this graph is linked to."""
        if slot.get("link") is None or slot["link"] not in self.origins:
            return None
        node_id, output = self.origins[slot["link"]]
        if node_id == _INPUTS:
            return self._source_outside(output, steps)
        if str(node_id) not in self.nodes:
            return None
        return self._output(self.nodes[str(node_id)], output, slot.get("type", "*"), steps + 1)

    def _source_outside(self, index: int, steps: int) -> Source:
        """Return what the input `index` of this subgraph is linked to, or the value of its widget on the subgraph node."""
        assert self.parent is not None and self.instance is not None, "only subgraphs have this link"
        name = self.graph["inputs"][index]["name"]
        outer = next((slot for slot in self.instance.get("inputs") or [] if slot["name"] == name), {})
        found = self.parent.source(outer, steps + 1)
        return self._widget_value(index) if found is None else found

    def _widget_value(self, index: int) -> Value | None:
        assert self.instance is not None
        values = self.instance.get("widgets_values")
        if not isinstance(values, Sequence) or index not in self.widgets:
            return None
        if order := (self.instance.get("properties") or {}).get("proxyWidgets"):  # as front ends before 1.47 saved them
            own = {
                ("-1", self.graph["inputs"][index]["name"]),
                *((str(node["id"]), name) for node, name in self.targets(index)),
            }
            places = [place for place, entry in enumerate(order) if (str(entry[0]), entry[1]) in own]
        else:
            places = [self.widgets.index(index)]
        return next((Value(values[place]) for place in places if place < len(values)), None)

    @cached_property
    def widgets(self) -> list[int]:
        """The inputs of this subgraph that are widgets on its node, in their order there."""
        return [index for index in range(len(self.graph.get("inputs") or [])) if self.targets(index)]

    def targets(self, index: int) -> list[tuple[Node, str]]:
        """Return the nodes, and their widgets' names, that the input `index` of this subgraph leads to directly."""
        found = []
        for node in self.graph["nodes"]:
            for slot in node.get("inputs") or []:
                if slot.get("link") is not None and self.origins.get(slot["link"]) == (_INPUTS, index):
                    name = (slot.get("widget") or {}).get("name")
                    if name is None and node["type"] in self.subgraphs and self._is_widget_inside(node, slot["name"]):
                        name = slot["name"]
                    if name is not None:
                        found.append((node, name))
        return found

    def _is_widget_inside(self, node: Node, name: str) -> bool:
        inner = self.inside(node)
        return any(inner.graph["inputs"][index]["name"] == name for index in inner.widgets)

    def _output(self, node: Node, slot: int, kind: object, steps: int) -> Source:
        """Return what the output `slot` of a node in this graph gives to an input of type `kind`."""
        if steps > _LONGEST_PATH:
            raise ValueError(f"the links of node {self.prefix}{node['id']} ({node['type']}) lead in a circle")
        if node.get("mode", 0) == _MUTED:
            return Removed()
        if node.get("mode", 0) == _BYPASSED:
            return self._through_bypassed(node, slot, kind, steps)
        if node["type"] in self.subgraphs:
            inner = self.inside(node)
            ends = (_link(link) for link in inner.graph["links"])
            found = next((end for end in ends if end["target_id"] == _OUTPUTS and end["target_slot"] == slot), None)
            return None if found is None else inner.source({"link": found["id"], "type": kind}, steps)
        if node["type"] == "PrimitiveNode":
            return Value((node.get("widgets_values") or [None])[0])
        if node["type"] == "Reroute":
            return self.source((node.get("inputs") or [{}])[0], steps)
        if node["type"] in ("GetNode", "SetNode"):
            return self._stored(node, steps)
        return Output(f"{self.prefix}{node['id']}", slot)

    def _stored(self, node: Node, steps: int) -> Source:
        """Return what a Get node of KJNodes gives: the input of the Set node of the same name, here or in a graph around."""
        name = (node.get("widgets_values") or [None])[0]
        for scope in self.path():
            for other in scope.graph["nodes"]:
                if other["type"] == "SetNode" and (other.get("widgets_values") or [None])[0] == name:
                    return scope.source((other.get("inputs") or [{}])[0], steps)
        return None

    def _through_bypassed(self, node: Node, slot: int, kind: object, steps: int) -> Source:
        """Return what enters a bypassed node where its output `slot` would leave: the same slot, else the first of its type."""
        inputs = node.get("inputs") or []
        outputs = node.get("outputs") or []
        own = outputs[slot].get("type", "*") if slot < len(outputs) else "*"
        fitting = [entry for entry in inputs if same_type(entry.get("type"), own) and same_type(entry.get("type"), kind)]
        if slot < len(inputs) and (kind in ("*", "") or inputs[slot] in fitting):
            return self.source(inputs[slot], steps)
        exact = [entry for entry in inputs if entry.get("type") == kind]
        found = next(iter([*exact, *fitting]), None)
        return None if found is None else self.source(found, steps)


def _link(link: Any) -> Mapping[str, Any]:
    """Return a link of a saved workflow, which is a list in older files."""
    if isinstance(link, Mapping):
        return link
    names = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
    return dict(zip(names, link, strict=False))
