"""What ComfyUI's app mode shows of a workflow: a form of the widgets that people change, and a player of the video.

The front end reads it from `extra.linearData`: [node id, widget name] of each entry of the form, and the ids of the nodes
whose results it plays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dev.workflows.graph_nodes import Node

FORM = (  # (node type, its widgets) in the order of the form
    ("LoadImage", ("image",)),
    ("LoadVideo", ("file",)),
    ("LoadAudio", ("audio",)),
    ("SVIStoryline", ("subject", "kind", "place", "prefix", "num_clips")),
    ("SVIPromptStream", ("text",)),
    ("SVIRepeatClips", ("num_clips",)),
    ("SVIGenerate", ("num_clips", "seed")),
    ("SVIBeginVideo", ("seed",)),
    ("SVIAnchorEncode", ("width", "height")),
)
FOLDED = ("num_clips", "seed", "width", "height")  # of a subgraph
PLAYERS = ("SVIShowVideo", "SaveVideo")
TEXT_HEIGHT = 190  # of prompts, in pixels


def linear_data(nodes: Sequence[Node], more: Sequence[tuple[Node, str]] = ()) -> dict[str, list[Any]]:
    """Return the form and the results of a graph; `more` widgets follow behind those that every graph shows."""
    wanted = [(node, name) for kind, names in FORM for node in nodes if node.type == kind for name in names]
    wanted += [(node, name) for node in nodes if "proxyWidgets" in node.properties for name in FOLDED]
    shown: list[Any] = [
        [node.id, name, *([{"height": TEXT_HEIGHT}] if name == "text" else [])]
        for node, name in (*wanted, *more)
        if name in node.values and name not in node.links
    ]
    return {"inputs": shown, "outputs": [node.id for node in nodes if node.type in PLAYERS]}
