"""The queued graph as data, readable before any node executes.

ComfyUI gives a node the whole graph in API format, {node id: {"class_type": ..., "inputs": {name: value or [node id, slot]}}}.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import comfy.cli_args
import folder_paths

from ...svi_core.files.fingerprint import fingerprint, large_file_fingerprint
from .node_ids import ANCHOR_ENCODE, LORA_STACK

MODEL_INPUTS = ("model", "model_low_noise")
MODEL_SUFFIXES = (".safetensors", ".sft", ".gguf", ".ckpt", ".pt", ".pth", ".bin")
# Inputs of SVI Generate that are part of a clip's own key, or that change a run's files but not its clips.
_NOT_IN_HASH = {"num_clips", "seed", "seed_mode", "filename_prefix", "output", "layout", "continue_from"}
_SCHEDULE_WIDGETS = {"text", "split", "file", "until_stopped"}
# Widgets that came after a release, and which mean nothing unless another widget has this value: graphs of before stay equal.
_READ_ONLY_WITH = {(ANCHOR_ENCODE, "megapixels"): ("size_rule", "megapixels")}
_NOT_MODELS = {"custom_nodes", "configs"}


class NotKnown(ValueError):
    """A value that is only known after another node has run."""


@dataclass(frozen=True)
class Link:
    """One end of a wire: the output `slot` of the node `node_id`."""

    node_id: str
    slot: int


@dataclass(frozen=True)
class QueuedGraph:
    """A graph in API format. Nodes are named by their ids."""

    nodes: Mapping[str, Mapping]

    def class_of(self, node_id: str) -> str:
        """Return the class of a node, or "" if it is not in the graph."""
        return self.nodes.get(node_id, {}).get("class_type", "")

    def of_class(self, name: str) -> list[str]:
        """Return the nodes of a class."""
        return [node for node in self.nodes if self.class_of(node) == name]

    def inputs(self, node_id: str) -> Mapping[str, object]:
        """Return a node's inputs: literals, and links as [node id, slot]."""
        return self.nodes.get(node_id, {}).get("inputs", {})

    def title(self, node_id: str) -> str:
        """Return a node's title (or its class) with its id, for messages."""
        title = (self.nodes.get(node_id, {}).get("_meta") or {}).get("title") or self.class_of(node_id)
        return f"{title} (node {node_id})"

    def link(self, node_id: str, name: str) -> Link | None:
        """Return the source of the input `name` of a node, or None for a literal or an empty input."""
        return as_link(self.inputs(node_id).get(name))

    def links(self, node_id: str, left_out: Collection[str] = ()) -> list[Link]:
        """Return the sources of a node's linked inputs, except those in `left_out`."""
        links = (as_link(value) for name, value in self.inputs(node_id).items() if name not in left_out)
        return [link for link in links if link is not None]

    def value(self, node_id: str, name: str, default: object = None) -> object:
        """Return the literal of a widget or of a linked primitive node.

        Raises:
            NotKnown: any other node is linked.
        """
        value = self.inputs(node_id).get(name, default)
        source = as_link(value)
        if source is None:
            return value
        if set(self.inputs(source.node_id)) == {"value"}:
            return self.value(source.node_id, "value")
        raise NotKnown(f"{name}: comes from {self.title(source.node_id)}")

    def upstream(self, node_id: str) -> list[str]:
        """Return `node_id` and all nodes that it depends on, nearest first."""
        found = [node_id]
        for current in found:  # grows during the loop: breadth first
            found += dict.fromkeys(link.node_id for link in self.links(current) if link.node_id not in found)
        return [node for node in found if node in self.nodes]

    def chain(self, node_id: str, name: str) -> Iterator[str]:
        """Yield the nodes of a chain that is linked by inputs called `name`, starting behind `node_id`."""
        seen = {node_id}
        link = self.link(node_id, name)
        while link is not None and link.node_id not in seen:
            seen.add(link.node_id)
            yield link.node_id
            link = self.link(link.node_id, name)

    def model_chain(self, node_id: str, name: str) -> Iterator[Link]:
        """Yield the outputs that a MODEL passes on its way to the input `name` of a node, the loader's last."""
        seen = {node_id}
        link = self.link(node_id, name)
        while link is not None and link.node_id not in seen:
            seen.add(link.node_id)
            yield link
            is_second = self.class_of(link.node_id) == LORA_STACK and link.slot == 1
            link = self.link(link.node_id, "model_low_noise" if is_second else "model")

    def other_users(self, node_id: str, besides: set[str]) -> list[str]:
        """Return the nodes that use an output of `node_id`, except those in `besides`."""
        takers = (taker for taker in self.nodes if taker not in besides)
        return [taker for taker in takers if node_id in (link.node_id for link in self.links(taker))]


def executed_graph(dynprompt) -> QueuedGraph:
    """Return the queued graph with the nodes that others have expanded into, from ComfyUI's hidden input."""
    return QueuedGraph({node: dynprompt.get_node(node) for node in dynprompt.all_node_ids()})


def require_full_denoise(graph: QueuedGraph, node_id: str) -> None:
    """Raise ValueError if the scheduler behind the input `sigmas` of a node leaves out a part of the noise.

    Nodes that split finished sigmas on purpose are passed over, and a value that another node makes is not known.
    """
    *_, scheduler = ("", *graph.chain(node_id, "sigmas"))
    try:
        denoise = graph.value(scheduler, "denoise", 1.0)
    except NotKnown:
        return
    if isinstance(denoise, int | float) and denoise < 1.0:
        raise ValueError(
            f"denoise of {graph.title(scheduler)} is {denoise:g}, but every clip begins as pure noise, not as a picture: set "
            "denoise to 1."
        )


@dataclass(frozen=True)
class FileName:
    """A model file that a node names.

    Attributes:
        node_id: the node.
        name: the widget's value.
        kind: ComfyUI's folder, such as "diffusion_models"; "" if missing.
        path: the file, or None if missing.
    """

    node_id: str
    name: str
    kind: str
    path: Path | None


def model_files(graph: QueuedGraph, node_id: str) -> Iterator[FileName]:
    """Yield every model file that `node_id` or a node upstream of it names, each once."""
    seen = set()
    for node in graph.upstream(node_id):
        for value in graph.inputs(node).values():
            if names_a_model(value) and value not in seen:
                seen.add(value)
                yield FileName(node, value, *find_model(value))


def checkpoint_names(graph: QueuedGraph, node_id: str) -> tuple[str | None, ...]:
    """Return the model file behind each linked model input of an SVI Generate; None where no loader names one."""
    names = []
    for name in MODEL_INPUTS:
        links = list(graph.model_chain(node_id, name))
        if links:
            values = graph.inputs(links[-1].node_id).values()
            names.append(next((value for value in values if names_a_model(value)), None))
    return tuple(names)


def graph_hash(prompt: Mapping[str, Mapping], node_id: str) -> str:
    """Return a hash of everything in the graph that affects the clips of the SVI Generate `node_id`, for ClipPlan.graph_hash.

    Prompts, seeds and lengths are part of each clip's own key instead. Files enter with their current content. A node that is
    not in the graph (made by node expansion) has the hash "".
    """
    graph = QueuedGraph(prompt or {})
    if node_id not in graph.nodes:
        return ""
    prompts = graph.link(node_id, "prompts")
    return _hash_of(graph, node_id, {node_id: _NOT_IN_HASH} | ({prompts.node_id: _SCHEDULE_WIDGETS} if prompts else {}))


def stage_hash(graph: QueuedGraph, source: Link, given: Collection[str]) -> str:
    """Return a hash of the nodes between the nodes `given` and the output `source`; files as in `graph_hash`."""
    left_out = {node: graph.inputs(node).keys() for node in given}
    return fingerprint(_hash_of(graph, source.node_id, left_out), source.slot)


def _hash_of(graph: QueuedGraph, node_id: str, left_out: Mapping[str, Collection[str]]) -> str:
    """Return a hash of a node and of all that it depends on, except through inputs `left_out`."""
    hashes: dict[str, str] = {}
    for node in ancestors_first(graph, node_id, left_out):
        skipped = {*left_out.get(node, ()), *_unread(graph, node)}
        inputs = {name: value for name, value in graph.inputs(node).items() if name not in skipped}
        parts = {name: _hash_part(value, hashes) for name, value in inputs.items()}
        hashes[node] = fingerprint(graph.class_of(node), parts)
    return hashes[node_id]


def _unread(graph: QueuedGraph, node_id: str) -> Iterator[str]:
    """Yield the widgets of a node that the values of others leave unread; a linked one may have any value."""
    for (kind, name), (decider, value) in _READ_ONLY_WITH.items():
        given = graph.inputs(node_id).get(decider)
        if graph.class_of(node_id) == kind and as_link(given) is None and given != value:
            yield name


def _hash_part(value: object, hashes: Mapping[str, str]) -> object:
    link = as_link(value)
    if link is not None:
        return (hashes.get(link.node_id, ""), link.slot)
    return (value, _stamp(value))


def ancestors_first(graph: QueuedGraph, node_id: str, left_out: Mapping[str, Collection[str]]) -> list[str]:
    """Return `node_id` and its dependencies, except through inputs `left_out`, each node after those that it needs."""
    order: list[str] = []
    seen: set[str] = set()
    waiting = [(node_id, False)]
    while waiting:
        node, is_ready = waiting.pop()
        if is_ready:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            waiting.append((node, True))
            skipped = left_out.get(node, ())
            waiting += [(link.node_id, False) for link in graph.links(node, skipped) if link.node_id not in seen]
    return order


def as_link(value: object) -> Link | None:
    """Return an input's value as a link, or None for a literal."""
    if isinstance(value, list | tuple) and len(value) == 2 and isinstance(value[0], str) and isinstance(value[1], int):
        return Link(value[0], value[1])
    return None


def names_a_model(value: object) -> bool:
    """Whether a widget's value looks like the name of a model file."""
    return isinstance(value, str) and value.lower().endswith(MODEL_SUFFIXES) and "\n" not in value


def is_safetensors(path: Path) -> bool:
    """Whether a file is named as one of safetensors, whose header can be read."""
    return path.suffix.lower() in (".safetensors", ".sft")


def find_model(name: str) -> tuple[str, Path | None]:
    """Return (kind of folder, path) of a model file in ComfyUI's folders, or ("", None)."""
    for kind in folder_paths.folder_names_and_paths:
        path = None if kind in _NOT_MODELS else folder_paths.get_full_path(kind, name)
        if path is not None:
            return kind, Path(path)
    return "", None


def _stamp(value: object) -> object:
    """Return the size and time of the model file, or a hash of the input file, that a literal names; None if no file."""
    if not isinstance(value, str) or not 0 < len(value) <= 255 or "\n" in value or "\0" in value:
        return None
    try:
        if names_a_model(value):
            path = find_model(value)[1]
            return path and (path.stat().st_size, path.stat().st_mtime_ns)
        path = find_input(value)
        return path and large_file_fingerprint(path)
    except OSError:  # deleted or unreadable: its loader will report it
        return None


def find_input(name: str) -> Path | None:
    """Return the file `name` in ComfyUI's input folder (or, as ``name [output]``, in another folder), or None."""
    try:
        path = Path(folder_paths.get_annotated_filepath(name))
    except ValueError:
        return None
    return path if path.is_file() else None


def embedded_graph(hidden) -> dict[str, object]:
    """Return the graph to embed into a video file; nothing with ComfyUI's --disable-metadata."""
    if comfy.cli_args.args.disable_metadata:
        return {}
    return {"prompt": hidden.prompt, **(hidden.extra_pnginfo or {})}
