"""Frames from latents on ComfyUI's own VAE: chunked decode, and memory that runs out."""

import importlib
import sys
from types import SimpleNamespace

import pytest
import torch


@pytest.mark.parametrize("slots", [1, 2, 3, 6, 21])
def test_chunked_decode_is_bit_for_bit_the_whole_decode(bridge, vae, slots):
    latent = torch.randn(1, 16, slots, 4, 6, generator=torch.Generator().manual_seed(slots))
    chunks = list(bridge.vaes.decode_chunks(vae, latent))
    assert torch.equal(torch.cat(chunks), vae.decode(latent)[0])
    assert max(len(chunk) for chunk in chunks) <= 8


OUT_OF_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    MemoryError(),
]


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_memory_that_runs_out_in_the_middle_gives_the_rest_in_tiles(bridge, vae, monkeypatch, caplog, error):
    latent = torch.randn(1, 16, 6, 4, 6, generator=torch.Generator().manual_seed(0))
    real = bridge.vaes._decode_causally

    def failing(vae, samples):
        for index, chunk in enumerate(real(vae, samples)):
            if index == 2:
                raise error
            yield chunk

    monkeypatch.setattr(bridge.vaes, "_decode_causally", failing)
    with torch.inference_mode():  # as ComfyUI executes nodes
        frames = torch.cat(list(bridge.vaes.decode_chunks(vae, latent)))
        expected = vae.decode(latent)[0]
    assert frames.shape == (21, 32, 48, 3) and "using spatial tiles from frame 9 on" in caplog.text
    assert torch.allclose(frames, expected, atol=0.05)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_memory_too_small_even_for_tiles_is_told_with_the_size(bridge, vae, monkeypatch, error):
    def failing(*_, **__):
        raise error
        yield

    monkeypatch.setattr(bridge.vaes, "_decode_causally", failing)
    monkeypatch.setattr(vae, "decode_tiled", lambda *_, **__: next(failing()))
    with pytest.raises(type(error), match="decoding a clip of 21 frames of 48 x 32 pixels, even in spatial tiles.*--lowvram"):
        list(bridge.vaes.decode_chunks(vae, torch.zeros(1, 16, 6, 4, 6)))


def test_tiles_by_choice_are_comfyui_s_own_over_the_whole_length(bridge, vae, caplog):
    latent = torch.randn(1, 16, 3, 40, 6, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        frames = torch.cat(list(bridge.vaes.decode_chunks(vae, latent, bridge.vaes.DecodeTiles.ALWAYS)))
        expected = vae.decode_tiled(latent, tile_x=32, tile_y=32, overlap=8, tile_t=3, overlap_t=1)[0]
        whole = vae.decode(latent)[0]
    assert torch.equal(frames, expected) and not torch.equal(frames, whole) and "out of memory" not in caplog.text


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_never_in_tiles_ends_with_the_size_and_the_choice(bridge, vae, monkeypatch, error):
    def failing(*_, **__):
        yield torch.zeros(1, 48, 32, 3)
        raise error

    monkeypatch.setattr(bridge.vaes, "_decode_causally", failing)
    monkeypatch.setattr(vae, "decode_tiled", lambda *_, **__: pytest.fail("tiles"))
    chunks = bridge.vaes.decode_chunks(vae, torch.zeros(1, 16, 6, 4, 6), bridge.vaes.DecodeTiles.NEVER)
    assert next(chunks).shape == (1, 48, 32, 3)
    with pytest.raises(
        type(error), match="decoding a clip of 21 frames of 48 x 32 pixels: .*set decode_tiles of SVI Output to auto"
    ):
        next(chunks)


def test_other_errors_in_the_decode_are_not_swallowed(bridge, vae, monkeypatch):
    def failing(vae, samples):
        raise RuntimeError("a bug")
        yield

    monkeypatch.setattr(bridge.vaes, "_decode_causally", failing)
    with pytest.raises(RuntimeError, match="a bug"):
        list(bridge.vaes.decode_chunks(vae, torch.zeros(1, 16, 2, 4, 4)))


def other_vae(room: str, name: str, latent_channels: int, latent_dim: int = 3) -> SimpleNamespace:
    """Return a VAE of one of ComfyUI's classes, as far as it is looked at."""
    kind = getattr(importlib.import_module(room), name)
    return SimpleNamespace(first_stage_model=kind.__new__(kind), latent_channels=latent_channels, latent_dim=latent_dim)


def relative_of_the_vae(colours_in: int, colours_out: int) -> SimpleNamespace:
    """Return a VAE that makes Wan 2.1's latents of other pictures: layered ones (Qwen-Image-Layered), or upscaled ones."""
    from comfy.ldm.wan.vae import WanVAE

    sizes = {"dim": 2, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": []}
    sizes |= {"temperal_downsample": [False, True, True], "image_channels": colours_in, "conv_out_channels": colours_out}
    return SimpleNamespace(first_stage_model=WanVAE(**sizes), latent_channels=16, latent_dim=3)


WRONG_VAES = {
    "5B": (lambda: other_vae("comfy.ldm.wan.vae2_2", "WanVAE", 48), "makes 48-channel 3-dimensional"),
    "image": (lambda: other_vae("comfy.ldm.models.autoencoder", "AutoencoderKL", 16, 2), "makes 16-channel 2-dimensional"),
    "tiny image": (lambda: other_vae("comfy.taesd.taesd", "TAESD", 16, 2), "makes 16-channel 2-dimensional"),
    "HunyuanVideo": (lambda: other_vae("comfy.ldm.models.autoencoder", "AutoencoderKL", 16), r"vae \(AutoencoderKL\)"),
    "tiny 5B": (lambda: other_vae("comfy.taesd.taehv", "TAEHV", 48), "makes 48-channel"),
    "layered": (lambda: relative_of_the_vae(4, 4), "vae encodes 4 and decodes to 4 colour channels, but a video has 3"),
    "upscaling": (lambda: relative_of_the_vae(3, 12), "vae encodes 3 and decodes to 12 colour channels, but a video has 3"),
}


@pytest.mark.parametrize("kind", WRONG_VAES)
def test_every_node_refuses_a_wrong_vae_before_it_is_used(bridge, pack, comfy, kind):
    conditioning = sys.modules[f"{pack.__name__}.nodes.conditioning"]
    vae, message = WRONG_VAES[kind][0](), WRONG_VAES[kind][1]
    image, anchor = torch.zeros(1, 64, 64, 3), {"samples": torch.zeros(1, 16, 1, 8, 8)}
    anchor[bridge.latents.FRAMES_KEY] = image
    uses = (
        lambda: bridge.vaes.require_wan_vae(vae),
        lambda: conditioning.SVIAnchorEncode.execute(vae, image, 64, 64, "exact", "crop"),
        lambda: conditioning.SVIMotionLatent.execute("1", images=image, vae=vae),
        lambda: conditioning.SVIConditioning.execute([], [], anchor, 9, "grey frames", vae=vae),
    )
    for use in uses:
        with pytest.raises(ValueError, match=message):
            use()


def test_the_vae_of_wan_and_its_tiny_form_are_taken(bridge, vae, comfy):
    bridge.vaes.require_wan_vae(vae)
    bridge.vaes.require_wan_vae(other_vae("comfy.taesd.taehv", "TAEHV", 16))


def test_a_clip_of_frames_is_put_together_where_the_vae_is(bridge, vae, monkeypatch):
    """The VAE comes first, since another model may have to leave the device for it. The meta device stands for a GPU."""
    import comfy.model_management

    from svi_core.conditioning.build_y import KnownPart, padded_frames

    asked = []
    monkeypatch.setattr(comfy.model_management, "load_models_gpu", lambda *models, **options: asked.append((models, options)))
    part = KnownPart(frames=torch.rand(1, 32, 48, 3))
    assert bridge.vaes.near_vae(vae, part, 9) is part and bridge.vaes.near_vae(vae, None, 9) is None and not asked
    monkeypatch.setattr(vae, "device", torch.device("meta"))
    moved = bridge.vaes.near_vae(vae, part, 9)
    assert moved.frames.device.type == "meta" and padded_frames(moved.frames, None, 9).device.type == "meta"
    ((models, options),) = asked
    assert models == ([vae.patcher],) and options["memory_required"] >= vae.memory_used_encode((1, 3, 9, 32, 48), vae.vae_dtype)
    latent_only = KnownPart(latent=torch.rand(1, 16, 1, 4, 6))
    assert bridge.vaes.near_vae(vae, latent_only, 9) is latent_only


@pytest.mark.parametrize("place", ["load", "move"])
def test_frames_stay_on_the_host_where_the_vaes_device_lacks_memory(bridge, vae, monkeypatch, place):
    """As ComfyUI's VAE then encodes in tiles; other errors are told."""
    import comfy.model_management

    from svi_core.conditioning.build_y import KnownPart

    def fails(*_, **__):
        raise raised[-1]

    raised, part = [], KnownPart(frames=torch.rand(1, 32, 48, 3))
    monkeypatch.setattr(comfy.model_management, "load_models_gpu", fails if place == "load" else lambda *_, **__: None)
    monkeypatch.setattr(vae, "device", torch.device("meta"))
    if place == "move":
        monkeypatch.setattr(torch.Tensor, "to", fails)
    for error in OUT_OF_MEMORY:
        raised.append(error)
        assert bridge.vaes.near_vae(vae, part, 9) is part
    raised.append(RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        bridge.vaes.near_vae(vae, part, 9)


def test_a_clip_that_ends_with_an_image_is_put_together_where_the_vae_is(bridge, vae, monkeypatch):
    import comfy.model_management

    encoded = []
    monkeypatch.setattr(comfy.model_management, "load_models_gpu", lambda *models, **options: None)
    monkeypatch.setattr(bridge.vaes, "encode_frames", lambda vae, frames: encoded.append(frames) or torch.zeros(1, 16, 3, 4, 6))
    image = {"samples": torch.zeros(1, 16, 1, 4, 6), bridge.latents.FRAMES_KEY: torch.rand(1, 32, 48, 3)}
    assert bridge.vaes.encode_end_image(vae, image, 9).shape == (1, 16, 1, 4, 6)
    (clip,) = encoded
    assert torch.equal(clip[-1:], image[bridge.latents.FRAMES_KEY]) and (clip[:-1] == 0.5).all() and len(clip) == 9
    monkeypatch.setattr(vae, "device", torch.device("meta"))
    bridge.vaes.encode_end_image(vae, image, 9)
    assert encoded[1].device.type == "meta" and encoded[1].shape == (9, 32, 48, 3)
