"""Read the widgets of a queued graph by their nodes' own schemas.

A widget's name and default stand in its node's schema alone. The functions that turn widget values into what a run uses stand
beside the node, where `execute` calls them; their parameters are named after the widgets.
"""

import inspect
from collections.abc import Callable, Iterable
from typing import TypeVar

from comfy_api.latest import io

from ..bridge.queued_graph import NotKnown, QueuedGraph

Read = TypeVar("Read")


class GraphReader:
    """Reads one queued graph.

    Attributes:
        graph: the graph.
        not_known: values met so far that only another node can tell, for the reader of the estimate.
    """

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

    def read(self, node_id: str, node_class: type[io.ComfyNode], function: Callable[..., Read], *given: object) -> Read:
        """Return `function(*given, **widgets)`, with the widgets of the node that the other parameters are named after.

        Raises:
            NotKnown: another node makes one of them.
        """
        values, not_known = self._widgets(node_id, node_class, function, given)
        if not_known:
            raise not_known[0]
        return function(*given, **values)

    def required(self, node_id: str, node_class: type[io.ComfyNode], function: Callable[..., Read], *given: object) -> Read:
        """Return as :meth:`read`.

        Raises:
            ValueError: another node makes one of the widgets, without which no clip is known.
        """
        try:
            return self.read(node_id, node_class, function, *given)
        except NotKnown as error:
            raise _refusal(error) from error

    def known(self, node_id: str, node_class: type[io.ComfyNode], function: Callable[..., Read]) -> Read | None:
        """Return as :meth:`read`, or None, noted, if another node makes one of the widgets."""
        values, not_known = self._widgets(node_id, node_class, function, ())
        self._note(not_known)
        return None if not_known else function(**values)

    def or_default(self, node_id: str, node_class: type[io.ComfyNode], function: Callable[..., Read]) -> Read:
        """Return as :meth:`read`; a widget whose value another node makes is noted and counts as its default."""
        values, not_known = self._widgets(node_id, node_class, function, ())
        self._note(not_known)
        return function(**values)

    def required_stock_widget(self, node_id: str, name: str) -> object:
        """Return the value of a widget of ComfyUI's own nodes.

        Raises:
            ValueError: another node makes it.
        """
        try:
            return self.graph.value(node_id, name)
        except NotKnown as error:
            raise _refusal(error) from error

    def stock_widget(self, node_id: str, name: str) -> object:
        """Return the value of a widget of ComfyUI's own nodes, or None, noted, if another node makes it."""
        try:
            return self.graph.value(node_id, name)
        except NotKnown as error:
            self._note([error])
            return None

    def _note(self, errors: Iterable[NotKnown]) -> None:
        self.not_known += map(str, errors)

    def _widgets(
        self, node_id: str, node_class: type[io.ComfyNode], function: Callable, given: tuple
    ) -> tuple[dict[str, object], list[NotKnown]]:
        """Return the widgets that `function` takes after `given`, with defaults for those not known, and why they are not."""
        inputs = {entry.id: entry for entry in node_class.define_schema().inputs}
        values, not_known = {}, []
        for name in list(inspect.signature(function).parameters)[len(given) :]:
            values[name] = default = _default_of(inputs[name])
            try:
                values[name] = self.graph.value(node_id, name, default)
            except NotKnown as error:
                not_known.append(error)
        return values, not_known


def _refusal(error: NotKnown) -> ValueError:
    return ValueError(f"{error}, so that the clips cannot be known before it runs: type the value in.")


def _default_of(widget: io.WidgetInput) -> object:
    """Return a widget's value in a new node."""
    if widget.default is None and isinstance(widget, io.Combo.Input):
        return widget.options[0]
    return widget.default
