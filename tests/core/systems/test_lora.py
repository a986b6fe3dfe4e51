import pytest
import torch
from safetensors.torch import save_file

from svi_core.systems.lora import LoraFile, LoraMatch, expert_named_in, read_lora, report_match, stacking_warning
from svi_core.systems.lora_keys import split_key


def match(*touched, misfits=(), unmatched=()):
    return LoraMatch(frozenset(touched), dict(misfits), {name: name for name in unmatched})


def write_lora(path, keys, rank=2, **metadata):
    tensors = {}
    for key in keys:
        tensors[key] = torch.ones(rank, 8) if "_A" in key or "down" in key else torch.ones(12, rank)
    save_file(tensors, path, metadata=metadata or None)
    return path


def test_reading_an_official_file(tmp_path):
    keys = [f"blocks.0.ffn.0.lora_{side}.default.weight" for side in "AB"]
    lora = read_lora(write_lora(tmp_path / "svi_HIGH.safetensors", keys))
    assert set(lora.tensors) == {f"diffusion_model.blocks.0.ffn.0.lora_{side}.weight" for side in "AB"}
    assert lora.original_keys[0].startswith("blocks.0")
    assert {tuple(tensor.shape) for tensor in lora.tensors.values()} == {(2, 8), (12, 2)}


def dance_file(path, name="svi-dance.safetensors"):
    keys = [f"pipe.dit.blocks.0.ffn.0.lora_{side}.default.weight" for side in "AB"]
    return write_lora(path / name, [*keys, "pipe.dwpose_embedding.0.weight", "pipe.dwpose_embedding.0.bias"])


def test_a_pose_encoder_in_the_file_is_told_and_is_no_module(tmp_path):
    lora = read_lora(dance_file(tmp_path, "poses.safetensors"))
    assert {split_key(key)[0] for key in lora.tensors} == {"diffusion_model.blocks.0.ffn.0"} and lora.num_pose_tensors == 2
    report = report_match(lora, match("diffusion_model.blocks.0.ffn.0"), "model", 1.0)
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


@pytest.mark.parametrize("dtype", [torch.uint16, torch.complex64])
def test_numbers_that_no_lora_has_are_refused_by_key(tmp_path, dtype):
    save_file({f"blocks.0.ffn.0.lora_{side}.weight": torch.ones(4, 4).to(dtype) for side in "AB"}, tmp_path / "x.safetensors")
    with pytest.raises(ValueError, match=f"LoRA x.safetensors is malformed: 'blocks.0.ffn.0.lora_[AB].weight' is {dtype}"):
        read_lora(tmp_path / "x.safetensors")


def test_two_keys_for_one_tensor_are_refused(tmp_path):
    keys = ["blocks.0.ffn.0.lora_A.weight", "diffusion_model.blocks.0.ffn.0.lora_A.weight"]
    with pytest.raises(ValueError, match="both mean"):
        read_lora(write_lora(tmp_path / "mixed.safetensors", keys))


def test_report_counts_and_names(tmp_path):
    keys = [f"blocks.0.{layer}.lora_{side}.weight" for layer in ("ffn.0", "ffn.2", "cross_attn.k_img") for side in "AB"]
    lora = read_lora(write_lora(tmp_path / "x.safetensors", keys))
    found = match(
        "diffusion_model.blocks.0.ffn.0",
        "diffusion_model.blocks.0.ffn.2",
        unmatched=["diffusion_model.blocks.0.cross_attn.k_img"],
    )
    report = report_match(lora, found, "model", 0.5)
    assert (report.num_matched, report.unmatched) == (2, ("diffusion_model.blocks.0.cross_attn.k_img",))
    assert str(report).splitlines() == [
        "x.safetensors -> model at 0.5: 2 of 3 modules matched",
        "  not matched (1): diffusion_model.blocks.0.cross_attn.k_img",
    ]


def test_zero_matches_name_the_file_and_three_keys(tmp_path):
    keys = [f"transformer.single.{i}.lora_{side}.weight" for i in range(5) for side in "AB"]
    lora = read_lora(write_lora(tmp_path / "flux.safetensors", keys))
    with pytest.raises(ValueError, match="LoRA flux.safetensors: 0 of 5 modules") as error:
        report_match(lora, match(unmatched=[f"transformer.single.{i}" for i in range(5)]), "model", 1.0)
    assert str(error.value).count("transformer.single.") == 3


def test_what_does_not_fit_is_counted_and_named_and_eight_of_many_are_shown():
    lora = LoraFile("t2v.safetensors", {}, {}, ())
    misfits = {f"m{index}": f"m{index} has diff 3, but the model's weight is 4" for index in range(9)}
    report = report_match(lora, match("a", "b", "m0", misfits=misfits), "model", 1.0)
    lines = str(report).splitlines()
    assert lines[0].endswith("2 of 11 modules matched") and not report.is_complete
    assert lines[1].startswith("  not merged (9): m0 has diff 3, but the model's weight is 4; m1 has")
    assert "m7 has" in lines[1] and "m8 has" not in lines[1] and lines[1].endswith("; ...")
    with pytest.raises(
        ValueError, match=r"t2v.safetensors: 0 of 9 modules fit this model, so it would change nothing: m0 has diff 3"
    ):
        report_match(lora, match(misfits=misfits), "model", 1.0)


def test_modules_of_zeros_are_named_and_a_file_of_nothing_else_is_refused(tmp_path):
    tensors = {}
    for layer, up in (("ffn.0", 0.0), ("ffn.2", 1.0)):
        tensors |= {
            f"blocks.0.{layer}.lora_A.weight": torch.ones(2, 8),
            f"blocks.0.{layer}.lora_B.weight": torch.full((12, 2), up),
        }
    save_file(tensors, tmp_path / "half.safetensors")
    lora = read_lora(tmp_path / "half.safetensors")
    modules = [f"diffusion_model.blocks.0.{layer}" for layer in ("ffn.0", "ffn.2")]
    report = report_match(lora, match(*modules), "model", 1.0)
    assert report.silent == (modules[0],) and f"without effect, since all zero (1): {modules[0]}" in str(report)
    with pytest.raises(
        ValueError, match=r"half.safetensors would change nothing: in each of its 1 modules a matrix is all zeros"
    ):
        report_match(lora, match(modules[0]), "model", 1.0)


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
    matched = match("diffusion_model.blocks.0.ffn.0")
    assert "low-noise expert" in report_match(lora, matched, "high", 1.0).warnings[0]
    assert report_match(lora, matched, "low", 1.0).warnings == ()
    assert report_match(lora, matched, "model", 1.0).warnings == ()
