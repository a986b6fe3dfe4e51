"""Lay out a graph in columns of titled groups and write it as ComfyUI's front end saves it (format version 0.4).

A graph is described as columns, their groups and the nodes in them, in reading order. Positions, ids, link numbers and
the order of widget values follow from that and from the server's ``/object_info``, so that the same description always
gives the same file. Lengths are in the front end's canvas units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dev.workflows.node_inputs import Input, check_values, read_inputs

ObjectInfo = Mapping[str, Any]

TITLE_HEIGHT = 30  # of a node, above its position
SLOT_HEIGHT = 20
WIDGET_HEIGHT = 24
NODE_PADDING = 16
TEXT_HEIGHT = 110  # of a multi-line text, unless the description says otherwise
NODE_GAP = 26  # between two nodes of a group
FOOTER_HEIGHT = 38  # extra height of a pack's nodes in the newer renderer, which shows the pack's name below them
GROUP_PADDING = 18
GROUP_TITLE_HEIGHT = 44
GROUP_GAP = 36
COLUMN_GAP = 44
# SVI Generate grows with its clip panel; the others grow a little in the newer renderer.
PREVIEW_HEIGHTS = {"SVIGenerate": 310, "SVIStoryline": 60, "ModelPatchLoader": 30}
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
    models: Sequence[Mapping[str, str]] = ()
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


@dataclass
class Group:
    """A titled, coloured frame around a stack of nodes."""

    graph: GraphLayout
    title: str
    colour: str
    width: float
    nodes: list[Node] = field(default_factory=list)

    def add(
        self,
        node_type: str,
        *,
        title: str | None = None,
        text_height: float = TEXT_HEIGHT,
        preview_height: float | None = None,
        models: Sequence[Mapping[str, str]] = (),
        **values: Any,
    ) -> Node:
        """Add a node; every widget must be given a value, and every required socket a link (a Node or a Socket).

        A widget may be given a link instead; the file then has its default as the value that the link hides.

        Args:
            text_height: of each multi-line text.
            preview_height: room for the picture or video that the node shows; None: what its type needs (PREVIEW_HEIGHTS).
            models: weight files that the front end offers to download ({"name", "url", "directory"}).

        Raises:
            ValueError: an unknown input, or one without a value.
        """
        definition = self.graph.object_info[node_type]
        inputs = list(read_inputs(definition, values))
        outputs = list(zip(definition["output_name"], definition["output"], strict=True))
        links = {name: _socket(value) for name, value in values.items() if isinstance(value, Node | Socket)}
        given = {name: value for name, value in values.items() if name not in links}
        check_values(node_type, inputs, given, links)
        given |= {slot.name: slot.options.get("default", "") for slot in inputs if slot.is_widget and slot.name in links}
        node = Node(len(self.graph.nodes) + 1, node_type, inputs, outputs, given, links, title, models)
        node.width = self.width
        shown_height = PREVIEW_HEIGHTS.get(node_type, 0) if preview_height is None else preview_height
        node.height = _height(node, text_height) + shown_height
        node.footer = FOOTER_HEIGHT if definition["python_module"].startswith("custom_nodes.") else 0
        self.nodes.append(node)
        self.graph.nodes.append(node)
        return node

    def note(self, title: str, text: str, height: float) -> Node:
        """Add a note in Markdown."""
        node = Node(len(self.graph.nodes) + 1, NOTE_TYPE, [], [], {"text": text}, {}, title, (), self.width, height)
        self.nodes.append(node)
        self.graph.nodes.append(node)
        return node

    @property
    def height(self) -> float:
        nodes = sum(TITLE_HEIGHT + node.height + node.footer for node in self.nodes) + NODE_GAP * (len(self.nodes) - 1)
        return GROUP_TITLE_HEIGHT + nodes + GROUP_PADDING

    def place(self, x: float, y: float) -> None:
        """Give the nodes their positions; (x, y) is the group's corner."""
        y += GROUP_TITLE_HEIGHT
        for node in self.nodes:
            node.position = (x + GROUP_PADDING, y + TITLE_HEIGHT)
            y += TITLE_HEIGHT + node.height + node.footer + NODE_GAP


@dataclass
class Column:
    """A stack of groups of equal width."""

    graph: GraphLayout
    width: float
    groups: list[Group] = field(default_factory=list)

    def group(self, title: str, colour: str) -> Group:
        """Add a group."""
        self.groups.append(Group(self.graph, title, colour, self.width))
        return self.groups[-1]


class GraphLayout:
    """A graph in columns from left to right."""

    def __init__(self, graph_id: str, object_info: ObjectInfo) -> None:
        self.graph_id = graph_id
        self.object_info = object_info
        self.columns: list[Column] = []
        self.nodes: list[Node] = []

    def column(self, width: float) -> Column:
        """Add a column of nodes that are `width` wide."""
        self.columns.append(Column(self, width))
        return self.columns[-1]

    def to_json(self) -> dict[str, Any]:
        """Return the graph as the front end saves it."""
        groups = self._place()
        links = self._links()
        order = execution_order(self.nodes)
        return {
            "id": self.graph_id,
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(links),
            "nodes": [_node_json(node, order[node.id], links) for node in self.nodes],
            "links": links,
            "groups": groups,
            "config": {},
            "extra": {"ds": {"scale": 0.6, "offset": [60, 120]}, "workflowRendererVersion": "LG"},
            "version": 0.4,
        }

    def _place(self) -> list[dict[str, Any]]:
        """Place every node and return the groups."""
        groups = []
        x = 0.0
        for column in self.columns:
            y = 0.0
            width = column.width + 2 * GROUP_PADDING
            for group in column.groups:
                group.place(x, y)
                bounding = [x, y, width, group.height]
                groups.append({"id": len(groups) + 1, "title": group.title, "bounding": bounding, "color": group.colour})
                y += group.height + GROUP_GAP
            x += width + COLUMN_GAP
        return [{**group, "font_size": 24, "flags": {}} for group in groups]

    def _links(self) -> list[list[Any]]:
        """Return [id, source node, output index, target node, input index, type] of every link."""
        links: list[list[Any]] = []
        for node in self.nodes:
            for index, slot in enumerate(node.slots()):
                if slot.name in node.links:
                    source = node.links[slot.name]
                    kind = source.node.outputs[source.index][1]
                    links.append([len(links) + 1, source.node.id, source.index, node.id, index, kind])
        return links


def execution_order(nodes: Sequence[Node]) -> dict[int, int]:
    """Return the position of each node id in a topological order."""
    done: dict[int, int] = {}

    def visit(node: Node) -> None:
        if node.id in done:
            return
        for socket in node.links.values():
            visit(socket.node)
        done[node.id] = len(done)

    for node in nodes:
        visit(node)
    return done


def _socket(value: Node | Socket) -> Socket:
    return value if isinstance(value, Socket) else Socket(value, 0)


def _height(node: Node, text_height: float) -> float:
    sockets = sum(not slot.is_widget for slot in node.inputs)
    widgets = [slot for slot in node.inputs if slot.is_widget]
    lines = sum(1 + len(slot.companion_values()) for slot in widgets if not slot.is_text)
    texts = sum(slot.is_text for slot in widgets)
    return NODE_PADDING + SLOT_HEIGHT * max(sockets, len(node.outputs)) + WIDGET_HEIGHT * lines + text_height * texts


def _node_json(node: Node, order: int, links: Sequence[Sequence[Any]]) -> dict[str, Any]:
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
        "properties": _properties(node),
        "widgets_values": node.widget_values(),
    }
    if node.title:
        content["title"] = node.title
    return content | (NOTE_COLOURS if node.type == NOTE_TYPE else {})


def _slot_json(slot: Input, link: int | None) -> dict[str, Any]:
    content: dict[str, Any] = {"name": slot.name, "type": slot.type, "link": link}
    if "." in slot.name:
        content["label"] = slot.name.rpartition(".")[2]
    if slot.is_widget:
        content["widget"] = {"name": slot.name}
    elif slot.is_optional:
        content["shape"] = 7
    return content


def _properties(node: Node) -> dict[str, Any]:
    if node.type == NOTE_TYPE:
        return {}
    properties: dict[str, Any] = {"Node name for S&R": node.type}
    if node.models:
        properties["models"] = [dict(model) for model in node.models]
    return properties
