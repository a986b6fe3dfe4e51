"""LoRAs are found on a real ModelPatcher of ComfyUI, whichever node applied them, and named where that is certain."""

import sys

import pytest

from tests.e2e.graphs import node
from tests.nodes.test_lora import K, Q, apply, lora_path

PRO, STYLE = "svi_v2_pro.safetensors", "style.safetensors"


@pytest.fixture
def bridge(pack):
    return sys.modules[f"{pack.__name__}.nodes.bridge.applied_loras"]


def with_stock(model, path, strength=1.0, bypass=False):
    """Return `model` with the LoRA `path` as LoraLoaderModelOnly, or its bypass sister, applies it."""
    import comfy.sd
    import comfy.utils

    load = comfy.sd.load_bypass_lora_for_models if bypass else comfy.sd.load_lora_for_models
    return load(model, None, comfy.utils.load_torch_file(str(path)), strength, 0)[0]


def chain(*files):
    """Return a graph of one LoraLoaderModelOnly for each (file, strength), the last one before SVI Generate."""
    graph = {"0": node("UNETLoader", unet_name="wan.safetensors")}
    for index, (file, strength) in enumerate(files, start=1):
        graph[f"{index}"] = node("LoraLoaderModelOnly", model=[f"{index - 1}", 0], lora_name=file, strength_model=strength)
    return graph | {"run": node("SVIGenerate", model=[f"{len(files)}", 0])}


def found_on(bridge, pack, model, *files):
    graph = sys.modules[f"{pack.__name__}.nodes.bridge.queued_graph"].QueuedGraph(chain(*files))
    return [str(lora) for lora in bridge.loras_on(model, bridge.loras_in_graph(graph, "run", "model"))]


def test_those_of_svi_lora_stack_have_names_and_strengths(pack, bridge, model, loras):
    lora_path(loras, PRO, [Q, K])
    lora_path(loras, STYLE, [Q], seed=1)
    patched, *_ = apply(pack, model, [(PRO, 1.0, "none", 1.0), (STYLE, 0.5, "none", 1.0)])
    pro, style = bridge.loras_on(patched)
    assert (pro.name, pro.strength, pro.num_weights, pro.variant.layouts[0]) == (PRO, 1.0, 2, "2.0 Pro")
    assert (style.name, style.strength, style.num_weights, style.variant) == (STYLE, 0.5, 1, None)
    assert bridge.loras_on(model) == ()


def test_a_lora_whose_patches_a_later_node_dropped_is_not_on_the_model(pack, bridge, model, loras):
    lora_path(loras, PRO, [Q])
    patched, *_ = apply(pack, model, [(PRO, 1.0, "none", 1.0)])
    bare = patched.clone()
    bare.patches = {}
    assert bridge.loras_on(bare) == () and len(bridge.loras_on(patched)) == 1


def test_those_of_other_nodes_are_counted_and_named_by_the_graph(pack, bridge, model, loras):
    lora_path(loras, PRO, [Q, K])
    lora_path(loras, STYLE, [Q], seed=1)
    one = with_stock(model, loras / PRO)
    assert found_on(bridge, pack, one) == ["a LoRA of another node at 1 (2 weights)"]
    assert found_on(bridge, pack, one, (PRO, 1.0)) == [f"{PRO} at 1"]
    both = with_stock(one, loras / STYLE, 0.5)
    assert found_on(bridge, pack, both, (PRO, 1.0), (STYLE, 0.5)) == [f"{PRO} at 1", f"{STYLE} at 0.5"]
    assert found_on(bridge, pack, both, (PRO, 1.0), (STYLE, 0.0)) == [
        f"{PRO} at 1",
        "a LoRA of another node at 0.5 (1 weights)",
    ]
    alike = with_stock(one, loras / STYLE)
    assert found_on(bridge, pack, alike, (PRO, 1.0), (STYLE, 1.0)) == [f"{PRO} at 1", f"{STYLE} at 1"]


def test_a_file_whose_keys_another_loader_drops_changes_nothing(pack, bridge, model, loras):
    lora_path(loras, PRO, [Q, K], form="svi 1.0")
    lora_path(loras, STYLE, [Q], seed=1)
    dropped = with_stock(model, loras / PRO)
    assert found_on(bridge, pack, dropped, (PRO, 1.0)) == [f"{PRO} at 1 (changes nothing)"]
    styled = with_stock(dropped, loras / STYLE, 0.5)
    assert found_on(bridge, pack, styled, (PRO, 1.0), (STYLE, 0.5)) == [f"{STYLE} at 0.5", f"{PRO} at 1 (changes nothing)"]
    alike = with_stock(dropped, loras / STYLE)  # which of two at one strength was dropped cannot be told
    assert found_on(bridge, pack, alike, (PRO, 1.0), (STYLE, 1.0)) == ["a LoRA of another node at 1 (1 weights)"]


def test_a_lora_beside_the_weights_is_seen(pack, bridge, model, loras):
    lora_path(loras, PRO, [Q])
    beside = with_stock(model, loras / PRO, 0.7, bypass=True)
    assert found_on(bridge, pack, beside) == ["a LoRA of another node"]
    assert found_on(bridge, pack, beside, (PRO, 0.7)) == [f"{PRO} at 0.7"]


def test_a_lora_with_a_strength_for_each_block_is_one(pack, bridge, model, loras):
    lora_path(loras, PRO, [Q, K])
    by_block = with_stock(model, loras / PRO)
    for number, key in enumerate(by_block.patches, start=1):
        by_block.patches[key] = [(0.25 * number, *entry[1:]) for entry in by_block.patches[key]]
    assert found_on(bridge, pack, by_block) == ["a LoRA of another node (2 weights)"]
    assert found_on(bridge, pack, by_block, (PRO, 1.0)) == [f"{PRO} at 1"]


def test_rows_of_one_widget_are_read(pack, bridge):
    graph = sys.modules[f"{pack.__name__}.nodes.bridge.queued_graph"].QueuedGraph(chain((PRO, 1.0)))
    graph.nodes["1"]["inputs"] = {
        "model": ["0", 0],
        "lora_1": {"on": True, "lora": PRO, "strength": 0.9},
        "lora_2": {"on": False, "lora": STYLE, "strength": 1.0},
    }
    assert [(lora.name, lora.strength) for lora in bridge.loras_in_graph(graph, "run", "model")] == [(PRO, 0.9), (STYLE, 0.0)]
