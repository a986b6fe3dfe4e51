"""Where the values of a story go in a workflow: columns such as `image` and `seed`, and `node.widget` for everything else."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Iterator

from batch.workflow.convert import Graph, Target, Workflow

GENERATORS = ("SVIGenerate", "SVIBeginVideo")  # the nodes that make a run
# Column -> classes and input that it sets, and the input of a generator through which such a node is reached.
_FIELDS = {
    "image": (("LoadImage",), "image", "anchor"),
    "prompts": (("SVIPromptStream",), "text", "prompts"),
    "layout": (("SVILayout",), "variant", "layout"),
    "sound": (("LoadAudio",), "audio", "control"),
    "pose": (("LoadVideo",), "file", "control"),
    "clips": (GENERATORS, "num_clips", ""),
    "seed": (GENERATORS, "seed", ""),
}


def generators(graph: Graph) -> list[str]:
    """Return the ids of the nodes that make a run of clips."""
    return [key for key, node in graph.items() if node["class_type"] in GENERATORS]


def targets_of(workflow: Workflow, column: str) -> list[Target]:
    """Return the inputs that a column sets: one, or those of a subgraph's widget.

    Raises:
        ValueError: the workflow has no such input, or several; the message names candidates.
    """
    return [_target_of_field(workflow.graph, column)] if column in _FIELDS else _target_of_address(workflow, column)


def _target_of_field(graph: Graph, column: str) -> Target:
    classes, name, through = _FIELDS[column]
    found = [key for key, node in graph.items() if node["class_type"] in classes and name in node["inputs"]]
    if len(found) > 1 and through:
        starts = [graph[key]["inputs"].get(through) for key in generators(graph)]
        reached = {key for link in starts for key in _upstream(graph, link)}
        found = [key for key in found if key in reached] or found
    if len(found) == 1:
        return found[0], name
    kinds = " or ".join(classes)
    if not found:
        raise ValueError(f"the workflow has no {kinds} with {name!r}, which {column} sets: name the widget as node.widget")
    addresses = ", ".join(f"{key}.{name}" for key in found)
    raise ValueError(f"the workflow has {len(found)} nodes {kinds}: name the one to set, in place of {column}: {addresses}")


def _upstream(graph: Graph, link: object) -> Iterator[str]:
    """Yield the nodes that a link comes from, directly or through others."""
    waiting, seen = [link], set()
    while waiting:
        link = waiting.pop()
        if isinstance(link, list) and len(link) == 2 and link[0] in graph and link[0] not in seen:
            seen.add(link[0])
            yield link[0]
            waiting += graph[link[0]]["inputs"].values()


def _target_of_address(workflow: Workflow, address: str) -> list[Target]:
    known = _addresses(workflow)
    found = known.get(address, [])
    if len(found) == 1:
        return found[0]
    if found:
        others = ", ".join(sorted(name for name, targets in known.items() if targets[0] in found and name != address))
        raise ValueError(f"{len(found)} nodes are called so: use the id of one, {others}")
    widgets = [name for name, targets in known.items() if not _is_link(workflow.graph, *targets[0][0])]
    near = difflib.get_close_matches(address, widgets, n=4, cutoff=0.4) or sorted(widgets)[:8]
    raise ValueError(f"the workflow has no {address!r}: there is {', '.join(near)}")


def _is_link(graph: Graph, node_id: str, name: str) -> bool:
    value = graph[node_id]["inputs"].get(name) if node_id in graph else None
    return isinstance(value, list)


def _addresses(workflow: Workflow) -> dict[str, list[list[Target]]]:
    """Return node.widget, by id and by title -> the inputs of each node that is called so."""
    known: dict[str, list[list[Target]]] = defaultdict(list)
    for key, node in workflow.graph.items():
        for name in node["inputs"]:
            for called in {key, node.get("_meta", {}).get("title", node["class_type"])}:
                known[f"{called}.{name}"].append([(key, name)])
    for key, (title, widgets) in workflow.panels.items():
        for name, targets in widgets.items():
            if targets:
                for called in {key, title}:
                    known[f"{called}.{name}"].append(targets)
    return known
