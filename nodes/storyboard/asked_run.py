"""Read the run that a request asks about from the queued graph that it sends."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace

from ...svi_core.dry_run.requested_run import RequestedRun
from ...svi_core.dry_run.storyboard import without_missing_takes
from ...svi_core.schedule.spec import Schedule
from ..bridge.node_ids import GENERATE
from ..bridge.queued_graph import QueuedGraph
from ..bridge.routes import Asked, typed
from ..dry_run.graph_reader import GraphReader
from ..dry_run.read_graph import read_loop

UNCHECKED = (TypeError, KeyError, AttributeError, IndexError, RecursionError)  # ComfyUI checks a graph when it is queued


@dataclass(frozen=True)
class AskedRun:
    """A run that a request asks about.

    Attributes:
        run: what its graph requests, without takes that are gone.
        num_clips: the widget of SVI Generate; None if another node decides.
        missing_takes: why a take is gone, by the place of its clip.
    """

    run: RequestedRun
    num_clips: int | None
    missing_takes: Mapping[int, str]

    def with_schedule(self, schedule: Schedule, num_clips: int | None = None) -> RequestedRun:
        """Return the run with another schedule, and with another num_clips if one is given."""
        follows = not self.num_clips and self.run.plan.num_clips == self.run.num_listed
        if num_clips is None:
            num_clips = len(schedule) if follows or self.run.until_stopped else self.run.plan.num_clips
        plan = replace(self.run.plan, schedule=schedule, num_clips=num_clips)
        return without_missing_takes(replace(self.run, plan=plan, num_listed=len(schedule)))[0]


def asked_graph(asked: Asked) -> tuple[QueuedGraph, str | None]:
    """Return the graph that a request sends, and the SVI Generate that it is about: the first one if it names none.

    Raises:
        ValueError: no graph in API format, or no such node.
    """
    prompt = typed(asked, "prompt", dict)
    for node, facts in prompt.items():
        if not (isinstance(facts, dict) and isinstance(facts.get("class_type"), str) and isinstance(facts.get("inputs"), dict)):
            raise ValueError(f"node {node[:80]!r} of prompt has no class_type and inputs: send the graph in API format.")
        if not isinstance(facts.get("_meta", {}), dict):
            raise ValueError(f"_meta of node {node[:80]!r} is {str(facts['_meta'])[:80]!r}: send an object, or leave it out.")
    graph = QueuedGraph({node: _as_queued(facts) for node, facts in prompt.items()})
    loops, node = graph.of_class(GENERATE), asked.get("node")
    if node is None:
        return graph, loops[0] if loops else None
    if node not in loops:
        raise ValueError(
            f"node is {str(node)[:80]!r}: send the id of an SVI Generate of this graph ({', '.join(loops) or 'none'})."
        )
    return graph, str(node)


def _as_queued(facts: Mapping) -> dict:
    """Return a node with the numbers that ComfyUI makes of its widgets when it queues them: a browser writes 5.0 as 5."""
    whole = {name: value for name, value in facts["inputs"].items() if type(value) is int}
    node_class = getattr(sys.modules.get("nodes"), "NODE_CLASS_MAPPINGS", {}).get(facts["class_type"])
    if not whole or node_class is None:
        return dict(facts)
    types = node_class.INPUT_TYPES()
    specs = {**types.get("required", {}), **types.get("optional", {})}
    floats = {name: float(value) for name, value in whole.items() if name in specs and specs[name][0] == "FLOAT"}
    return {**facts, "inputs": {**facts["inputs"], **floats}}


def read_asked_run(asked: Asked) -> AskedRun:
    """Return the run that a request asks about.

    Raises:
        ValueError: a bad request, or an input that the run would refuse.
    """
    graph, loop = asked_graph(asked)
    if loop is None:
        raise ValueError("the graph has no SVI Generate: add one, or load a workflow of this pack.")
    try:
        run, missing = without_missing_takes(read_loop(GraphReader(graph), loop))
    except UNCHECKED as error:
        raise unreadable(error) from error
    value = graph.inputs(loop).get("num_clips")
    return AskedRun(run, value if type(value) is int else None, missing)


def unreadable(error: Exception) -> ValueError:
    """Return what to say of a graph in which a value has a type that its node does not take."""
    return ValueError(f"the graph cannot be read ({str(error)[:200]}): queue it, and ComfyUI names the widget.")
