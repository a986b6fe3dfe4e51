import pytest
import torch
from safetensors.torch import save_file

from svi_core.systems.lora_keys import canonical_key, module_of
from svi_core.systems.lora import (
    expert_named_in,
    read_lora,
    report_match,
    stacking_warning,
)

# The 400 linears that SVI adapts in the 14B model (docs/METHOD.md, 6.1): q, k, v, o of both attentions and the two of the ffn.
MODULES = [
    f"blocks.{block}.{layer}"
    for block in range(40)
    for layer in (*(f"{a}.{p}" for a in ("self_attn", "cross_attn") for p in "qkvo"), "ffn.0", "ffn.2")
]

DIALECTS = {
    "svi 1.0": "pipe.dit.{}.lora_A.default.weight",
    "svi 2.x official": "{}.lora_A.default.weight",
    "comfy, kijai, ours": "diffusion_model.{}.lora_A.weight",
    "diffsynth": "{}.lora_A.weight",
    "lightning checkpoint": "model.pipe.dit.{}.lora_A.default.weight",
    "compiled": "_orig_mod.dit.{}.lora_A.weight",
    "peft": "base_model.model.{}.lora_A.weight",
}


def test_there_are_400_modules():
    assert len(set(MODULES)) == 400


@pytest.mark.parametrize("form", DIALECTS.values(), ids=DIALECTS)
def test_every_dialect_becomes_comfys_on_all_400_modules(form):
    expected = [f"diffusion_model.{module}.lora_A.weight" for module in MODULES]
    assert [canonical_key(form.format(module)) for module in MODULES] == expected
    assert {module_of(key) for key in expected} == {f"diffusion_model.{module}" for module in MODULES}


def test_kohya_keys_are_comfys_own():
    key = "lora_unet_blocks_0_self_attn_q.lora_down.weight"
    assert canonical_key(key) == key and module_of(key) == "lora_unet_blocks_0_self_attn_q"


@pytest.mark.parametrize(
    "key",
    ["text_model.encoder.layers.0.fc1.lora_A.weight", "double_blocks.0.img_attn.lora_A.weight", "dwpose_embedding.0.weight"],
)
def test_keys_of_other_models_are_left_alone(key):
    assert canonical_key(key) == key


@pytest.mark.parametrize("suffix", ["alpha", "diff", "diff_b", "lora_up.weight", "lora_B.default.weight", "dora_scale"])
def test_module_is_the_key_without_its_ending(suffix):
    assert module_of(f"diffusion_model.blocks.0.ffn.0.{suffix}") == "diffusion_model.blocks.0.ffn.0"


def write_lora(path, keys, rank=2, **metadata):
    tensors = {}
    for key in keys:
        tensors[key] = torch.zeros(rank, 8) if "_A" in key or "down" in key else torch.zeros(12, rank)
    save_file(tensors, path, metadata=metadata or None)
    return path


def test_reading_an_official_file(tmp_path):
    keys = [f"blocks.0.ffn.0.lora_{side}.default.weight" for side in "AB"]
    lora = read_lora(write_lora(tmp_path / "svi_HIGH.safetensors", keys))
    assert set(lora.tensors) == {f"diffusion_model.blocks.0.ffn.0.lora_{side}.weight" for side in "AB"}
    assert lora.original_keys[0].startswith("blocks.0")
    assert lora_shapes(lora) == {"diffusion_model.blocks.0.ffn.0": (12, 8)}


def dance_file(path, name="svi-dance.safetensors"):
    keys = [f"pipe.dit.blocks.0.ffn.0.lora_{side}.default.weight" for side in "AB"]
    return write_lora(path / name, [*keys, "pipe.dwpose_embedding.0.weight", "pipe.dwpose_embedding.0.bias"])


def test_a_pose_encoder_in_the_file_is_told_and_is_no_module(tmp_path):
    lora = read_lora(dance_file(tmp_path, "poses.safetensors"))
    assert {module_of(key) for key in lora.tensors} == {"diffusion_model.blocks.0.ffn.0"} and lora.num_pose_tensors == 2
    report = report_match(lora, {"diffusion_model.blocks.0.ffn.0"}, set(), "model", 1.0)
    assert str(report).splitlines() == [
        "poses.safetensors -> model at 1: 1 of 1 modules matched",
        "  pose encoder (2 tensors): not a LoRA, SVI Dance reads it",
    ]


def test_dance_beside_unianimate_is_warned_of(tmp_path):
    """docs/METHOD.md, 6.3: svi-dance already contains the fine-tuned UniAnimate weights, so load it alone."""
    keys = [f"blocks.0.ffn.0.lora_{side}.weight" for side in "AB"]
    dance = read_lora(dance_file(tmp_path))
    unianimate = read_lora(write_lora(tmp_path / "UniAnimate-Wan2.1-14B-Lora-12000-fp16.safetensors", keys))
    style = read_lora(write_lora(tmp_path / "style.safetensors", keys))
    assert "svi-dance.safetensors follows poses too" in stacking_warning(unianimate, [style, dance])
    assert "UniAnimate-Wan2.1" in stacking_warning(dance, [unianimate])
    assert stacking_warning(style, [dance]) is stacking_warning(dance, [style]) is stacking_warning(dance, []) is None


def test_two_keys_for_one_tensor_are_refused(tmp_path):
    keys = ["blocks.0.ffn.0.lora_A.weight", "diffusion_model.blocks.0.ffn.0.lora_A.weight"]
    with pytest.raises(ValueError, match="both mean"):
        read_lora(write_lora(tmp_path / "mixed.safetensors", keys))


def test_report_counts_and_names(tmp_path):
    keys = [f"blocks.0.{layer}.lora_{side}.weight" for layer in ("ffn.0", "ffn.2", "cross_attn.k_img") for side in "AB"]
    lora = read_lora(write_lora(tmp_path / "x.safetensors", keys))
    report = report_match(
        lora,
        {"diffusion_model.blocks.0.ffn.0", "diffusion_model.blocks.0.ffn.2"},
        {"diffusion_model.blocks.0.cross_attn.k_img"},
        "model",
        0.5,
    )
    assert (report.num_matched, report.unmatched) == (2, ("diffusion_model.blocks.0.cross_attn.k_img",))
    assert str(report).splitlines() == [
        "x.safetensors -> model at 0.5: 2 of 3 modules matched",
        "  not matched (1): diffusion_model.blocks.0.cross_attn.k_img",
    ]


def test_zero_matches_name_the_file_and_three_keys(tmp_path):
    keys = [f"transformer.single.{i}.lora_{side}.weight" for i in range(5) for side in "AB"]
    lora = read_lora(write_lora(tmp_path / "flux.safetensors", keys))
    with pytest.raises(ValueError, match="LoRA flux.safetensors: 0 of 5 modules") as error:
        report_match(lora, set(), {f"transformer.single.{i}" for i in range(5)}, "model", 1.0)
    assert str(error.value).count("transformer.single.") == 3


@pytest.mark.parametrize(
    ("name", "metadata", "expert"),
    [
        ("SVI_v2_PRO_Wan2.2-I2V-A14B_HIGH_lora_rank_128_fp16.safetensors", {}, "high"),
        ("SVI_v2_PRO_Wan2.2-I2V-A14B_LOW_lora_rank_128_fp16.safetensors", {}, "low"),
        ("wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise.safetensors", {}, "high"),
        ("sub/low-noise.safetensors", {}, "low"),
        ("svi-shot_lora_rank_128_fp16.safetensors", {}, None),
        ("slow_motion_highway.safetensors", {}, None),
        ("high_and_low.safetensors", {}, None),
        ("story_HIGH.safetensors", {"svi.expert": "low"}, "low"),
    ],
)
def test_the_expert_a_file_is_for(name, metadata, expert):
    assert expert_named_in(name, metadata) == expert


def test_swapped_experts_are_noticed(tmp_path):
    keys = [f"blocks.0.ffn.0.lora_{side}.weight" for side in "AB"]
    lora = read_lora(write_lora(tmp_path / "svi_LOW.safetensors", keys))
    matched = {"diffusion_model.blocks.0.ffn.0"}
    assert "low-noise expert" in report_match(lora, matched, set(), "high", 1.0).warnings[0]
    assert report_match(lora, matched, set(), "low", 1.0).warnings == ()
    assert report_match(lora, matched, set(), "model", 1.0).warnings == ()
