"""Node expansion: how many clips a row of nodes can make."""

from collections.abc import Sequence

from .queued_graph import QueuedGraph

# ComfyUI gives each node a cache key by a recursion over all nodes before it, and Python allows about 1000 nested calls.
MAX_ROW = 900


def longest_ways(graph: QueuedGraph, nodes: Sequence[str]) -> dict[str, int]:
    """Return how many of `nodes` lie on the longest way to each of them; a node stands after those that it needs."""
    ways: dict[str, int] = {}
    for node in nodes:
        ways[node] = 1 + max((ways.get(link.node_id, 0) for link in graph.links(node)), default=0)
    return ways


def require_row(num_clips: int, num_per_clip: int, num_before: int, instead: str) -> None:
    """Refuse clips whose nodes, one after the other, make a row that ComfyUI cannot follow.

    Args:
        num_per_clip: nodes in the row for each clip.
        num_before: nodes in the row before the first clip.
        instead: what can make more clips, for the message.

    Raises:
        ValueError: with the number of clips that fit.
    """
    most = (MAX_ROW - num_before) // num_per_clip
    if num_clips > most:
        raise ValueError(
            f"num_clips is {num_clips}, in a row of {num_before} + {num_clips} x {num_per_clip} nodes, but ComfyUI follows "
            f"about {MAX_ROW}: use {most} or fewer, or {instead}."
        )
