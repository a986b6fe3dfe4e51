"""A stack of LoRAs merged into the model's file: what ComfyUI's own Save Model node writes is what the stack computes.

So this pack needs no export of its own; the test says when that stops to be so.
"""

import json

import pytest
import torch
from safetensors.torch import load_file

MODEL = "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors"
CONFIG = {"config": json.dumps({"transformer": {"num_heads": 2, "text_dim": 32}})}  # the tiny model's; a real one needs none


def velocity(model) -> torch.Tensor:
    import comfy.model_management

    random = torch.Generator().manual_seed(3)
    latent, text = torch.randn(1, 36, 2, 4, 4, generator=random), torch.randn(1, 7, 32, generator=random)
    comfy.model_management.load_models_gpu([model], force_full_load=True)
    with torch.inference_mode():
        return model.model.diffusion_model(latent, torch.tensor([500.0]), text)


def on_grid(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return `weights` with the blocks' matrices as plain fp8, as fp8_e4m3fn files hold them."""
    return {
        key: value.to(torch.float8_e4m3fn) if key.startswith("blocks.") and value.ndim == 2 and "weight" in key else value
        for key, value in weights.items()
    }


@pytest.fixture(params=["as stored", "fp8"])
def patched(request, comfy, tiny_models, tmp_path):
    """The model with a LoRA on every layer, from files as they come and from fp8."""
    import comfy.sd
    import comfy.utils
    from safetensors.torch import save_file

    path = tiny_models / "diffusion_models" / MODEL
    if request.param == "fp8":
        save_file(on_grid(load_file(path)), tmp_path / "fp8.safetensors", CONFIG)
        path = tmp_path / "fp8.safetensors"
    options = {"dtype": torch.float8_e4m3fn} if request.param == "fp8" else {}
    model = comfy.sd.load_diffusion_model(str(path), model_options=options)
    lora = comfy.utils.load_torch_file(str(tiny_models / "loras" / "wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise.safetensors"))
    return comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0.0)[0]


def test_save_model_writes_what_the_stack_computes(patched, tmp_path):
    import comfy.sd

    expected = velocity(patched)
    comfy.sd.save_checkpoint(str(tmp_path / "merged.safetensors"), patched, metadata=CONFIG)
    merged = comfy.sd.load_diffusion_model(
        str(tmp_path / "merged.safetensors"), model_options={"dtype": patched.model.get_dtype()}
    )
    assert not merged.patches and torch.equal(velocity(merged), expected)


def test_stochastic_rounding_keeps_what_nearest_would_lose(comfy):
    """A LoRA changes weights by less than a step of fp8: nearest rounding loses it, rounding by chance keeps its mean."""
    import comfy.float

    random = torch.Generator().manual_seed(0)
    base = torch.randn(512, 512, generator=random).to(torch.float8_e4m3fn).float()
    change = 0.01 * torch.randn(512, 512, generator=random)

    def kept(merged: torch.Tensor) -> float:
        return float(((merged.float() - base) * change).sum() / change.square().sum())

    nearest = kept((base + change).to(torch.float8_e4m3fn))
    stochastic = kept(comfy.float.stochastic_rounding(base + change, torch.float8_e4m3fn, seed=1))
    assert nearest < 0.6 and abs(stochastic - 1.0) < 0.1, (nearest, stochastic)
