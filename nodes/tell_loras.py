"""Tell the log which LoRAs a run of SVI Generate has on its models, and warn where the SVI LoRA is missing."""

import logging
from collections.abc import Iterator

from ..svi_core.schedule.spec import ClipSpec
from ..svi_core.systems.applied_loras import AppliedLora, ExpertLoras, loras_at_a_glance, missing_lora_warnings
from ..svi_core.systems.layouts import Layout
from ..svi_core.systems.lora_variant import require_lora_variants
from .bridge.applied_loras import loras_in_graph, loras_on, merged_at, with_likely_svi
from .bridge.browsers import warn
from .bridge.queued_graph import MODEL_INPUTS, QueuedGraph, checkpoint_names
from .clip_sampler import ClipSampler
from .lora import NONE, with_strengths


def tell_loras(sampler: ClipSampler, first: ClipSpec, layout: Layout, graph: QueuedGraph, node_id: str) -> None:
    """Log the LoRAs of the models of `sampler`, with those of its rows at the strengths of the `first` clip."""
    experts = list(_experts(sampler, first, graph, node_id))
    logging.info("SVI Generate: LoRAs: %s.", loras_at_a_glance(experts))
    for warning in (*missing_lora_warnings(experts, layout), *_contradictions(experts, layout)):
        warn("SVI Generate", warning)


def _experts(sampler: ClipSampler, first: ClipSpec, graph: QueuedGraph, node_id: str) -> Iterator[ExpertLoras]:
    models = [model for model in (sampler.model, sampler.model_low_noise) if model is not None]
    sides = ("model",) if len(models) == 1 else ("high", "low")
    files = checkpoint_names(graph, node_id)
    for index, (side, model, name) in enumerate(zip(sides, models, MODEL_INPUTS, strict=False)):
        named = loras_in_graph(graph, node_id, name)
        found = with_likely_svi(loras_on(model, named), named, graph, node_id, name)
        rows = (row.sides[index] for row in with_strengths(sampler.loras, first.loras))
        variants = sampler.variants_of_rows
        of_rows = (AppliedLora(file, strength, variants.get(file)) for file, strength in rows if file != NONE and strength)
        merged = merged_at(graph, node_id, name, files[index] if index < len(files) else None)
        yield ExpertLoras(side, (*found, *of_rows), merged)


def _contradictions(experts: list[ExpertLoras], layout: Layout) -> Iterator[str]:
    """Yield a warning for each LoRA of another node that names another SVI system; those of ours are refused before."""
    variants = {lora.name: lora.variant for expert in experts for lora in expert.loras if lora.acts and lora.variant}
    for variant in variants.values():
        try:
            require_lora_variants(layout, [variant])
        except ValueError as error:
            yield f"{error} Clips will drift or turn to noise."
