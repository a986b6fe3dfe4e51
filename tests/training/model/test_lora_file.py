"""What is saved is what ComfyUI loads: every key, every layer, the whole forward."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from svi_core.files.safetensors_file import read_tensors
from svi_core.systems.lora import read_lora
from tests.training.fakes import settings, without_lora
from tests.training.wan_files import NUM_LAYERS, STORAGES

pytestmark = pytest.mark.usefixtures("training_mode")


def describe():
    from training.model.lora_file import LoraDescription

    return LoraDescription(settings("runs/tiny"), step=7, learning_rate=1e-4)


def trained(wan_folder, storage: str = "fp32", alpha: float = 4.0, seed: int = 3):
    """Return a backbone and adapters whose matrices are all random."""
    from training.model.adapters import LoraAdapters
    from training.model.loading import load_backbone

    backbone = load_backbone(wan_folder / f"{storage}.safetensors")
    generator = torch.Generator().manual_seed(seed)
    lora = LoraAdapters(backbone.transformer, rank=4, alpha=alpha, generator=generator)
    with torch.no_grad():
        for pair in lora.pairs.values():
            pair.up.copy_(0.1 * torch.randn(pair.up.shape, generator=generator))
    return backbone, lora


@torch.no_grad()
def velocity(backbone) -> torch.Tensor:
    from training.model.conditions import Conditions

    generator = torch.Generator().manual_seed(5)
    noisy, known = (torch.randn(1, 16, 3, 8, 8, generator=generator) for _ in range(2))
    conditions = Conditions(known, torch.zeros(1, 1, 3, 8, 8), torch.randn(1, 4, 32, generator=generator))
    return backbone.velocity(noisy, torch.tensor([0.6]), conditions)


@pytest.mark.parametrize("alpha", [4.0, 2.0])
@pytest.mark.parametrize("file_dtype", ["fp16", "bf16", "fp32"])
def test_a_saved_lora_gives_the_same_video_in_comfyui(wan_folder, tmp_path, file_dtype, alpha):
    """The whole forward, with the file merged into a second model by ComfyUI's ModelPatcher as Load LoRA does it."""
    import comfy.lora
    import comfy.sd

    from training.model.lora_file import TOLERANCES, save_lora

    backbone, lora = trained(wan_folder, alpha=alpha)
    path = tmp_path / "lora.safetensors"
    save_lora(path, lora, backbone, describe(), file_dtype)
    with without_lora(lora):
        base = velocity(backbone)
    ours = velocity(backbone)
    patcher = comfy.sd.load_diffusion_model(str(wan_folder / "fp32.safetensors"), disable_dynamic=True)
    key_map = comfy.lora.model_lora_keys_unet(patcher.model, {})
    accepted = patcher.add_patches(comfy.lora.load_lora(load_file(path), key_map), 1.0)
    assert len(accepted) == NUM_LAYERS
    patcher.patch_model()
    merged = replace(backbone, transformer=patcher.model.diffusion_model, model=patcher.model)
    theirs = velocity(merged)
    assert float((theirs - ours).norm()) < 3 * TOLERANCES[file_dtype] * float((ours - base).norm())


@pytest.mark.parametrize("storage", STORAGES)
def test_a_lora_of_any_base_can_be_saved(wan_folder, tmp_path, storage):
    from training.model.lora_file import save_lora

    backbone, lora = trained(wan_folder, storage)
    save_lora(tmp_path / "lora.safetensors", lora, backbone, describe())
    assert len(read_lora(tmp_path / "lora.safetensors").tensors) == 2 * NUM_LAYERS


def test_the_header_says_what_the_nodes_ask(wan_folder, tmp_path):
    from svi_core.systems.lora import expert_named_in
    from training.model.lora_file import save_lora

    backbone, lora = trained(wan_folder)
    save_lora(tmp_path / "lora.safetensors", lora, backbone, describe())
    tensors, metadata = read_tensors(tmp_path / "lora.safetensors")
    assert expert_named_in("anything.safetensors", metadata) == "high"
    assert metadata["svi.layout"] == "2.0 Pro" and metadata["svi.shift"] == "5.0" and metadata["svi.step"] == "7"
    assert metadata["ss_network_dim"] == "4" and metadata["modelspec.title"] == "tiny"
    assert all(tensor.dtype is torch.float16 for tensor in tensors.values())


def test_the_same_lora_gives_the_same_bytes(wan_folder, tmp_path):
    from training.model.lora_file import save_lora

    for name in ("a", "b"):
        backbone, lora = trained(wan_folder)
        save_lora(tmp_path / name, lora, backbone, describe())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda tensors: tensors.update({"diffusion_model.blocks.9.ffn.0.diff_b": torch.ones(64)}),
            "ignores 1 keys",
        ),
        (
            lambda tensors: tensors.update({"diffusion_model.blocks.9.ffn.0.lora_A.weight": torch.zeros(4, 64)}),
            "'lora_B.weight' is missing beside 'diffusion_model.blocks.9.ffn.0.lora_A.weight'",
        ),
        (lambda tensors: tensors["diffusion_model.blocks.1.ffn.0.lora_B.weight"].mul_(1.1), "blocks.1.ffn.0: ComfyUI"),
        (
            lambda tensors: [tensors.pop(key) for key in list(tensors) if "blocks.2.cross_attn.o" in key],
            "nothing for 1 trained",
        ),
    ],
)
def test_a_file_that_comfyui_reads_otherwise_is_no_save(wan_folder, tmp_path, monkeypatch, spoil, message):
    from training.model import lora_file

    backbone, lora = trained(wan_folder)

    def save_spoilt(path, tensors, metadata):
        tensors = {key: value.clone() for key, value in tensors.items()}
        spoil(tensors)
        save_file(tensors, path, metadata)

    monkeypatch.setattr(lora_file, "write_tensors", save_spoilt)
    with pytest.raises(ValueError, match=message):
        lora_file.save_lora(tmp_path / "lora.safetensors", lora, backbone, describe())
    assert list(tmp_path.iterdir()) == []


def test_values_that_the_dtype_cannot_hold_are_an_error(wan_folder, tmp_path):
    from training.model.lora_file import save_lora

    backbone, lora = trained(wan_folder)
    with torch.no_grad():
        lora.pairs["blocks.0.self_attn.q"].up.fill_(1e-9)  # below fp16's least number
    with pytest.raises(ValueError, match="blocks.0.self_attn.q: .* lora.file_dtype = 'fp32'"):
        save_lora(tmp_path / "lora.safetensors", lora, backbone, describe())
    with torch.no_grad():
        lora.pairs["blocks.0.self_attn.q"].up[0, 0] = 1e9
    with pytest.raises(ValueError, match="NaN or infinity in fp16"):
        save_lora(tmp_path / "lora.safetensors", lora, backbone, describe())
    assert list(tmp_path.iterdir()) == []
