"""The nodes for distilled models: sigmas per expert, and rows with preset strengths."""

import json
import sys
from pathlib import Path

import pytest
import torch

from tests.e2e.graphs import HIGH, LOW, node

ROOT = Path(__file__).resolve().parents[2]


def test_the_parts_are_those_of_the_whole(pack):
    sigmas, boundary, high, low = pack.nodes.SVIFewStepSigmas.execute(3, 5, 5.0, 0.875).args
    assert boundary == 0.875 and len(high) == 4 and len(low) == 6
    assert torch.equal(high, sigmas[:4]) and torch.equal(low, sigmas[3:])


def test_four_steps_are_those_of_comfyuis_simple_scheduler_at_the_same_shift(pack, comfy):
    """So that an existing distilled workflow gives the same clips."""
    import comfy.model_sampling
    import comfy.samplers

    class Sampling(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
        pass

    sampling = Sampling()
    sampling.set_parameters(shift=5.0, multiplier=1000)
    expected = comfy.samplers.calculate_sigmas(sampling, "simple", 4)
    assert torch.allclose(pack.nodes.SVIFewStepSigmas.execute(2, 2, 5.0, 0.9).args[0], expected, atol=1e-6)


def test_experts_switch_where_the_authors_do_except_with_few_steps(pack):
    """Source: docs/METHOD.md, 4.3 (0.875 as released) and 4.5 (LightX2V)."""

    def default_of(name: str) -> float:
        return next(item.default for item in getattr(pack.nodes, name).define_schema().inputs if item.id == "boundary")

    variants = sys.modules[f"{pack.__name__}.svi_core.systems.variants"].VARIANTS
    assert {variant.boundary for variant in variants.values()} == {None, 0.875}
    assert (default_of("SVIGenerate"), default_of("SVIFewStepSigmas")) == (0.875, 0.9)


@pytest.mark.parametrize(
    "name",
    [
        "workflows/1 Long video from one image",
        "workflows/2 Long story with cuts",
        "workflows/4 Continue a video",
        "workflows/Unfolded 2.0 Pro",
        "demo/svi_tiny_demo",
    ],
)
def test_distilled_workflows_and_the_demo_keep_their_boundary(name):
    workflow = json.loads((ROOT / f"{name}.json").read_text(encoding="utf-8"))
    graphs = [workflow, *workflow.get("definitions", {}).get("subgraphs", [])]
    nodes = [item for graph in graphs for item in graph["nodes"]]
    values = next(item["widgets_values"] for item in nodes if item["type"] == "SVIGenerate")
    assert 0.9 in values and 0.875 not in values


def test_bad_values_are_refused_when_queued(pack):
    refused = pack.nodes.SVIFewStepSigmas.validate_inputs(steps_high_noise=0, steps_low_noise=2, shift=5.0, boundary=0.9)
    assert isinstance(refused, str) and "steps_high_noise is 0" in refused


@pytest.mark.parametrize(
    ("preset", "high", "low"),
    [("SVI or style, as trained: 1 and 1", 1.0, 1.0), ("distilled, with motion: 0.6 and 1", 0.6, 1.0),
     ("distilled for Wan 2.1, on Wan 2.2: 1.5 and 1.5", 1.5, 1.5)],
)  # fmt: skip
def test_a_preset_row_has_the_strengths_of_its_name(pack, preset, high, low):
    before = pack.nodes.SVILora.execute("svi.safetensors", 0.9, "none", 1.0).args[0]
    first, row = pack.nodes.SVILoraPreset.execute(preset, "light_HIGH.safetensors", "light_LOW.safetensors", before).args[0]
    assert first == before[0]
    assert (row.name, row.strength, row.name_low_noise, row.strength_low_noise) == (
        "light_HIGH.safetensors", high, "light_LOW.safetensors", low,
    )  # fmt: skip


def test_every_presets_name_tells_its_strengths(pack):
    presets = sys.modules[f"{pack.__name__}.svi_core.systems.lora_presets"].LORA_PRESETS
    for name, (high, low) in presets.items():
        assert name.endswith(f": {high:g} and {low:g}")
    with pytest.raises(ValueError, match="preset is 'none'"):
        pack.nodes.SVILoraPreset.execute("none", "x.safetensors", "none")


def test_a_plan_reads_both_nodes(pack):
    read_graph = sys.modules[f"{pack.__name__}.nodes.dry_run.read_graph"]
    graph = {
        "high": node("UNETLoader", unet_name=HIGH),
        "low": node("UNETLoader", unet_name=LOW),
        "row": node("SVILoraPreset", preset="distilled, more motion: 0.5 and 1", lora="light_HIGH.safetensors",
                    lora_low_noise="light_LOW.safetensors"),
        "stack": node("SVILoraStack", model=["high", 0], model_low_noise=["low", 0], loras=["row", 0]),
        "sigmas": node("SVIFewStepSigmas", steps_high_noise=3, steps_low_noise=4, shift=5.0, boundary=0.9),
        "prompts": node("SVIPromptStream", text="a", split="paragraphs"),
        "generate": node("SVIGenerate", model=["stack", 0], model_low_noise=["stack", 1], sigmas=["sigmas", 0],
                         prompts=["prompts", 0], num_clips=1, seed_mode="per clip"),
        "plan": node("SVIPlan", video=["generate", 0], plan_only=True),
    }  # fmt: skip
    found = read_graph.read_requested_run(graph, "plan", True)
    assert found.num_steps == 7
    assert [[(lora.name, lora.strength) for lora in expert.loras] for expert in found.experts] == [
        [("light_HIGH.safetensors", 0.5)], [("light_LOW.safetensors", 1.0)],
    ]  # fmt: skip
