"""Read a run's models, LoRAs and layout from the queued graph and the headers of its files."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from ...svi_core.dry_run.requested_run import ExpertModel, LoraUse, ModelFile
from ...svi_core.files.safetensors_file import read_header
from ...svi_core.systems.layouts import LAYOUTS, Layout
from ...svi_core.systems.lora import expert_named_in, header_shapes, lora_keys
from ...svi_core.systems.lora_variant import resolve_layout, variant_of_lora
from ..bridge.applied_loras import loader_rows, merged_at, svi_files_behind
from ..bridge.lora_patches import is_ignored
from ..bridge.models import require_i2v_file
from ..bridge.queued_graph import MODEL_INPUTS, checkpoint_names, find_model, is_safetensors, model_files
from ..layouts import SVILayout, ask_layout
from ..lora import NONE, LoraRow, SVILora, SVILoraStack, lora_row
from ..lora_presets import SVILoraPreset, preset_row
from .graph_reader import STOCK, GraphReader

_STOCK_LOADERS = ("LoraLoader", "LoraLoaderModelOnly")


def read_model_files(reader: GraphReader, loop: str) -> tuple[dict[str, dict], tuple[ModelFile, ...]]:
    """Return the metadata (by name) and the description of every model file in the graph; reads headers only."""
    metadata, files, checkpoints = {}, [], checkpoint_names(reader.graph, loop)
    for file in model_files(reader.graph, loop):
        complaint = ""
        if file.path is not None and is_safetensors(file.path):
            try:
                header = read_header(file.path)
                metadata[file.name] = header.get("__metadata__", {})
                if file.kind == "loras":
                    lora_keys(file.name, header_shapes(header))
                if file.name in checkpoints:
                    require_i2v_file(file.path, file.name)
            except ValueError as error:
                complaint = str(error)
        num_bytes = None if file.path is None else file.path.stat().st_size
        files.append(ModelFile(file.name, file.kind, num_bytes, complaint))
    return metadata, tuple(files)


def read_experts(
    reader: GraphReader, loop: str, rows: Sequence[LoraRow], metadata: Mapping[str, dict]
) -> tuple[ExpertModel, ...]:
    """Return the models of the SVI Generate `loop` with their LoRAs: those on the models, and `rows` of its input loras."""
    names = checkpoint_names(reader.graph, loop)
    sides = ("model",) if len(names) == 1 else ("high", "low")
    experts = []
    for side, checkpoint, name in zip(sides, names, MODEL_INPUTS, strict=False):
        uses = [*_loras_on(reader, loop, name, checkpoint), *_uses_of(rows, side == "low")]
        loras = tuple(_with_header(use, metadata.get(use.name, {})) for use in uses)
        known = {checkpoint, *(use.name for use in uses)}
        likely = tuple(svi_files_behind(reader.graph, loop, name, known))
        merged = merged_at(reader.graph, loop, name, checkpoint)
        experts.append(ExpertModel(side, checkpoint, loras, likely, merged))
    return tuple(experts)


def read_rows(reader: GraphReader, node: str) -> list[LoraRow]:
    """Return the LoRA rows at the input loras of a node, last first, without unknown files; unknown strengths are 1."""
    rows = []
    for row in reader.graph.chain(node, "loras"):
        if reader.is_a(row, SVILora):
            rows.append(reader.or_default(row, SVILora, lora_row))
        elif reader.is_a(row, SVILoraPreset):
            rows.append(reader.or_default(row, SVILoraPreset, preset_row))
    return rows


def read_layout(reader: GraphReader, loop: str, experts: Sequence[ExpertModel]) -> Layout:
    """Return the layout of the SVI Generate `loop`; for auto, the LoRAs of `experts` decide.

    Raises:
        ValueError: no LoRA decides, or SVI Layout's values do not fit.
    """
    if reader.graph.link(loop, "layout") is None:
        return LAYOUTS["2.0 Pro"]
    layout = reader.source(loop, "layout", SVILayout)
    if layout is None:
        raise ValueError(f"layout: comes from {reader.origin(loop, 'layout')}: connect SVI Layout directly.")
    asked = reader.required(layout, SVILayout, ask_layout)
    if isinstance(asked, Layout):
        return asked  # a LoRA that contradicts it only causes a warning
    uses = (use for expert in experts for use in expert.loras if use.is_checked and use.strength)
    return resolve_layout(asked, dict.fromkeys(use.variant for use in uses if use.variant))


def _loras_on(reader: GraphReader, loop: str, name: str, checkpoint: str | None) -> Iterator[LoraUse]:
    """Yield the LoRAs on the model at the input `name`."""
    for link in list(reader.graph.model_chain(loop, name))[:-1]:
        if reader.is_a(link.node_id, SVILoraStack):
            yield from _uses_of(read_rows(reader, link.node_id), link.slot == 1)
            continue
        for file, strength in loader_rows(reader.graph, link.node_id):
            if strength is None:
                reader.known(link.node_id, STOCK, lambda strength_model: strength_model)  # says who makes it
            changes_nothing = reader.graph.class_of(link.node_id) in _STOCK_LOADERS and _is_ignored(checkpoint, file)
            yield LoraUse(file, 1.0 if strength is None else strength, is_checked=False, changes_nothing=changes_nothing)


def _is_ignored(checkpoint: str | None, lora: str) -> bool:
    """Whether ComfyUI's own loader would change nothing of the file `checkpoint` with the file `lora`, as far as is known."""
    paths = [find_model(name)[1] for name in (checkpoint, lora) if name is not None]
    known = [path for path in paths if path is not None and is_safetensors(path)]
    return len(known) == 2 and is_ignored(*known)


def _uses_of(rows: Sequence[LoraRow], is_low: bool) -> Iterator[LoraUse]:
    sides = (row.sides[1 if is_low else 0] for row in rows)
    return (LoraUse(name, strength) for name, strength in sides if name != NONE)


def _with_header(use: LoraUse, metadata: dict) -> LoraUse:
    """Return `use` with the expert and the SVI system that the file's name or header states."""
    return replace(use, named_for=expert_named_in(use.name, metadata), variant=variant_of_lora(use.name, metadata))
