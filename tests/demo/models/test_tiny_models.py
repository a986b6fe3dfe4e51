"""The tiny models: what trains is what ComfyUI runs, and the shipped files are worth shipping."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest
import torch

from demo.models.comfy_import import DEFAULT_COMFYUI, import_comfy

ROOT = Path(os.environ.get("COMFYUI_PATH") or DEFAULT_COMFYUI)
if not (ROOT / "comfy" / "sd.py").is_file():
    pytest.skip(f"no ComfyUI at {ROOT}", allow_module_level=True)
import_comfy(ROOT)

from demo import tiny_encoders  # noqa: E402
from demo.models import fast_trunk, fast_vae, latents, tiny_models, train_dit  # noqa: E402
from demo.world import scenes as world  # noqa: E402


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Threads that meet after every small operation are slow on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@torch.no_grad()
def shaken(module, scale=0.05):
    """Move every parameter a little, so that nothing is zero or symmetric."""
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.add_(scale * torch.randn(parameter.shape, generator=generator))
    return module


@pytest.mark.parametrize("num_frames", [1, 5, 13])
@torch.no_grad()
def test_fast_vae_equals_comfyui(num_frames):
    vae = shaken(tiny_models.build_vae())
    frames = torch.rand(1, 3, num_frames, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1
    latent = vae.encode(frames)
    ours = fast_vae.encode(vae, frames.permute(0, 2, 3, 4, 1).contiguous())
    assert torch.allclose(ours.permute(0, 4, 1, 2, 3), latent, atol=1e-4)
    decoded = fast_vae.decode(vae, ours).permute(0, 4, 1, 2, 3)
    assert torch.allclose(decoded, vae.decode(latent), atol=1e-4)


@torch.no_grad()
def test_one_2d_convolution_equals_the_causal_3d_one():
    from comfy.ldm.wan.vae import CausalConv3d

    conv = CausalConv3d(4, 6, 3, padding=1)
    torch.nn.init.normal_(conv.weight)
    torch.nn.init.normal_(conv.bias)
    x = torch.randn(2, 4, 7, 8, 10)
    ours = fast_vae.causal_conv(conv, x.permute(0, 2, 3, 4, 1).contiguous())
    assert torch.allclose(ours.permute(0, 4, 1, 2, 3), conv(x), atol=1e-4)


@torch.no_grad()
def test_fast_trunk_equals_comfyui():
    trunk = shaken(tiny_models.build_trunk())
    generator = torch.Generator().manual_seed(2)
    noisy = torch.randn(2, 16, 3, 8, 12, generator=generator)
    known = torch.randn(2, 20, 3, 8, 12, generator=generator)
    texts = [torch.randn(9, 64, generator=generator), torch.randn(5, 64, generator=generator)]
    padded = torch.stack([torch.cat([text, torch.zeros(512 - len(text), 64)]) for text in texts])
    timestep = torch.tensor([900.0, 100.0])
    theirs = trunk(torch.cat([noisy, known], dim=1), timestep, padded)
    ours = fast_trunk.velocity(trunk, noisy, known, timestep, *latents.pad_texts(texts))
    assert float((ours - theirs).std() / theirs.std()) < 0.02, "more than bfloat16 explains"


def test_sigmas_are_those_of_shift_5():
    sigma = train_dit.sigma_of(torch.arange(1000))
    assert float(sigma[0]) == 1.0
    assert float(sigma.median()) == pytest.approx(0.833, abs=2e-3)
    assert float(sigma[train_dit.BOUNDARY_ID - 1]) >= 0.9 > float(sigma[train_dit.BOUNDARY_ID])


@pytest.mark.parametrize("layout", ["pro_first", "pro_next"])
def test_pro_layouts_pad_with_zero_latents(layout):
    clips = torch.randn(3, 16, 21, 8, 12).half()
    story = latents.StoryLatents(clips, ("a", "b", "c"))
    known = train_dit.condition(story, layout, 1, torch.Generator().manual_seed(0))
    first_zero = 1 if layout == "pro_first" else 2
    assert float(known[:, first_zero:].abs().max()) == 0.0
    if layout == "pro_next":
        assert torch.equal(known[:, 0], clips[0, :, 0].float())
        assert torch.equal(known[:, 1], clips[0, :, -1].float())


def test_mask_marks_slot_0_alone_as_known():
    mask = train_dit.with_mask(torch.zeros(1, 16, 21, 8, 12))[:, :4]
    assert float(mask[:, :, 0].min()) == 1.0
    assert float(mask[:, :, 1:].max()) == 0.0


def test_padding_logits_stand_for_all_padding_tokens():
    _, logits = latents.pad_texts([torch.zeros(3, 64), torch.zeros(1, 64)])
    assert logits[0].tolist() == pytest.approx([0.0, 0.0, 0.0, math.log(509)])
    assert logits[1, 1:].tolist() == pytest.approx([math.log(511), -math.inf, -math.inf])


def test_full_size_encoders_pass_untouched():
    names = {
        "shared.weight": (256384, 4096),
        "encoder.block.0.layer.0.SelfAttention.q.weight": (4096, 4096),
    }
    assert tiny_encoders.umt5_sizes(names) is None
    assert tiny_encoders.clip_vision_config({"shared.weight": (1, 1)}) is None
    assert tiny_encoders.NODE_CLASS_MAPPINGS == {}


@torch.no_grad()
def test_small_clip_vision_encoder_loads(tmp_path):
    import comfy.clip_model
    import comfy.clip_vision
    import comfy.ops

    sizes = {
        "model_type": "clip_vision_model",
        "hidden_size": 160,
        "num_hidden_layers": 2,
        "intermediate_size": 32,
        "num_attention_heads": 2,
    }
    config = {**sizes, "image_size": 28, "patch_size": 14, "num_channels": 3, "projection_dim": 8, "hidden_act": "gelu"}
    operations = comfy.ops.disable_weight_init
    model = comfy.clip_model.CLIPVisionModelProjection(config, torch.float32, "cpu", operations)
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 0.01)
    path = tmp_path / "small.safetensors"
    tiny_models.save_half(path, model.state_dict())
    encoder = comfy.clip_vision.load(str(path))
    output = encoder.encode_image(torch.rand(1, 64, 96, 3), crop=False)
    assert output.penultimate_hidden_states.shape == (1, 5, 160)


def test_any_text_can_be_encoded():
    read = latents.CaptionReader()
    assert read("").shape == (1, 64)
    for text in (*latents.NEGATIVE_PROMPTS, "THE RED BALL", "🎈"):
        assert torch.isfinite(read(text)).all()
    assert torch.equal(read("The RED ball"), read("the red ball"))


def psnr(decoded, frames):
    return float(-10.0 * torch.log10((decoded - frames).square().mean()))


@torch.no_grad()
def test_shipped_vae_reconstructs_held_out_frames_in_comfyui():
    import comfy.sd
    import comfy.utils

    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(tiny_models.VAE_FILE)))
    frames = world.render_clip(world.sample_story(world.HELD_OUT_SEED + 5, 1), 0)[:9].permute(0, 2, 3, 1)
    assert psnr(vae.decode(vae.encode(frames))[0], frames) >= 25.0


@pytest.mark.slow
@torch.no_grad()
def test_shipped_vae_reconstructs_whole_held_out_clips():
    vae, scores = latents.frozen_vae(), []
    for seed in range(world.HELD_OUT_SEED, world.HELD_OUT_SEED + 2):
        frames = world.render_clip(world.sample_story(seed, 1), 0).permute(0, 2, 3, 1)[None]
        latent = fast_vae.encode(vae, (frames * 2.0 - 1.0).bfloat16())
        scores.append(psnr(fast_vae.decode(vae, latent).float().clamp(-1, 1) / 2.0 + 0.5, frames))
    assert sum(scores) / len(scores) >= 25.0


@pytest.fixture(scope="module")
def held_out_stories():
    return [latents.encode_story(world.sample_story(world.HELD_OUT_SEED + 500, 2), other_layouts=True)]


@pytest.mark.slow
def test_shipped_latents_are_about_normal(held_out_stories):
    clips = torch.stack([story.clips.float() for story in held_out_stories])
    assert abs(float(clips.mean())) < 0.3
    assert 0.6 < float(clips.std()) < 1.4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "ids"),
    [
        (tiny_models.TRUNK_FILE, (0, 1000)),
        (tiny_models.HIGH_NOISE_FILE, (0, 358)),
        (tiny_models.LOW_NOISE_FILE, (358, 1000)),
    ],
)
def test_shipped_video_models_denoise_held_out_clips(path, ids, held_out_stories):
    import comfy.sd

    model = comfy.sd.load_diffusion_model(str(path)).model.diffusion_model
    assert model.in_dim == 36 and model.img_emb is None
    assert model.num_heads == tiny_models.TRUNK["num_heads"]
    read = latents.CaptionReader()
    loss = train_dit.held_out_loss(model, held_out_stories, read, ids, num_batches=1)
    assert loss < 0.5, "predicting zero scores about 2, an untrained model about 2.3"
