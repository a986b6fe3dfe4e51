"""The nodes of a graph: their values and links, the room they need, and their form in a workflow file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dev.workflows.node_inputs import Input

SLOT_HEIGHT = 20
WIDGET_HEIGHT = 24
NODE_PADDING = 16
TEXT_HEIGHT = 110  # of a multi-line text, unless the description says otherwise
NOTE_TYPE = "MarkdownNote"
NOTE_COLOURS = {"color": "#222", "bgcolor": "#000"}


@dataclass(frozen=True)
class Socket:
    """One output of a node."""

    node: Node
    index: int


@dataclass(eq=False)
class Node:
    """One node: its values (widgets) and links (sockets) by input name, its place and size."""

    id: int
    type: str
    inputs: Sequence[Input]
    outputs: Sequence[tuple[str, str]]  # (name, type)
    values: dict[str, Any]
    links: dict[str, Socket]
    title: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    width: float = 0
    height: float = 0
    footer: float = 0  # room below the node
    position: tuple[float, float] = (0, 0)

    def __getitem__(self, name: str) -> Socket:
        """Return the output called `name`."""
        names = [output_name for output_name, _ in self.outputs]
        return Socket(self, names.index(name))

    def slots(self) -> list[Input]:
        """Return the inputs in the order of the node's input slots: sockets first, then widgets."""
        return sorted(self.inputs, key=lambda slot: slot.is_widget)

    def widget_values(self) -> list[Any]:
        """Return the values of all widgets in the order the front end stores them."""
        if self.type == NOTE_TYPE:
            return [self.values["text"]]
        widgets = [slot for slot in self.inputs if slot.is_widget]
        return [value for slot in widgets for value in (self.values[slot.name], *slot.companion_values())]


def execution_order(nodes: Sequence[Node]) -> dict[int, int]:
    """Return the position of each node id in a topological order."""
    done: dict[int, int] = {}

    def visit(node: Node) -> None:
        if node.id in done or node.id < 0:  # an end of a subgraph
            return
        for socket in node.links.values():
            visit(socket.node)
        done[node.id] = len(done)

    for node in nodes:
        visit(node)
    return done


def needed_height(node: Node, text_height: float = TEXT_HEIGHT) -> float:
    """Return the height of a node's sockets and widgets, each multi-line text `text_height` high."""
    sockets = sum(not slot.is_widget for slot in node.inputs)
    widgets = [slot for slot in node.inputs if slot.is_widget]
    lines = sum(1 + len(slot.companion_values()) for slot in widgets if not slot.is_text)
    texts = sum(slot.is_text for slot in widgets)
    return NODE_PADDING + SLOT_HEIGHT * max(sockets, len(node.outputs)) + WIDGET_HEIGHT * lines + text_height * texts


def node_json(node: Node, order: int, links: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Return a node as the front end saves it; `links` are those of its graph."""
    incoming = {(link[3], link[4]): link[0] for link in links}
    content: dict[str, Any] = {
        "id": node.id,
        "type": node.type,
        "pos": list(node.position),
        "size": [node.width, node.height],
        "flags": {},
        "order": order,
        "mode": 0,
        "inputs": [_slot_json(slot, incoming.get((node.id, index))) for index, slot in enumerate(node.slots())],
        "outputs": [
            {
                "name": name,
                "type": kind,
                "links": [link[0] for link in links if (link[1], link[2]) == (node.id, index)] or None,
            }
            for index, (name, kind) in enumerate(node.outputs)
        ],
        "properties": node.properties,
        "widgets_values": node.widget_values(),
    }
    if node.title:
        content["title"] = node.title
    return content | (NOTE_COLOURS if node.type == NOTE_TYPE else {})


def _slot_json(slot: Input, link: int | None) -> dict[str, Any]:
    content: dict[str, Any] = {"name": slot.name, "type": slot.type, "link": link}
    if slot.label:
        content["label"] = slot.label
    if slot.is_widget:
        content["widget"] = {"name": slot.name}
    elif slot.is_optional:
        content["shape"] = 7
    return content
