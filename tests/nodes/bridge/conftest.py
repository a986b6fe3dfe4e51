"""Three clips of 2.0 Pro on the tiny experts, with a LoRA of another strength in each."""

import importlib
import sys
from types import SimpleNamespace

import pytest
import torch

from tests.nodes.conftest import PACK, load_diffusion_model

HIGH = "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors"
LOW = "wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors"
LORA = "SVI_v2_PRO_Wan2.2-I2V-A14B_{}_lora_rank_128_fp16.safetensors"
TEXT = "[lora SVI_v2=0.5]\na\n\n[lora SVI_v2=0.9]\nb\n\nc"  # another strength in each clip


@pytest.fixture(scope="session")
def module(pack):
    """Return modules of the pack by name."""
    return lambda name: sys.modules[f"{PACK}.{name}"]


@pytest.fixture
def experts(comfy, tiny_models, monkeypatch):
    """Both experts, with the attention that ComfyUI has on a GPU, and the LoRAs' folder."""
    import folder_paths

    folder_paths.add_model_folder_path("loras", str(tiny_models / "loras"))
    attention = importlib.import_module("comfy.ldm.modules.attention").attention_pytorch
    monkeypatch.setattr(importlib.import_module("comfy.ldm.wan.model"), "optimized_attention", attention)
    return load_diffusion_model(tiny_models, HIGH), load_diffusion_model(tiny_models, LOW)


@pytest.fixture
def sampler(module, vae):
    """Build the clip sampler of 2.0 Pro with a LoRA, and its plan of three clips of 9 frames."""
    import comfy.samplers

    def build(high, low, control=(), num_steps=4):
        bridge, schedule = module("nodes.bridge"), module("svi_core.schedule.text").parse_schedule(TEXT)
        plan = module("svi_core.clips.clip_plan").ClipPlan(
            3, schedule, module("svi_core.systems.layouts").make_layout("2.0 Pro", num_frames=9)
        )
        random = torch.Generator().manual_seed(1)
        image, texts = torch.rand(1, 64, 64, 3, generator=random), torch.randn(4, 1, 12, 32, generator=random)
        prompts = {name: [[text, {}]] for name, text in zip("abc", texts, strict=False)}
        text_encoder = SimpleNamespace(tokenize=str, encode_from_tokens_scheduled=prompts.get)
        return plan, module("nodes.clip_sampler").ClipSampler(
            model=high,
            model_low_noise=low,
            prompts=module("nodes.schedule").EncodedPrompts(schedule, text_encoder),
            negative=[[texts[3], {}]],
            vae=vae,
            anchor={"samples": bridge.vaes.encode_images(vae, image), bridge.latents.FRAMES_KEY: image},
            sampler=comfy.samplers.sampler_object("euler"),
            sigmas=comfy.samplers.calculate_sigmas(high.get_model_object("model_sampling"), "simple", num_steps),
            cfg=2.0,
            boundary=0.9,
            loras=(module("nodes.lora").LoraRow(LORA.format("HIGH"), 1.0, LORA.format("LOW"), 1.0),),
            control=control,
        )

    return build
