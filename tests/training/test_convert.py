"""LoRA files go from dialect to dialect and back without losing a number."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.convert import convert, main

MODULES = ("blocks.0.self_attn.q", "blocks.11.cross_attn.o", "blocks.3.ffn.2")
DIFFUSERS = dict(zip(MODULES, ("blocks.0.attn1.to_q", "blocks.11.attn2.to_out.0", "blocks.3.ffn.net.2"), strict=True))


def make_lora(path, form: str = "diffusion_model.{}", sides=("lora_A.weight", "lora_B.weight"), alpha: float | None = None):
    generator = torch.Generator().manual_seed(0)
    tensors = {}
    for module in MODULES:
        name = form.format(module, flat=module.replace(".", "_"), diffusers=DIFFUSERS[module])
        tensors[f"{name}.{sides[0]}"] = torch.randn(4, 6, generator=generator)
        tensors[f"{name}.{sides[1]}"] = torch.randn(8, 4, generator=generator)
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path, {"svi.layout": "Film"})
    return path


@pytest.mark.parametrize(
    ("dialect", "key"),
    [
        ("official", "blocks.11.cross_attn.o.lora_B.default.weight"),
        ("official-1.0", "pipe.dit.blocks.11.cross_attn.o.lora_B.default.weight"),
    ],
)
def test_there_and_back(tmp_path, dialect, key):
    source = make_lora(tmp_path / "ours.safetensors")
    assert convert(source, tmp_path / "official.safetensors", dialect) == 3
    assert key in load_file(tmp_path / "official.safetensors")
    convert(tmp_path / "official.safetensors", tmp_path / "back.safetensors", "comfy")
    assert (tmp_path / "back.safetensors").read_bytes() == source.read_bytes()


def test_alpha_is_multiplied_in_for_the_official_code(tmp_path):
    source = make_lora(tmp_path / "ours.safetensors", alpha=2.0)
    convert(source, tmp_path / "official.safetensors", "official")
    before, after = load_file(source), load_file(tmp_path / "official.safetensors")
    assert len(after) == 6
    up = before["diffusion_model.blocks.3.ffn.2.lora_B.weight"]
    assert torch.equal(after["blocks.3.ffn.2.lora_B.default.weight"], up * 0.5)


@pytest.mark.parametrize(
    ("form", "sides"),
    [
        ("lora_unet_{flat}", ("lora_down.weight", "lora_up.weight")),
        ("diffusion_model.{}", ("lora_down.weight", "lora_up.weight")),
        ("pipe.dit.{}", ("lora_A.default.weight", "lora_B.default.weight")),
        ("transformer.{diffusers}", ("lora_A.weight", "lora_B.weight")),
        ("transformer.{diffusers}", ("lora.down.weight", "lora.up.weight")),
    ],
)
def test_every_dialect_becomes_comfys(tmp_path, form, sides):
    convert(make_lora(tmp_path / "a.safetensors", form, sides), tmp_path / "b.safetensors", "comfy")
    expected = load_file(make_lora(tmp_path / "c.safetensors"))
    found = load_file(tmp_path / "b.safetensors")
    assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in found)


@pytest.mark.parametrize("prefix", ["", "pipe.dit."])
def test_the_pose_encoder_of_svi_dance_goes_along(tmp_path, prefix):
    sides = ("lora_A.default.weight", "lora_B.default.weight")
    tensors = load_file(make_lora(tmp_path / "lora.safetensors", "pipe.dit.{}", sides))
    poses = {f"dwpose_embedding.{k}.{part}": torch.full((2,), float(k)) for k in (0, 2) for part in ("weight", "bias")}
    save_file(tensors | {prefix + key: tensor for key, tensor in poses.items()}, tmp_path / "dance.safetensors")
    for source, dialect in (("dance", "comfy"), ("comfy", "official"), ("official", "official-1.0")):
        assert convert(tmp_path / f"{source}.safetensors", tmp_path / f"{dialect}.safetensors", dialect) == 3
        found = load_file(tmp_path / f"{dialect}.safetensors")
        assert len(found) == 6 + 4 and all(torch.equal(found[key], tensor) for key, tensor in poses.items())


def test_what_cannot_be_converted_is_named(tmp_path, capsys):
    save_file({"blocks.0.norm3.diff": torch.zeros(3)}, tmp_path / "odd.safetensors")
    with pytest.raises(ValueError, match="norm3.diff' does not belong to a low-rank pair"):
        convert(tmp_path / "odd.safetensors", tmp_path / "out.safetensors", "official")
    save_file({"blocks.0.ffn.0.lora_A.weight": torch.zeros(3, 3)}, tmp_path / "half.safetensors")
    with pytest.raises(
        ValueError, match="half.safetensors is malformed: 'lora_B.weight' is missing beside 'blocks.0.ffn.0.lora_A.weight'"
    ):
        convert(tmp_path / "half.safetensors", tmp_path / "out.safetensors", "official")
    assert main([str(tmp_path / "gone.safetensors"), str(tmp_path / "out.safetensors")]) == 2
    assert "gone.safetensors cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "out.safetensors").exists()
