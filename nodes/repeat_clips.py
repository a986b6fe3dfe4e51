"""A loop by node expansion, for every ComfyUI: the nodes between SVI Begin Video and this one are copied for each clip."""

from comfy_api.latest import io

from .bridge.expansion import MAX_ROW, longest_ways, require_row
from .bridge.node_ids import BEGIN_VIDEO, NEXT_CLIP, REPEAT_CLIPS
from .bridge.queued_graph import Link, QueuedGraph, ancestors_first, as_link, executed_graph
from .bridge.schemas import svi_schema
from .step_by_step import StateType


class SVIRepeatClips(io.ComfyNode):
    """Repeat the nodes between SVI Begin Video and this node for each clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id=REPEAT_CLIPS,
            display_name="SVI Repeat Clips",
            description="Repeats the nodes between SVI Begin Video and this node, one clip each time: SVI Next Clip and what "
            "processes its frames. Works in every ComfyUI, as Start Loop and End Loop do in a newer one.",
            category="loop",
            search_aliases=["loop end", "for loop", "node expansion"],
            inputs=[
                StateType.Input("state", lazy=True, raw_link=True, tooltip="The state after one clip and its processing."),
                io.Int.Input("num_clips", default=3, min=1, max=MAX_ROW, tooltip="Number of clips."),
            ],
            outputs=[StateType.Output("last_state", display_name="state", tooltip="For SVI Finish Video.")],
            hidden=[io.Hidden.dynprompt, io.Hidden.unique_id],
            enable_expand=True,
        )

    @classmethod
    def execute(cls, state, num_clips) -> io.NodeOutput:
        graph, end = executed_graph(cls.hidden.dynprompt), as_link(state)
        assert end is not None, state
        nodes, last = repeated(graph, end, num_clips, cls.hidden.unique_id)
        return io.NodeOutput(last, expand=nodes)


def repeated(graph: QueuedGraph, end: Link, num_clips: int, prefix: str) -> tuple[dict[str, dict], list]:
    """Return copies of the nodes from SVI Begin Video to the output `end`, one after the other, and the link to the last `end`.

    Args:
        prefix: of the copies' ids.

    Raises:
        ValueError: there is not one SVI Begin Video with one SVI Next Clip behind it, or the copies make too long a row.
    """
    begin, body = _body(graph, end)
    others = [node for node in ancestors_first(graph, end.node_id, {}) if node not in body]
    num_before, num_per_clip = max(longest_ways(graph, others).values()), longest_ways(graph, body)[end.node_id]
    require_row(num_clips, num_per_clip, num_before, "Start Loop and End Loop where your ComfyUI has them")
    nodes: dict[str, dict] = {}
    carried: list = [begin, 0]
    for number in range(1, num_clips + 1):
        names = {node: f"{prefix}.clip{number}.{node}" for node in body}
        for node, name in names.items():
            inputs = {key: _relinked(value, names, begin, carried) for key, value in graph.inputs(node).items()}
            if graph.class_of(node) == NEXT_CLIP:
                inputs["is_last"] = number == num_clips
            nodes[name] = {"class_type": graph.class_of(node), "inputs": inputs, "override_display_id": node}
        carried = [names[end.node_id], end.slot]
    return nodes, carried


def _body(graph: QueuedGraph, end: Link) -> tuple[str, list[str]]:
    """Return the SVI Begin Video before `end`, and the nodes on the ways from it; what it continues is another run."""
    before = ancestors_first(graph, end.node_id, {node: graph.inputs(node) for node in graph.of_class(BEGIN_VIDEO)})
    begins = [node for node in before if graph.class_of(node) == BEGIN_VIDEO]
    after = set(begins)
    body = []
    for node in before:
        if node not in after and any(link.node_id in after for link in graph.links(node)):
            after.add(node)
            body.append(node)
    num_next = sum(graph.class_of(node) == NEXT_CLIP for node in body)
    if len(begins) != 1 or num_next != 1:
        raise ValueError(
            f"SVI Repeat Clips found {len(begins)} SVI Begin Video and {num_next} SVI Next Clip before it: put one SVI Next "
            "Clip between one SVI Begin Video and it."
        )
    return begins[0], body


def _relinked(value: object, names: dict[str, str], begin: str, carried: list) -> object:
    """Return an input's value in a copy: links into the body lead to the copies, those to the begin to the state carried on."""
    link = as_link(value)
    if link is None:
        return value
    if link.node_id == begin:
        return carried
    return [names.get(link.node_id, link.node_id), link.slot]
