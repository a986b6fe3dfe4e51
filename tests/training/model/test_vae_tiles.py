"""Encoding in tiles: the latent of a whole encode, whatever the side of the tiles."""

from pathlib import Path

import pytest
import torch

DEMO_VAE = Path(__file__).resolve().parents[3] / "demo" / "models" / "tiny_wan_vae.safetensors"
ROUNDING = 1e-5  # rms; a latent's is about 1


@pytest.fixture(scope="module")
def encoders(comfy):
    import training.model.encoders

    return training.model.encoders


@pytest.fixture(scope="module")
def trained_vae(encoders):
    return encoders.load_vae(DEMO_VAE)


@pytest.fixture(scope="module")
def random_vae(encoders):
    """Wan's own encoder at a twelfth of its width, as PyTorch initialises it."""
    import comfy.ldm.wan.vae

    torch.manual_seed(0)
    vae = comfy.ldm.wan.vae.WanVAE(dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], temperal_downsample=[False, True, True])
    for parameter in vae.parameters():
        if parameter.dim() > 1:
            torch.nn.init.kaiming_uniform_(parameter, a=5**0.5)
        else:
            torch.nn.init.ones_(parameter)
    return vae.eval()


def noise(num_frames: int, width: int, height: int) -> torch.Tensor:
    """Return frames [T, H, W, 3] in [0, 1] with detail at every scale."""
    generator = torch.Generator().manual_seed(width)
    frames = torch.zeros(num_frames, 3, height, width)
    for scale in (1, 4, 16, 64):
        coarse = torch.rand(num_frames, 3, height // scale + 1, width // scale + 1, generator=generator)
        frames += torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear") / 4
    return frames.movedim(1, -1)


def rms(difference: torch.Tensor) -> float:
    return float(difference.square().mean().sqrt())


@pytest.mark.parametrize(("width", "height"), [(208, 112), (96, 160)])
@pytest.mark.parametrize("tile", [48, 96, 112, 272])
def test_tiles_of_any_side_give_the_latent_of_a_whole_encode(encoders, trained_vae, width, height, tile):
    frames = noise(5, width, height)
    assert rms(encoders.encode_video(trained_vae, frames, tile) - encoders.encode_video(trained_vae, frames)) < ROUNDING


RELEASED_SIZES = [(832, 480), (480, 832), (640, 480)]


@pytest.mark.parametrize(("width", "height"), RELEASED_SIZES)
def test_the_released_tile_fits_every_released_size(encoders, trained_vae, width, height):
    """The presets' 272 pixels once overlapped by 8.5 latents: Dance raised, Film was NaN, Talk off by 0.38."""
    frame = noise(1, width, height)
    tiled = encoders.encode_video(trained_vae, frame, 272)
    assert tiled.shape == (16, 1, height // 8, width // 8)
    assert rms(tiled - encoders.encode_video(trained_vae, frame)) < ROUNDING


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height"), RELEASED_SIZES)
def test_every_allowed_tile_fits_every_released_size(encoders, trained_vae, width, height):
    frame = noise(1, width, height)
    whole = encoders.encode_video(trained_vae, frame)
    errors = {tile: rms(encoders.encode_video(trained_vae, frame, tile) - whole) for tile in range(96, 513, 16)}
    assert max(errors.values()) < ROUNDING, errors


def test_it_holds_for_weights_that_are_not_trained(encoders, random_vae):
    from training.model.vae_tiles import encode_in_tiles

    pixels = noise(5, 160, 96).movedim(-1, 0)[None] * 2 - 1
    with torch.no_grad():
        whole = random_vae.encode(pixels)
        assert rms(encode_in_tiles(random_vae, pixels, 64) - whole) < ROUNDING * rms(whole)


def test_a_tile_takes_its_own_pixels_and_a_margin_at_its_full_length(encoders, trained_vae, monkeypatch):
    seen = []
    encoder = trained_vae.first_stage_model.encoder
    real = type(encoder).forward
    record = lambda self, pixels, *more, **options: seen.append(tuple(pixels.shape[2:])) or real(self, pixels, *more, **options)  # noqa: E731
    monkeypatch.setattr(type(encoder), "forward", record)
    tiled = encoders.encode_video(trained_vae, noise(5, 208, 112), 64)
    assert not tiled.is_inference() and tiled.shape == (16, 2, 14, 26)
    assert {shape[1:] for shape in seen} == {
        (112, 112),
        (112, 160),
        (112, 128),
        (96, 112),
        (96, 160),
        (96, 128),
        (96, 64),
        (112, 64),
    }
    lengths = [shape[0] for shape in seen]
    assert sum(lengths) == 5 * 8, "eight tiles, each over the whole clip"


def test_the_vae_itself_stays_as_it_was(encoders, trained_vae):
    before = dict(trained_vae.first_stage_model.encoder.named_modules())
    encoders.encode_video(trained_vae, noise(1, 64, 64), 32)
    assert dict(trained_vae.first_stage_model.encoder.named_modules()) == before
