"""The folder that filename_prefix names. Its patterns may name widgets of the queued graph, as in ComfyUI's Save Image.

The front end replaces such patterns for ComfyUI's own save nodes only, and not in a linked prefix, so this is done here.
"""

import time
from pathlib import Path

import folder_paths

from ...svi_core.files.name_pattern import names_time, with_values
from ...svi_core.store.run_folders import choose_run_folder
from .queued_graph import NotKnown, QueuedGraph


def run_path(prefix: str, graph: QueuedGraph, node_id: str, size: tuple[int, int] | None, plan_key: str | None) -> Path:
    """Return the folder that `prefix` names in ComfyUI's output folder, without creating it.

    Args:
        node_id: the node whose `filename_prefix` it is.
        size: (width, height) of the video in pixels; None if unknown.
        plan_key: of the run's first clip, by which a run with the time in its name finds where it began; empty: begin a folder;
            None if unknown.

    Raises:
        NotKnown: a value that another node makes, an unknown size, or an unknown beginning.
        ValueError: a name that no folder can have, or a pattern that names no node or widget.
    """
    prefix = with_values(prefix, lambda name: _value_of(name, graph, node_id, size))
    if plan_key is None and names_time(prefix):
        raise NotKnown("filename_prefix: names the time, and whether this run began earlier is not known yet")
    return choose_run_folder(Path(folder_paths.get_output_directory()), prefix, plan_key or "", time.localtime())


def _value_of(name: str, graph: QueuedGraph, node_id: str, size: tuple[int, int] | None) -> object:
    """Return the value of ``width``, ``height`` or ``Node.widget``, where Node is a title or a class of a node before this one.

    A change of any other node would not make ComfyUI run this node again.
    """
    if name in ("width", "height"):
        if size is None:
            raise NotKnown(f"filename_prefix: {name} is not known yet")
        return size[name == "height"]
    node_name, _, widget = name.partition(".")
    by_class = [node for node in graph.nodes if graph.class_of(node) == node_name]
    titled = [node for node, entry in graph.nodes.items() if (entry.get("_meta") or {}).get("title") == node_name]
    before = set(graph.upstream(node_id) if node_id in graph.nodes else graph.nodes)  # a loop's copy is not in the graph
    for node in (*by_class, *titled):
        if widget in graph.inputs(node) and node in before:
            try:
                return graph.value(node, widget)
            except NotKnown as error:
                raise NotKnown(f"filename_prefix holds %{name}%, which no widget sets ({error})") from error
    if any(widget in graph.inputs(node) for node in (*by_class, *titled)):
        found = "that node does not lead to this one, so that a change of it would be missed"
    else:
        found = f"the node {node_name!r} has no widget {widget!r}" if by_class or titled else f"no node is called {node_name!r}"
    raise ValueError(
        f"filename_prefix holds %{name}%, but {found}: write %Title.widget% with a title or a class of this graph."
    )
