"""What the log of a run says of its LoRAs, on real models of ComfyUI."""

import sys
from types import SimpleNamespace

import pytest

from tests.e2e.graphs import node
from tests.nodes.bridge.test_applied_loras import PRO, with_stock
from tests.nodes.conftest import load_diffusion_model
from tests.nodes.test_lora import K, Q, apply, lora_path

LOW = "wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors"
SHOT = "svi-shot.safetensors"


@pytest.fixture
def tell(pack, caplog):
    """Log the LoRAs of a model, or of two experts, and return the lines."""
    module = lambda name: sys.modules[f"{pack.__name__}.{name}"]  # noqa: E731

    def run(model, low=None, rows=(), spec=(), graph=None):
        variants = module("nodes.lora").variants_of_rows(rows)
        sampler = SimpleNamespace(model=model, model_low_noise=low, loras=rows, variants_of_rows=variants)
        layout, queued = module("svi_core.systems.layouts").LAYOUTS["2.0 Pro"], module("nodes.bridge.queued_graph").QueuedGraph
        caplog.clear()
        caplog.set_level("INFO")
        first = SimpleNamespace(loras=spec)
        module("nodes.tell_loras").tell_loras(sampler, first, layout, queued(graph or {}), "run")
        return [record.getMessage() for record in caplog.records if record.getMessage().startswith("SVI Generate")]

    return run


def test_without_any_lora_the_log_warns_and_the_run_goes_on(tell, model):
    line, warning = tell(model)
    assert line == "SVI Generate: LoRAs: model: none."
    assert "no LoRA is on model, but layout '2.0 Pro' needs the LoRA of SVI" in warning


def test_the_lora_of_svi_on_one_expert_only_is_told(tell, pack, model, tiny_models, loras):
    lora_path(loras, PRO, [Q, K])
    low = load_diffusion_model(tiny_models, LOW)
    high, low, _ = apply(pack, model, [(PRO, 1.0, "none", 1.0)], low)
    line, warning = tell(high, low)
    assert line == f"SVI Generate: LoRAs: high noise: {PRO} at 1; low noise: none."
    assert "no LoRA is on model_low_noise, but" in warning
    assert tell(high) == [f"SVI Generate: LoRAs: model: {PRO} at 1."]


def test_rows_count_at_the_strengths_of_the_first_clip(tell, pack, model, loras):
    lora_path(loras, PRO, [Q])
    lora = sys.modules[f"{pack.__name__}.nodes.lora"]
    rows = (lora.LoraRow(PRO, 0.9, "none", 1.0),)
    assert tell(model, rows=rows) == [f"SVI Generate: LoRAs: model: {PRO} at 0.9."]
    off = (lora.LoraStrength("svi", 0.0, 0.0),)
    assert [line.split(",")[0] for line in tell(model, rows=rows, spec=off)] == [
        "SVI Generate: LoRAs: model: none.",
        "SVI Generate: no LoRA is on model",
    ]


def test_a_lora_of_another_node_is_named_by_the_graph_and_may_contradict(tell, model, loras):
    lora_path(loras, SHOT, [Q])
    graph = {
        "0": node("UNETLoader", unet_name="wan.safetensors"),
        "1": node("LoraLoaderModelOnly", model=["0", 0], lora_name=SHOT, strength_model=1.0),
        "run": node("SVIGenerate", model=["1", 0]),
    }
    line, warning = tell(with_stock(model, loras / SHOT), graph=graph)
    assert line == f"SVI Generate: LoRAs: model: {SHOT} at 1."
    assert f"LoRA {SHOT} is for SVI Shot (its name says so), but the layout is '2.0 Pro'" in warning
    _, warning = tell(with_stock(model, loras / SHOT))
    assert "nothing says that a LoRA of SVI is among a LoRA of another node at 1 (1 weights) on model" in warning


def test_a_lora_that_comes_by_a_switch_or_from_a_list_of_loras_causes_no_warning(tell, model, loras):
    lora_path(loras, PRO, [Q])
    loader = node("LoraLoaderModelOnly", model=["0", 0], lora_name=PRO, strength_model=1.0)
    base = {"0": node("UNETLoader", unet_name="wan.safetensors"), "run": node("SVIGenerate", model=["2", 0])}
    switch = base | {"1": loader, "2": node("AnySwitch", first=["1", 0], second=["0", 0])}
    listed = base | {
        "1": node("LoraStacker", lora_name_1=PRO, model_str_1=1.0),
        "2": node("ApplyLoraStack", model=["0", 0], lora_stack=["1", 0]),
    }
    for graph in (switch, listed):
        assert tell(with_stock(model, loras / PRO), graph=graph) == [
            "SVI Generate: LoRAs: model: a LoRA of another node at 1 (1 weights)."
        ]
        assert "no LoRA is on model, but" in tell(model, graph=graph)[1]


def test_a_file_of_svi_among_fewer_names_than_loras_is_likely_on_the_model(tell, model, loras):
    for seed, name in enumerate((PRO, "style.safetensors")):
        lora_path(loras, name, [Q], seed=seed)
    both = with_stock(with_stock(model, loras / PRO), loras / "style.safetensors")
    graph = {
        "0": node("UNETLoader", unet_name="wan.safetensors"),
        "1": node("LoraLoaderModelOnly", model=["0", 0], lora_name=PRO, strength_model=1.0),
        "2": node("AppliesAnotherLora", model=["1", 0]),
        "run": node("SVIGenerate", model=["2", 0]),
    }
    assert len(tell(both, graph=graph)) == 1, "no warning"


def test_two_loaders_of_which_one_changed_nothing_still_cause_a_warning(tell, model, loras):
    lora_path(loras, SHOT, [Q])
    graph = {
        "0": node("UNETLoader", unet_name="wan.safetensors"),
        "1": node("LoraLoaderModelOnly", model=["0", 0], lora_name=PRO, strength_model=1.0),
        "2": node("LoraLoaderModelOnly", model=["1", 0], lora_name="style.safetensors", strength_model=1.0),
        "run": node("SVIGenerate", model=["2", 0]),
    }
    _, warning = tell(with_stock(model, loras / SHOT), graph=graph)
    assert "nothing says that a LoRA of SVI is among a LoRA of another node at 1 (1 weights) on model" in warning
