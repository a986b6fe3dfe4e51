"""The LoRAs that are on a MODEL, whichever node applied them, as its ModelPatcher holds them.

All adapters that ComfyUI reads from one file share one set of loaded keys, by which patches are told apart. SVI LoRA Stack
attaches the names; other nodes leave none, so their names are read from the graph, where number and strengths agree.
"""

import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ...svi_core.files.safetensors_file import read_header
from ...svi_core.systems.applied_loras import AppliedLora
from ...svi_core.systems.lora_variant import LoraVariant, variant_of_lora
from ...svi_core.systems.merged_files import Merged, merged_into
from .node_ids import LORA_STACK
from .queued_graph import NotKnown, QueuedGraph, find_model, is_safetensors, names_a_model

_ATTACHMENT = "svi_applied_loras"  # of a MODEL, kept by its clones
_BYPASS = "bypass_lora"  # ComfyUI's name for LoRAs that are computed beside the weights
_TRANSFORMER = "diffusion_model."
_MODEL_KINDS = ("diffusion_models", "checkpoints", "unet_gguf")
_MERGES = "merges"  # the source of all models that ComfyUI's merge nodes added


@dataclass(frozen=True, eq=False)
class _Applied:
    """What SVI LoRA Stack put on a model: the file, and its patches."""

    name: str
    variant: LoraVariant | None
    patches: tuple[object, ...]


def attach_lora(model, name: str, variant: LoraVariant | None, patches: Mapping[str, object]) -> None:
    """Note on `model`, a clone, that `patches` are those of the file `name`."""
    applied = _Applied(name, variant, tuple(patches.values()))
    model.set_attachments(_ATTACHMENT, (*(model.get_attachment(_ATTACHMENT) or ()), applied))


def loras_on(model, named: Sequence[AppliedLora] = ()) -> tuple[AppliedLora, ...]:
    """Return the LoRAs on `model`, in the order in which they are applied, those last that change nothing of it.

    Args:
        named: LoRAs of other nodes as the graph has them.
    """
    attached = model.get_attachment(_ATTACHMENT) or ()
    of_stack = {_source(patch): applied for applied in attached for patch in applied.patches}
    patched: dict[object, dict[str, float]] = {}  # source: strength by weight
    for key, entries in model.patches.items():
        for strength, patch, *_ in entries if key.startswith(_TRANSFORMER) else ():
            source = of_stack.get(_source(patch)) or _source_of_others(patch, strength)
            patched.setdefault(source, {})[key] = strength
    for loose in [source for source in patched if isinstance(source, tuple)]:  # differences in a file that has adapters too
        whole = next((source for source in patched if isinstance(source, int) and loose[1] in patched[source].values()), None)
        if whole is not None:
            patched[whole] |= patched.pop(loose)
    found = [_applied(source, set(weights.values()), len(weights)) for source, weights in patched.items()]
    if getattr(model, "injections", {}).get(_BYPASS):
        found.append(AppliedLora("", None))
    return _with_names(found, [lora for lora in named if lora.acts])


def merged_at(graph: QueuedGraph, node_id: str, name: str, file: str | None) -> Merged:
    """Return what is merged into the model at the input `name`: by nodes on its way, or into its `file`, by name and header.

    A node that takes two models counts too: it may switch between experts by itself.
    """
    path, metadata = find_model(file)[1] if file else None, {}
    if path is not None and is_safetensors(path):
        try:
            metadata = read_header(path).get("__metadata__", {})
        except ValueError as error:  # SVI Plan names it; a run's loader has read it all the same
            logging.info("SVI: the header of %s is not read (%s).", file, error)
    merged, nodes = merged_into(file, metadata), [link.node_id for link in graph.model_chain(node_id, name)]
    is_merge = any("merge" in graph.class_of(node).lower() or _joins_models(graph, node) for node in nodes)
    return replace(merged, is_merge=merged.is_merge or is_merge)


def _joins_models(graph: QueuedGraph, node_id: str) -> bool:
    """Return whether a node takes a model by an input not called `model`, and files of two or more models reach it."""
    if graph.class_of(node_id) == LORA_STACK or not graph.links(node_id, {"model", "clip"}):
        return False
    values = (value for node in graph.upstream(node_id) for value in graph.inputs(node).values())
    return len({value for value in values if names_a_model(value) and find_model(str(value))[0] in _MODEL_KINDS}) > 1


def loras_in_graph(graph: QueuedGraph, node_id: str, name: str) -> tuple[AppliedLora, ...]:
    """Return the LoRAs of other nodes than ours on the way to the input `name` of a node, in the order of application."""
    nodes = [link.node_id for link in graph.model_chain(node_id, name)][-2::-1]
    others = [node for node in nodes if graph.class_of(node) != LORA_STACK]
    rows = [row for node in others for row in loader_rows(graph, node)]
    return tuple(AppliedLora(file, strength, variant_of_lora(file, {})) for file, strength in rows)


def with_likely_svi(
    found: Sequence[AppliedLora], named: Sequence[AppliedLora], graph: QueuedGraph, node_id: str, name: str
) -> tuple[AppliedLora, ...]:
    """Return `found`, one nameless LoRA as SVI's if a file of SVI comes to the input `name` by a switch or a list of LoRAs.

    Where a chain of loaders names more LoRAs than are nameless, one was dropped, so nothing is likely.

    Args:
        found: see :func:`loras_on`.
        named: see :func:`loras_in_graph`.
    """
    nameless = [index for index, lora in enumerate(found) if not lora.name]
    known = {lora.name for lora in found}
    unassigned = [lora for lora in named if lora.acts and lora.name not in known]
    if not nameless or len(unassigned) > len(nameless):
        return tuple(found)
    candidates = (*unassigned, *svi_files_behind(graph, node_id, name, known))
    likely = next((lora.variant for lora in candidates if lora.variant), None)
    return tuple(replace(lora, variant=likely) if index == nameless[0] else lora for index, lora in enumerate(found))


def svi_files_behind(graph: QueuedGraph, node_id: str, name: str, known: Collection[str]) -> Iterator[AppliedLora]:
    """Yield the LoRAs of SVI, by their names and besides `known`, that reach the input `name` beside its chain of loaders."""
    chain = [link.node_id for link in graph.model_chain(node_id, name)]
    others = [node for node in chain if graph.class_of(node) != LORA_STACK]
    beside = (link.node_id for node in others for link in graph.links(node, {"model", "clip"}))
    for node in dict.fromkeys(node for begin in beside for node in graph.upstream(begin)):
        for file, strength in loader_rows(graph, node):
            variant = variant_of_lora(file, {})
            if variant is not None and strength != 0 and file not in known:
                yield AppliedLora(file, strength, variant)


def loader_rows(graph: QueuedGraph, node_id: str) -> list[tuple[str, float | None]]:
    """Return the (file, strength) of each LoRA that a node of ComfyUI or of another pack names; None if it is not known.

    Some nodes keep each row in one widget: {"on": true, "lora": "a.safetensors", "strength": 1.0}.
    """
    rows = list[tuple[str, float | None]]()
    for value in graph.inputs(node_id).values():
        if isinstance(value, Mapping) and names_a_model(value.get("lora")):
            rows.append((str(value["lora"]), _number(value.get("strength")) if value.get("on", True) else 0.0))
        elif names_a_model(value):
            rows.append((str(value), _strength(graph, node_id)))
    return rows


def _strength(graph: QueuedGraph, node_id: str) -> float | None:
    try:
        return _number(graph.value(node_id, "strength_model"))
    except NotKnown:
        return None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _source(patch: object) -> object:
    """Return what all adapters of one file share, or what tells a patch of another kind from others."""
    return id(getattr(patch, "loaded_keys", patch))


def _source_of_others(patch: object, strength: float) -> object:
    """Return the source of a patch of another node; those of one strength that are no adapters count as one.

    ComfyUI's merge nodes patch a list: another model's weight, and what is on it.
    """
    if isinstance(patch, list):
        return _MERGES
    return _source(patch) if hasattr(patch, "loaded_keys") else ("", strength)


def _applied(source: object, strengths: set[float], num_weights: int) -> AppliedLora:
    strength = strengths.pop() if len(strengths) == 1 else None  # some nodes give each block its own
    if isinstance(source, _Applied):
        return AppliedLora(source.name, strength, source.variant, num_weights)
    return AppliedLora("", strength, None, num_weights, is_merge=source == _MERGES)


def _with_names(found: list[AppliedLora], named: Sequence[AppliedLora]) -> tuple[AppliedLora, ...]:
    """Return `found` with the names of the graph, where it has as many nameless LoRAs of the same strength."""
    nameless = [index for index, lora in enumerate(found) if not lora.name and not lora.is_merge]
    strengths: set[float | None] = {lora.strength for lora in named}
    if None in strengths or any(found[index].strength is None for index in nameless):
        strengths = {None}
    for asked in strengths:
        files = [lora for lora in named if asked in (None, lora.strength)]
        places = [index for index in nameless if asked in (None, found[index].strength)]
        if len(files) == len(places):
            for index, file in zip(places, files, strict=True):
                strength = file.strength if found[index].strength is None else found[index].strength
                found[index] = replace(found[index], name=file.name, strength=strength, variant=file.variant)
        elif not places:
            found += [replace(file, num_weights=0) for file in files]
    return tuple(found)
