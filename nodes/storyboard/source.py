"""Find the text that a run's schedule is read from, so that edits can change it."""

from dataclasses import asdict, dataclass

from ...svi_core.files.text_file import read_text
from ...svi_core.schedule.prompt_lists import PromptSplit, is_plain_list, normalised_text
from ..bridge.queued_graph import NotKnown, QueuedGraph, as_link
from ..schedule import SVILiveSchedule, SVIPromptStream, input_text_file

_MADE_BY = "the text comes from {}: edit it there, or disconnect it and paste the text."


@dataclass(frozen=True)
class Source:
    """What holds a schedule.

    Attributes:
        kind: "text" in a widget of the graph, "file" of SVI Live Schedule, or "made" by another node.
        node, widget: that hold the text, or the name of the file.
        text: as far as it is known.
        split: what separates its prompts.
        split_node, split_widget: that hold `split`; None if they cannot be changed.
        file: its name in the input folder.
        editable: whether edits can change it, and `why_not`.
        plain: it takes no options.
    """

    kind: str
    node: str
    widget: str
    text: str = ""
    split: str = PromptSplit.PARAGRAPHS
    split_node: str | None = None
    split_widget: str | None = None
    file: str | None = None
    editable: bool = True
    why_not: str = ""
    plain: bool = False

    def as_dict(self) -> dict[str, object]:
        """Return it as the browser gets it."""
        return asdict(self)


def find_source(graph: QueuedGraph, loop: str) -> Source | None:
    """Return what holds the schedule of the SVI Generate `loop`, whatever mistakes it has; None for no known node."""
    link = graph.link(loop, "prompts")
    kind = graph.class_of(link.node_id) if link else ""
    if link and kind == SVIPromptStream.define_schema().node_id:
        return _of_stream(graph, link.node_id)
    if link and kind == SVILiveSchedule.define_schema().node_id:
        return _of_file(graph, link.node_id)
    return None


def _of_stream(graph: QueuedGraph, stream: str) -> Source:
    holder, widget = _holder(graph, stream, "text")
    text = graph.inputs(holder).get(widget)
    if not isinstance(text, str):
        origin = as_link(graph.inputs(stream).get("text"))
        return Source(
            "made",
            stream,
            "text",
            editable=False,
            why_not=_MADE_BY.format(graph.title(origin.node_id) if origin else "nowhere"),
        )
    split_holder, split_widget = _holder(graph, stream, "split")
    split = graph.inputs(split_holder).get(split_widget)
    known = split if isinstance(split, str) and split in list(PromptSplit) else PromptSplit.PARAGRAPHS.value
    plain = is_plain_list(normalised_text(text), PromptSplit(known))
    return Source("text", holder, widget, text, known, split_holder, split_widget, plain=plain)


def _of_file(graph: QueuedGraph, live: str) -> Source:
    holder, widget = _holder(graph, live, "file")
    name = graph.inputs(holder).get(widget)
    if not isinstance(name, str):
        return Source("file", live, "file", editable=False, why_not="the name of the file comes from another node: type it in.")
    try:
        text = read_text(input_text_file(name))
    except ValueError as error:
        return Source("file", holder, widget, file=name, editable=False, why_not=str(error))
    plain = is_plain_list(normalised_text(text), PromptSplit.PARAGRAPHS)
    return Source("file", holder, widget, text, file=name, plain=plain)


def _holder(graph: QueuedGraph, node: str, widget: str) -> tuple[str, str]:
    """Return the node and the widget that hold a widget's value: those of a linked primitive, if one is linked."""
    link = graph.link(node, widget)
    if link is None:
        return node, widget
    try:
        graph.value(node, widget)
    except NotKnown:
        return node, widget
    return _holder(graph, link.node_id, "value")
