"""A graph that another graph shows as one node: a subgraph, or a blueprint of one.

Its sockets and the widgets that people change lie on that node. Ids of nodes inside begin at FIRST_ID: the front end wants
them unique in the whole file.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from dev.workflows.graph_layout import FOOTER_HEIGHT, NODE_GAP, GraphLayout, Group, ObjectInfo
from dev.workflows.graph_nodes import SLOT_HEIGHT, Node, Socket, needed_height
from dev.workflows.node_inputs import Input

ENTRY_ID, EXIT_ID = -10, -20  # how the front end numbers the two ends of a subgraph
FIRST_ID = 101
END_WIDTH = 160
GROWTH = 40  # of its node in the newer renderer


class Subgraph(GraphLayout):
    """A graph with an entry, an exit, and some of its widgets on the outside.

    Args:
        name: what the node is called.
        graph_id: a UUID, the node's type.
        description: what the node library says of it.
        category: its place in the node library.
    """

    def __init__(self, name: str, graph_id: str, object_info: ObjectInfo, description: str, category: str) -> None:
        super().__init__(graph_id, object_info)
        self.name = name
        self.about = {"category": category, "description": description}
        self.outside: list[Input] = []
        self.entry = Node(ENTRY_ID, "", (), [], {}, {})
        self.exit = Node(EXIT_ID, "", [], (), {}, {})

    @property
    def next_id(self) -> int:
        return FIRST_ID + len(self.nodes)

    def socket(self, name: str, kind: str) -> Socket:
        """Add an input without a widget; return it as a source for the nodes inside."""
        return self._input(Input(name, kind, {}, False))

    def promote(self, node: Node, widget: str, name: str | None = None, also: Sequence[tuple[Node, str]] = ()) -> None:
        """Show a widget of `node` on the outside, called `name`, with the value that it has; `also` take the same value."""
        (slot,) = (entry for entry in node.inputs if entry.name == widget)
        shown = name or widget
        options = {"multiline": True} if slot.is_text else {}  # what follows a widget, as a seed's control, stays inside
        node.links[widget] = self._input(Input(shown, slot.type, options, False))
        self.entry.values[shown] = node.values[widget]
        for other, other_widget in also:
            other.links[other_widget] = node.links[widget]

    def give(self, name: str, source: Socket) -> None:
        """Add an output."""
        self.exit.inputs.append(Input(name, source.node.outputs[source.index][1], {}, False))
        self.exit.links[name] = source

    def node(self, group: Group, text_height: float = 0, **links: Node | Socket) -> Node:
        """Add the node that shows this graph to `group` of another one, and the definition to that graph."""
        sockets = {name: value if isinstance(value, Socket) else Socket(value, 0) for name, value in links.items()}
        unset = [slot.name for slot in self.outside if not slot.is_widget and slot.name not in sockets]
        unknown = sockets.keys() - {slot.name for slot in self.outside}
        if unknown or (sockets and unset):
            raise ValueError(f"{self.name}: unknown {sorted(unknown)}, not linked {unset}")
        outputs = [(slot.name, slot.type) for slot in self.exit.inputs]
        proxies = [["-1", slot.name] for slot in self.outside if slot.is_widget]
        values = dict(self.entry.values)
        node = Node(
            group.graph.next_id, self.graph_id, self.outside, outputs, values, sockets, properties={"proxyWidgets": proxies}
        )
        node.height = needed_height(node, text_height) + GROWTH
        node.footer = FOOTER_HEIGHT
        group.graph.folded.append(self.definition())
        return group.put(node)

    def definition(self) -> dict[str, Any]:
        """Return the graph as the front end saves it among the definitions of another one."""
        groups = self.place()
        rows = self._numbered_links()
        height = SLOT_HEIGHT * (max(len(self.outside), len(self.exit.inputs)) + 2)
        right = max(node.position[0] + node.width for node in self.nodes) + END_WIDTH
        keys = ("id", "origin_id", "origin_slot", "target_id", "target_slot", "type")
        state = {"lastGroupId": len(groups), "lastNodeId": self.next_id - 1, "lastLinkId": FIRST_ID + len(rows) - 1}
        return {
            "id": self.graph_id,
            "version": 1,
            "state": state | {"lastRerouteId": 0},
            "revision": 0,
            "config": {},
            "name": self.name,
            "inputNode": {"id": ENTRY_ID, "bounding": [-END_WIDTH - 100, 0, END_WIDTH, height]},
            "outputNode": {"id": EXIT_ID, "bounding": [right, 0, END_WIDTH, SLOT_HEIGHT * (len(self.exit.inputs) + 2)]},
            "inputs": [
                self._slot("in", slot, -100, index, [row[0] for row in rows if (row[1], row[2]) == (ENTRY_ID, index)])
                for index, slot in enumerate(self.outside)
            ],
            "outputs": [
                self._slot(
                    "out", slot, right + NODE_GAP, index, [row[0] for row in rows if (row[3], row[4]) == (EXIT_ID, index)]
                )
                for index, slot in enumerate(self.exit.inputs)
            ],
            "widgets": [],
            "nodes": self.node_list(rows),
            "groups": groups,
            "links": [dict(zip(keys, row, strict=True)) for row in rows],
            "extra": {"workflowRendererVersion": "LG"},
            **self.about,
        }

    def _input(self, slot: Input) -> Socket:
        self.outside.append(slot)
        self.entry.outputs.append((slot.name, slot.type))
        return Socket(self.entry, len(self.outside) - 1)

    def _numbered_links(self) -> list[list[Any]]:
        rows = self.links()
        for index, slot in enumerate(self.exit.inputs):
            source = self.exit.links[slot.name]
            rows.append([0, source.node.id, source.index, EXIT_ID, index, slot.type])
        return [[FIRST_ID + number, *row[1:]] for number, row in enumerate(rows)]

    def _slot(self, end: str, slot: Input, x: float, index: int, links: list[int]) -> Mapping[str, Any]:
        key = str(uuid.uuid5(uuid.UUID(self.graph_id), f"{end}/{slot.name}"))
        y = SLOT_HEIGHT * (index + 1)
        return {"id": key, "name": slot.name, "type": slot.type, "linkIds": links, "pos": [x, y]}
