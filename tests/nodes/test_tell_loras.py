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


def test_a_model_that_is_merged_causes_no_claim_that_a_lora_is_missing(tell, pack, model, tiny_models, loras):
    """Core's ModelMergeSimple patches lists, of the other model's weight and of what is on it; its LoRAs have no names then."""
    from comfy_extras.nodes_model_merging import ModelMergeSimple

    lora_path(loras, PRO, [Q])
    other = load_diffusion_model(tiny_models, LOW)
    graph = {
        "0": node("UNETLoader", unet_name="a.safetensors"),
        "1": node("UNETLoader", unet_name="b.safetensors"),
        "2": node("ModelMergeSimple", model1=["0", 0], model2=["1", 0], ratio=0.75),
        "run": node("SVIGenerate", model=["2", 0]),
    }
    (merged,) = ModelMergeSimple().merge(model, other, 0.75)
    cannot_tell = "SVI Generate: it cannot be told whether a LoRA of SVI is merged into model, but"
    line, warning = tell(merged, graph=graph)
    assert line.startswith("SVI Generate: LoRAs: model: another model, merged at 0.25 (") and warning.startswith(cannot_tell)
    assert tell(merged)[1].startswith(cannot_tell)  # without a graph its patches say so
    (with_lora,) = ModelMergeSimple().merge(model, with_stock(other, loras / PRO), 0.75)
    behind = graph | {
        "3": node("LoraLoaderModelOnly", model=["1", 0], lora_name=PRO, strength_model=1.0),
        "2": node("ModelMergeSimple", model1=["0", 0], model2=["3", 0], ratio=0.75),
    }
    assert len(tell(with_lora, graph=behind)) == 1, "no warning: the file is behind the merge"
    named = graph | {
        "4": node("LoraLoaderModelOnly", model=["2", 0], lora_name=PRO, strength_model=0.25),
        "run": node("SVIGenerate", model=["4", 0]),
    }
    assert f"{PRO} at 0.25" in tell(with_stock(merged, loras / PRO, 0.25), graph=named)[0]  # not taken for the merge


def test_a_file_that_a_save_node_wrote_is_not_said_to_lack_the_lora(tell, pack, model, tmp_path, monkeypatch):
    """ModelSave puts the graph into the header, where a LoRA of SVI has its name."""
    import json

    import folder_paths
    import torch
    from safetensors.torch import save_file

    monkeypatch.setitem(folder_paths.folder_names_and_paths, "diffusion_models", ([str(tmp_path)], {".safetensors"}))
    graph = {"0": node("UNETLoader", unet_name="mix.safetensors"), "run": node("SVIGenerate", model=["0", 0])}
    for lora, told in ((PRO, []), ("style.safetensors", ["it cannot be told whether a LoRA of SVI is merged into model"])):
        made = {"1": node("LoraLoaderModelOnly", lora_name=lora), "2": node("ModelSave", model=["1", 0])}
        save_file({"weight": torch.zeros(1)}, tmp_path / "mix.safetensors", {"prompt": json.dumps(made)})
        _, *warnings = tell(model, graph=graph)
        assert len(warnings) == len(told) and all(words in line for words, line in zip(told, warnings, strict=True))
