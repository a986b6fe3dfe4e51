"""Read the widgets of a queued graph by their nodes' schemas.

Names and defaults of widgets come from the node's schema. The functions that convert widget values belong to the node, whose
`execute` calls them too; their parameters are named after the widgets.
"""

import inspect
from collections.abc import Callable
from typing import TypeVar

from comfy_api.latest import io

from ..bridge.queued_graph import NotKnown, QueuedGraph

STOCK = None  # in place of a node class: a node of ComfyUI, whose defaults are not needed
NodeClass = type[io.ComfyNode] | None
Read = TypeVar("Read")


class GraphReader:
    """Reads one queued graph and collects in `not_known` the values that other nodes will make."""

    def __init__(self, graph: QueuedGraph):
        self.graph = graph
        self.not_known: list[str] = []

    def is_a(self, node_id: str, node_class: type[io.ComfyNode]) -> bool:
        """Whether a node is of `node_class`."""
        return self.graph.class_of(node_id) == node_class.define_schema().node_id

    def source(self, node_id: str, name: str, node_class: type[io.ComfyNode]) -> str | None:
        """Return the node behind the input `name` if it is of `node_class`, else None."""
        link = self.graph.link(node_id, name)
        return link.node_id if link is not None and self.is_a(link.node_id, node_class) else None

    def origin(self, node_id: str, name: str) -> str:
        """Return the title of the node behind the input `name`, for messages."""
        link = self.graph.link(node_id, name)
        return "nothing" if link is None else self.graph.title(link.node_id)

    def read(self, node_id: str, node_class: NodeClass, function: Callable[..., Read], *given: object) -> Read:
        """Return `function(*given, **widgets)`; its other parameters name widgets of the node.

        Raises:
            NotKnown: another node makes one of them.
        """
        values, not_known = self._widgets(node_id, node_class, function, given)
        if not_known:
            raise NotKnown("; ".join(not_known))
        return function(*given, **values)

    def required(self, node_id: str, node_class: NodeClass, function: Callable[..., Read], *given: object) -> Read:
        """Return as :meth:`read`.

        Raises:
            ValueError: another node makes one of the widgets.
        """
        try:
            return self.read(node_id, node_class, function, *given)
        except NotKnown as error:
            raise ValueError(f"{error}, so the clips are not known before it runs: type the value in.") from error

    def known(self, node_id: str, node_class: NodeClass, function: Callable[..., Read]) -> Read | None:
        """Return as :meth:`read`; record a widget that another node makes, and return None."""
        try:
            return self.read(node_id, node_class, function)
        except NotKnown as error:
            self.not_known.append(str(error))
            return None

    def or_default(self, node_id: str, node_class: NodeClass, function: Callable[..., Read]) -> Read:
        """Return as :meth:`read`; record a widget that another node makes, and use its default."""
        values, not_known = self._widgets(node_id, node_class, function)
        self.not_known += not_known
        return function(**values)

    def _widgets(
        self, node_id: str, node_class: NodeClass, function: Callable, given: tuple = ()
    ) -> tuple[dict[str, object], list[str]]:
        """Return the widgets that `function` takes after `given`, defaults for unknown ones, and why they are unknown."""
        defaults = {entry.id: _default_of(entry) for entry in node_class.define_schema().inputs} if node_class else {}
        values, not_known = {}, []
        for name in list(inspect.signature(function).parameters)[len(given) :]:
            values[name] = default = defaults[name] if node_class else None
            try:
                values[name] = self.graph.value(node_id, name, default)
            except NotKnown as error:
                not_known.append(str(error))
        return values, not_known


def _default_of(entry: io.Input) -> object:
    """Return the value of an input in a new node; None for a socket."""
    default = getattr(entry, "default", None)
    return next(iter(entry.options), None) if default is None and isinstance(entry, io.Combo.Input) else default
