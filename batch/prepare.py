"""Put a story into a workflow: the graph to queue, and the files that the server needs for it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from batch.media import check_image, check_recording, name_by_content
from batch.story import WORKFLOW, Cell, Story
from batch.workflow.addresses import generators, targets_of
from batch.workflow.convert import Graph, Target, Workflow
from batch.workflow.node_inputs import (
    InputSpec,
    ObjectInfo,
    choices,
    is_widget,
    options_of,
    specs_in_use,
    takes_a_file,
)
from batch.workflow.typed_value import typed_value
from svi_core.files.fingerprint import fingerprint
from svi_core.schedule.prompt_lists import PromptSplit
from svi_core.schedule.text import parse_story

FOLDER = "svi_batch"  # in the server's input and output folder
_MODEL_SUFFIXES = (".safetensors", ".sft", ".gguf", ".ckpt", ".pt", ".pth", ".bin")
_VERSION = 1  # of the graphs that are made from the same rows; a new one makes every story again


@dataclass(frozen=True)
class PreparedStory:
    """A story that a server can run.

    Attributes:
        graph: in API format.
        uploads: name in the server's input folder FOLDER -> file here.
        num_clips: of its runs together; 0 if the graph does not tell.
        key: changes with all that determines the video.
    """

    story: Story
    graph: Graph
    uploads: Mapping[str, Path]
    num_clips: int
    key: str

    @cached_property
    def models(self) -> frozenset[str]:
        """The model files that the graph names."""
        values = (value for node in self.graph.values() for value in node["inputs"].values())
        return frozenset(value for value in values if isinstance(value, str) and value.lower().endswith(_MODEL_SUFFIXES))


def prepare(story: Story, workflow: Workflow, object_info: ObjectInfo, batch_name: str) -> PreparedStory:
    """Return `story` as a graph for a server with these nodes.

    Raises:
        StoryError: a value that the workflow or the server cannot take; it names the cell.
    """
    graph = copy.deepcopy(workflow.graph)
    uploads: dict[str, Path] = {}
    given: set[Target] = set()
    for column, cell in story.cells.items():
        if column == WORKFLOW:
            continue
        try:
            for target in targets_of(workflow, column):
                graph[target[0]]["inputs"][target[1]] = _value(story, cell, target, graph, object_info, uploads)
                given.add(target)
            if column == "prompts":
                _count_clips(story, graph, targets_of(workflow, column)[0], given)
        except ValueError as error:
            raise story.error(column, str(error)) from error
    _name_results(graph, f"{FOLDER}/{batch_name}", story.name, given)
    if complaint := what_is_lacking(graph, object_info):
        raise story.error("", complaint)
    try:
        num_clips = sum(_num_clips(graph, key) for key in generators(graph))
    except ValueError as error:
        raise story.error("", f"the prompts of the workflow: {error}") from error
    return PreparedStory(story, graph, uploads, num_clips, fingerprint("story", _VERSION, _what_counts(graph)))


def _what_counts(graph: Graph) -> dict[str, dict[str, object]]:
    """Return what of a graph determines the video: not how nodes are called, nor where they write."""
    return {
        key: {
            "class_type": node["class_type"],
            "inputs": {name: value for name, value in node["inputs"].items() if name != "filename_prefix"},
        }
        for key, node in graph.items()
    }


def _value(story: Story, cell: Cell, target: Target, graph: Graph, object_info: ObjectInfo, uploads: dict[str, Path]) -> object:
    """Return what a cell gives an input; a file here is added to `uploads`. Raises ValueError."""
    node = graph[target[0]]
    definition = object_info.get(node["class_type"])
    if definition is None:
        raise ValueError(_unknown_node(target[0], node))
    spec = specs_in_use(definition, node["inputs"]).get(target[1])
    if spec is None or not is_widget(spec):
        raise ValueError(f"{target[1]} of {_called(target[0], node)} is no widget: it takes a link from another node")
    if not takes_a_file(spec):
        return typed_value(cell.value, spec)
    file = story.path(cell.value)
    if not file.is_file():
        if cell.value in (choices(spec) or ()):
            return cell.value
        raise ValueError(f"{file} is not there")
    _check_media(file, spec)
    name = name_by_content(file)
    uploads[name] = file
    return f"{FOLDER}/{name}"


def _check_media(file: Path, spec: InputSpec) -> None:
    if options_of(spec).get("image_upload"):
        check_image(file)
    else:
        check_recording(file)


def _count_clips(story: Story, graph: Graph, target: Target, given: set[Target]) -> None:
    """Check the prompts, and make as many clips as they describe unless something else decides."""
    num_prompts = _num_prompts(graph, target[0])
    if {"clips", "sound", "pose"} & story.cells.keys():
        return
    for key in generators(graph):
        num_clips = graph[key]["inputs"].get("num_clips")
        if isinstance(num_clips, int) and num_clips > 0 and (key, "num_clips") not in given:
            graph[key]["inputs"]["num_clips"] = num_prompts


def _num_prompts(graph: Graph, node_id: str) -> int:
    """Return how many clips the text of an SVI Prompt Stream describes, 0 if unknown. Raises ValueError for a mistake in it."""
    inputs = graph[node_id]["inputs"]
    split = inputs.get("split", PromptSplit.PARAGRAPHS)
    if isinstance(split, list):  # a link
        return 0
    return len(parse_story([inputs["text"]], PromptSplit(split)))


def _num_clips(graph: Graph, generator: str) -> int:
    """Return the number of clips of a run: its own, or that of its prompts if it is linked or 0; 0 if neither tells."""
    own, prompts = (graph[generator]["inputs"].get(name) for name in ("num_clips", "prompts"))
    if isinstance(own, int) and own > 0:
        return own
    node_id = str(prompts[0]) if isinstance(prompts, list) else ""
    stream = graph.get(node_id, {})
    is_text = stream.get("class_type") == "SVIPromptStream" and isinstance(stream["inputs"].get("text"), str)
    return _num_prompts(graph, node_id) if is_text else 0


def _name_results(graph: Graph, base: str, story: str, given: set[Target]) -> None:
    """Give every node that writes a name of its own for this story, unless the table names it."""
    runs = generators(graph)
    for key, node in graph.items():
        prefix = node["inputs"].get("filename_prefix")
        if not isinstance(prefix, str) or (key, "filename_prefix") in given:
            continue
        if key in runs:
            node["inputs"]["filename_prefix"] = f"{base}/runs/{story}" + (f"/{key.replace(':', '_')}" if len(runs) > 1 else "")
        else:
            node["inputs"]["filename_prefix"] = (
                f"{base}/saved/{story}/{prefix.replace(chr(92), '/').rpartition('/')[2] or 'file'}"
            )


def what_is_lacking(graph: Graph, object_info: ObjectInfo) -> str:
    """Return what a server with these nodes would refuse: unknown nodes and choices; "" if nothing."""
    complaints = []
    for key, node in graph.items():
        definition = object_info.get(node["class_type"])
        if definition is None:
            complaints.append(_unknown_node(key, node))
            continue
        specs = specs_in_use(definition, node["inputs"])
        for name, value in node["inputs"].items():
            if name in specs and _is_choice(value, specs[name]):
                try:
                    typed_value(value, specs[name])
                except ValueError as error:
                    complaints.append(f"{name} of {_called(key, node)}: {error}")
    return "; ".join(complaints)


def _is_choice(value: object, spec: InputSpec) -> bool:
    """Whether a value must be among the choices of its input; files in subfolders are not listed there."""
    if isinstance(value, (list, dict)) or choices(spec) is None or options_of(spec).get("multiselect"):
        return False
    return not (takes_a_file(spec) and "/" in str(value))


def _called(key: str, node: Mapping[str, Any]) -> str:
    title = node.get("_meta", {}).get("title", node["class_type"])
    return f"node {key} ({title})"


def _unknown_node(key: str, node: Mapping[str, Any]) -> str:
    return f"{_called(key, node)} has the type {node['class_type']!r}, which the server does not know: install its pack there"
