"""Lay out a graph in columns of titled groups and write it as ComfyUI's front end saves it (format version 0.4).

A graph is described as columns, their groups and the nodes in them, in reading order. Positions, ids, link numbers and
the order of widget values follow from that and from the server's ``/object_info``, so that the same description always
gives the same file. Lengths are in the front end's canvas units. dev/workflows/subgraph.py folds a graph into one node.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dev.workflows.app_mode import linear_data
from dev.workflows.graph_nodes import NOTE_TYPE, TEXT_HEIGHT, Node, Socket, execution_order, needed_height, node_json
from dev.workflows.node_inputs import check_values, read_inputs

ObjectInfo = Mapping[str, Any]

TITLE_HEIGHT = 30  # of a node, above its position
NODE_GAP = 26  # between two nodes of a group
FOOTER_HEIGHT = 38  # extra height of a pack's nodes in the newer renderer, which shows the pack's name below them
GROUP_PADDING = 18
GROUP_TITLE_HEIGHT = 44
GROUP_GAP = 36
COLUMN_GAP = 44
CLIPS_HEIGHT = 280  # room in its frame for the clips that SVI Generate shows once there are any
PREVIEW_HEIGHTS = {"SVIGenerate": 30, "SVIStoryline": 60, "ModelPatchLoader": 30}  # they grow in the newer renderer


@dataclass
class Group:
    """A stack of nodes, in a coloured frame if it has a title."""

    graph: GraphLayout
    title: str | None
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
        properties: dict[str, Any] = {"Node name for S&R": node_type}
        if models:
            properties["models"] = [dict(model) for model in models]
        node = Node(self.graph.next_id, node_type, inputs, outputs, given, links, title, properties)
        shown_height = PREVIEW_HEIGHTS.get(node_type, 0) if preview_height is None else preview_height
        node.height = needed_height(node, text_height) + shown_height
        node.footer = FOOTER_HEIGHT if definition["python_module"].startswith("custom_nodes.") else 0
        node.footer += CLIPS_HEIGHT if node_type == "SVIGenerate" else 0
        return self.put(node)

    def put(self, node: Node) -> Node:
        """Add a ready-made node at the bottom."""
        node.width = self.width
        self.nodes.append(node)
        self.graph.nodes.append(node)
        return node

    def note(self, title: str, text: str, height: float) -> Node:
        """Add a note in Markdown."""
        return self.put(Node(self.graph.next_id, NOTE_TYPE, [], [], {"text": text}, {}, title, height=height))

    @property
    def padding(self) -> float:
        """Room at the left, at the right and below the nodes."""
        return GROUP_PADDING if self.title else 0

    @property
    def title_height(self) -> float:
        return GROUP_TITLE_HEIGHT if self.title else 0

    @property
    def height(self) -> float:
        nodes = sum(TITLE_HEIGHT + node.height + node.footer for node in self.nodes) + NODE_GAP * (len(self.nodes) - 1)
        return self.title_height + nodes + self.padding

    def place(self, x: float, y: float) -> None:
        """Give the nodes their positions; (x, y) is the group's corner."""
        y += self.title_height
        for node in self.nodes:
            node.position = (x + self.padding, y + TITLE_HEIGHT)
            y += TITLE_HEIGHT + node.height + node.footer + NODE_GAP


@dataclass
class Column:
    """A stack of groups of equal width."""

    graph: GraphLayout
    width: float
    groups: list[Group] = field(default_factory=list)

    def group(self, title: str | None = None, colour: str = "") -> Group:
        """Add a group; without a title it has no frame."""
        self.groups.append(Group(self.graph, title, colour, self.width))
        return self.groups[-1]


class GraphLayout:
    """A graph in columns from left to right."""

    def __init__(self, graph_id: str, object_info: ObjectInfo) -> None:
        self.graph_id = graph_id
        self.object_info = object_info
        self.columns: list[Column] = []
        self.nodes: list[Node] = []
        self.folded: list[Mapping[str, Any]] = []  # definitions of the subgraphs in it
        self.form: list[tuple[Node, str]] = []  # widgets that app mode shows besides those it always does

    @property
    def next_id(self) -> int:
        """The id of the next node."""
        return len(self.nodes) + 1

    def column(self, width: float) -> Column:
        """Add a column of nodes that are `width` wide."""
        self.columns.append(Column(self, width))
        return self.columns[-1]

    def to_json(self) -> dict[str, Any]:
        """Return the graph as the front end saves it."""
        groups = self.place()
        links = self.links()
        extra = {"ds": {"scale": 0.6, "offset": [60, 120]}, "workflowRendererVersion": "LG"}
        content: dict[str, Any] = {
            "id": self.graph_id,
            "revision": 0,
            "last_node_id": max([len(self.nodes), *(folded["state"]["lastNodeId"] for folded in self.folded)]),
            "last_link_id": max([len(links), *(folded["state"]["lastLinkId"] for folded in self.folded)]),
            "nodes": self.node_list(links),
            "links": links,
            "groups": groups,
            "config": {},
            "extra": extra | {"linearData": linear_data(self.nodes, self.form)},
            "version": 0.4,
        }
        return content | ({"definitions": {"subgraphs": list(self.folded)}} if self.folded else {})

    def node_list(self, links: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
        """Return the nodes as the front end saves them."""
        order = execution_order(self.nodes)
        return [node_json(node, order[node.id], links) for node in self.nodes]

    def place(self) -> list[dict[str, Any]]:
        """Place every node and return the groups."""
        groups = []
        x = 0.0
        for column in self.columns:
            y = 0.0
            width = column.width + 2 * max(group.padding for group in column.groups)
            for group in column.groups:
                group.place(x, y)
                if group.title:
                    bounding = [x, y, width, group.height]
                    groups.append({"id": len(groups) + 1, "title": group.title, "bounding": bounding, "color": group.colour})
                y += group.height + GROUP_GAP
            x += width + COLUMN_GAP
        return [{**group, "font_size": 24, "flags": {}} for group in groups]

    def links(self) -> list[list[Any]]:
        """Return [id, source node, output index, target node, input index, type] of every link."""
        links: list[list[Any]] = []
        for node in self.nodes:
            for index, slot in enumerate(node.slots()):
                if slot.name in node.links:
                    source = node.links[slot.name]
                    kind = source.node.outputs[source.index][1]
                    links.append([len(links) + 1, source.node.id, source.index, node.id, index, kind])
        return links


def _socket(value: Node | Socket) -> Socket:
    return value if isinstance(value, Socket) else Socket(value, 0)
