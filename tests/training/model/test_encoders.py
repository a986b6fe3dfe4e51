"""Encoders for training: ComfyUI's own values, whole clips only, and wrong files refused by name."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.training.fake_encoders import FakeEncoders
from tests.training.small_cache import settings
from training import cache as cache_module
from training.data.build_cache import build_cache
from training.data.dataset import CachedDataset

ROOT = Path(__file__).resolve().parents[3]
DEMO_VAE = ROOT / "demo" / "models" / "tiny_wan_vae.safetensors"
DEMO_TEXT = ROOT / "demo" / "models" / "tiny_umt5.safetensors"
REAL_CLIP = Path("/work/shared/data/train/sea/mixkit-a-boat-sailing-in-the-bay-1941.mp4")


@pytest.fixture(scope="module")
def encoders(comfy):
    import training.model.encoders

    return training.model.encoders


@pytest.fixture(scope="module")
def vae(encoders):
    return encoders.load_vae(DEMO_VAE)


@pytest.fixture(scope="module")
def text_encoder(encoders):
    return encoders.load_text_encoder(DEMO_TEXT)


def moving_picture(num_frames: int, width: int = 64, height: int = 32) -> torch.Tensor:
    """Return a smooth picture that moves to the right, [T, H, W, 3] in [0, 1]."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    waves = [torch.sin((columns - 2 * time) / 7.0) * torch.cos(rows / 5.0) for time in range(num_frames)]
    grey = torch.stack(waves)[..., None] * 0.4 + 0.5
    return torch.cat([grey, grey.flip(1), 1 - grey], dim=-1)


def test_a_latent_is_comfyuis_own_in_normalised_form(encoders, vae):
    import comfy.latent_formats

    frames = moving_picture(9)
    latent = encoders.encode_video(vae, frames)
    assert latent.shape == (16, 3, 4, 8) and latent.dtype == torch.float32 and not latent.requires_grad
    with torch.no_grad():
        assert torch.equal(latent, comfy.latent_formats.Wan21().process_in(vae.encode(frames))[0])


def test_weights_run_in_fp32_whatever_the_file_holds(encoders, tmp_path):
    save_file({key: tensor.bfloat16() for key, tensor in load_file(DEMO_VAE).items()}, tmp_path / "vae.safetensors")
    vae = encoders.load_vae(tmp_path / "vae.safetensors")
    assert {parameter.dtype for parameter in vae.first_stage_model.parameters()} == {torch.float32}


def test_the_vae_is_causal(encoders, vae):
    """What a short 2.0 Pro source relies on: its first frames encode alike, alone and in the clip."""
    frames = moving_picture(13)
    whole = encoders.encode_video(vae, frames)
    assert torch.allclose(encoders.encode_video(vae, frames[:5]), whole[:, :2], atol=1e-5)
    assert torch.allclose(encoders.encode_video(vae, frames[:1]), whole[:, :1], atol=1e-5)


def test_frames_come_back_in_chunks(encoders, vae):
    frames = moving_picture(13)
    latent = encoders.encode_video(vae, frames)
    chunks = list(encoders.decode(vae, latent))
    assert [len(chunk) for chunk in chunks] == [8, 5]
    import comfy.latent_formats

    samples = comfy.latent_formats.Wan21().process_out(latent[None])
    with torch.no_grad():
        assert torch.equal(torch.cat(chunks), vae.decode(samples)[0])


def test_a_text_is_encoded_as_comfyuis_node_does(encoders, text_encoder):
    embedding = encoders.encode_text(text_encoder, "a red ball rolls over the grass")
    scheduled = text_encoder.encode_from_tokens_scheduled(text_encoder.tokenize("a red ball rolls over the grass"))
    assert torch.equal(embedding, scheduled[0][0][0].float())
    assert embedding.shape == (512, 64)
    used = int(embedding.abs().sum(1).nonzero().max()) + 1
    assert 4 <= used < 30 and not embedding[used:].any()


def test_clip_vision_sees_the_whole_picture(encoders, tiny_models):
    from demo import tiny_encoders  # noqa: F401  (ComfyUI then takes the small encoder of the tests)

    vision = encoders.load_clip_vision(tiny_models / "clip_vision" / "clip_vision_h.safetensors")
    image = moving_picture(1, 128, 64)[0]
    tokens = encoders.encode_vision(vision, image)
    assert tokens.shape == (257, 1280) and tokens.dtype == torch.float32
    edge = image.clone()
    edge[:, :16] = 1.0  # a centre crop would not see it
    assert not torch.allclose(encoders.encode_vision(vision, edge), tokens)
    whole = vision.encode_image(image[None], crop=False)
    assert torch.equal(tokens, whole["penultimate_hidden_states"][0].float())
    assert not torch.equal(tokens, whole["last_hidden_state"][0].float())


def test_a_wrong_file_is_refused_by_name(encoders, tmp_path):
    with pytest.raises(ValueError, match="tiny_umt5.safetensors is not the VAE of Wan 2.1"):
        encoders.load_vae(DEMO_TEXT)
    with pytest.raises(ValueError, match="tiny_wan_vae.safetensors is not the text encoder of Wan"):
        encoders.load_text_encoder(DEMO_VAE)
    t5 = load_file(DEMO_TEXT)
    t5 = {key: tensor for key, tensor in t5.items() if "block.0." in key or "relative_attention_bias" not in key}
    save_file(t5, tmp_path / "t5.safetensors")
    with pytest.raises(ValueError, match="t5.safetensors is not the text encoder of Wan"):
        encoders.load_text_encoder(tmp_path / "t5.safetensors")
    torch.save({"a": torch.zeros(1)}, tmp_path / "vae.safetensors")
    for load in (encoders.load_vae, encoders.load_text_encoder, encoders.load_clip_vision):
        with pytest.raises(ValueError, match="pickle"):
            load(tmp_path / "vae.safetensors")


@pytest.mark.parametrize(("shape", "reason"), [((4, 32, 64), "num_frames is 4"), ((5, 32, 60), "width is 60")])
def test_sizes_that_wan_cannot_take_are_refused(encoders, vae, shape, reason):
    with pytest.raises(ValueError, match=reason):
        encoders.encode_video(vae, torch.zeros(*shape, 3))


def test_memory_that_runs_out_says_what_helps(encoders, vae, monkeypatch):
    def out_of_memory(pixels):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(vae.first_stage_model, "encode", out_of_memory)
    with pytest.raises(torch.OutOfMemoryError, match="encoding 5 frames of 64 x 32.*vae_tile"):
        encoders.encode_video(vae, moving_picture(5))


@pytest.mark.parametrize(
    ("pixel", "stage"),
    [(0.5, "8192 of 8192 latent values.*the VAE's encoder, from finite frames"), (torch.nan, "the frames before")],
)
def test_values_that_are_not_finite_are_refused_with_the_stage_that_made_them(encoders, vae, monkeypatch, pixel, stage):
    monkeypatch.setattr(vae.first_stage_model, "encode", lambda pixels: torch.full((1, 16, 2, 8, 32), torch.nan))
    frames = torch.full((5, 64, 256, 3), 0.5)
    frames[0, 0, 0, 0] = pixel
    with pytest.raises(ValueError, match=stage):
        encoders.encode_video(vae, frames)


def command(tmp_path: Path, *more: str) -> list[str]:
    """Return the arguments of a small cache of the real clips with the tiny models."""
    small = ["data.width=64", "data.height=48", "data.num_frames=9", "data.variants=1"]
    folders = [f"data.cache={tmp_path}/cache", "data.folder=/work/shared/data/train"]
    models = [f"model.vae={DEMO_VAE}", f"model.text_encoder={DEMO_TEXT}", "model.path="]
    return ["--config", str(ROOT / "training/configs/tiny.toml"), *small, *folders, *models, *more]


@pytest.mark.skipif(not REAL_CLIP.is_file(), reason=f"no real clips at {REAL_CLIP.parents[1]}")
def test_the_command_makes_a_cache_of_the_real_clips(comfy, tmp_path, capsys):
    assert cache_module.main(command(tmp_path)) == 0
    summary = capsys.readouterr().out
    assert "4 clips, 4 examples (4 encoded, 0 already cached), 0 skipped" in summary
    assert summary.count("begins after 1 plain or frozen frames") == 2  # both cats
    assert cache_module.main(command(tmp_path)) == 0
    assert "(0 encoded, 4 already cached)" in capsys.readouterr().out
    config = cache_module.load_config(Path(command(tmp_path)[1]), command(tmp_path)[2:]).data
    dataset = CachedDataset(config.cache_folder, config)
    example = dataset.example(0, 0)
    assert example.latent.shape == example.y_latent.shape == (16, 3, 6, 8) and example.text.shape == (512, 64)
    assert 0.3 < float(example.latent.std()) < 3.0  # normalised latents have a spread of about 1
    assert torch.count_nonzero(example.y_latent[:, 1 + len(example.error_slots) :]) == 0


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("data.folder=/nowhere", "data.folder is '/nowhere'"),
        ("data.foldre=x", "data.foldre"),
        ("model.vae=", "model.vae is empty"),
        (f"model.text_encoder={DEMO_VAE}", "not the text encoder of Wan"),
        ("model.path=wan21.safetensors", "set model.clip_vision"),
    ],
)
def test_the_command_says_what_is_wrong(comfy, tmp_path, capsys, monkeypatch, override, reason):
    monkeypatch.chdir(tmp_path)
    save_file({"img_emb.proj.0.weight": torch.zeros(1280)}, "wan21.safetensors")
    clip = REAL_CLIP if REAL_CLIP.is_file() else pytest.skip(f"no real clip at {REAL_CLIP}")
    (tmp_path / "clips").mkdir()
    (tmp_path / "clips" / "a.mp4").write_bytes(clip.read_bytes())
    (tmp_path / "clips" / "a.txt").write_text("A boat")
    assert cache_module.main([*command(tmp_path, f"data.folder={tmp_path}/clips"), override]) == 2
    assert reason in capsys.readouterr().err


def wan_header(path: Path, text: int, vision: int = 1280) -> Path:
    """Write what tells the widths that a video model reads."""
    save_file({"text_embedding.0.weight": torch.zeros(8, text), "img_emb.proj.0.weight": torch.zeros(vision)}, path)
    return path


def relative_of_the_vae(path: Path, colours_in: int, colours_out: int) -> Path:
    """Write a VAE that makes Wan 2.1's latents of other pictures: layered ones (Qwen-Image-Layered), or upscaled ones."""
    from comfy.ldm.wan.vae import WanVAE

    sizes = {"dim": 2, "z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": []}
    made = WanVAE(**sizes, temperal_downsample=[False, True, True], image_channels=colours_in, conv_out_channels=colours_out)
    save_file({key: torch.zeros(value.shape) for key, value in made.state_dict().items()}, path)
    return path


def other_vae(path: Path, **shapes: tuple[int, ...]) -> Path:
    """Write some tensors of another VAE; dots in their names are "__" here."""
    save_file({key.replace("__", "."): torch.zeros(shape) for key, shape in shapes.items()}, path)
    return path


def image_vae(path: Path) -> Path:
    return other_vae(path, decoder__conv_in__weight=(512, 4, 3, 3), encoder__conv_in__weight=(128, 3, 3, 3))


def vae_of_wan22_5b(path: Path) -> Path:
    upsampler = {"decoder__upsamples__0__upsamples__0__residual__2__weight": (8, 8, 3, 3, 3)}
    return other_vae(path, decoder__middle__0__residual__0__gamma=(8, 1, 1, 1), conv2__weight=(48, 48, 1, 1, 1), **upsampler)


def tiny_autoencoder(path: Path) -> Path:
    return other_vae(path, decoder__1__weight=(256, 16, 3, 3), encoder__0__weight=(64, 3, 3, 3))


def part_of_the_vae(path: Path, without: str) -> Path:
    """Write the tiny VAE without the tensors whose names begin with `without`."""
    save_file({key: tensor for key, tensor in load_file(DEMO_VAE).items() if not key.startswith(without)}, path)
    return path


def refused(tmp_path, monkeypatch, capsys, *overrides: str) -> str:
    """Return the message of a command that must not come to look at any clip."""
    monkeypatch.setattr(cache_module, "build_cache", lambda *_, **__: pytest.fail("clips were read"))
    assert cache_module.main(command(tmp_path, *overrides)) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (image_vae, "is not the VAE of Wan 2.1"),
        (vae_of_wan22_5b, "is not the VAE of Wan 2.1"),
        (tiny_autoencoder, "is not the VAE of Wan 2.1"),
        (lambda path: relative_of_the_vae(path, 4, 4), "encodes 4 and decodes to 4 colour channels, but a video has 3"),
        (lambda path: relative_of_the_vae(path, 3, 12), "encodes 3 and decodes to 12 colour channels, but a video has 3"),
        (lambda path: DEMO_TEXT, "is not the VAE of Wan 2.1"),
        (lambda path: part_of_the_vae(path, "encoder."), "it lacks encoder.conv1.weight"),
        (lambda path: part_of_the_vae(path, "conv2."), "it lacks conv2.weight"),
        (lambda path: part_of_the_vae(path, "decoder.head."), "it lacks decoder.head.0.gamma"),
        (lambda path: part_of_the_vae(path, "encoder.middle.0."), "it lacks encoder.middle.0."),
        (lambda path: part_of_the_vae(path, "decoder."), "is not the VAE of Wan 2.1"),
    ],
    ids=[
        "image",
        "5B",
        "TAE",
        "layered",
        "upscaling",
        "text encoder",
        "decoder only",
        "no conv2",
        "no head",
        "a layer less",
        "encoder only",
    ],
)
def test_a_wrong_vae_is_refused_before_any_clip_is_read(comfy, tmp_path, monkeypatch, capsys, make, reason):
    path = make(tmp_path / "other.safetensors")
    message = refused(tmp_path, monkeypatch, capsys, f"model.vae={path}")
    assert str(path) in message and reason in message


@pytest.mark.parametrize(("role", "words"), [("text_encoder", "not the text encoder"), ("clip_vision", "not a CLIP vision")])
def test_any_other_wrong_encoder_is_refused_before_any_clip_is_read(comfy, tmp_path, monkeypatch, capsys, role, words):
    assert words in refused(tmp_path, monkeypatch, capsys, f"model.clip_vision={DEMO_VAE}", f"model.{role}={DEMO_VAE}")


def test_text_that_the_video_model_cannot_read_is_refused_with_both_widths(comfy, tmp_path, monkeypatch, capsys):
    model = wan_header(tmp_path / "wan.safetensors", text=4096)
    message = refused(tmp_path, monkeypatch, capsys, f"model.path={model}", f"model.clip_vision={DEMO_VAE}")
    assert f"{DEMO_TEXT} is 64 wide, but {model} reads text embeddings 4096 wide" in message


def test_clip_vision_that_the_video_model_cannot_read_is_refused_with_both_widths(comfy, tmp_path, monkeypatch, capsys):
    model, vision = wan_header(tmp_path / "wan.safetensors", text=64), tmp_path / "clip_vision_l.safetensors"
    save_file({"vision_model.embeddings.patch_embedding.weight": torch.zeros(1024, 3, 14, 14)}, vision)
    message = refused(tmp_path, monkeypatch, capsys, f"model.path={model}", f"model.clip_vision={vision}")
    assert f"{vision} makes features 1024 wide, but {model} reads CLIP vision features 1280 wide" in message


def test_training_refuses_a_cache_of_text_that_the_model_cannot_read(clips, tmp_path):
    from training.run.session import open_cache
    from training.settings.reader import config_from

    data = settings(clips)
    build_cache(data, FakeEncoders())
    config = config_from({"model": {"expert": "high", "path": str(wan_header(tmp_path / "wan.safetensors", text=4096))}})
    with pytest.raises(ValueError, match="cache .* is 4 wide, but .*wan.safetensors reads text embeddings 4096 wide"):
        open_cache(replace(config, data=data), 1)
