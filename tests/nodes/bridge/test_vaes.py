"""Frames from latents on ComfyUI's own VAE: chunked decode, and memory that runs out."""

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


def test_other_errors_in_the_decode_are_not_swallowed(bridge, vae, monkeypatch):
    def failing(vae, samples):
        raise RuntimeError("a bug")
        yield

    monkeypatch.setattr(bridge.vaes, "_decode_causally", failing)
    with pytest.raises(RuntimeError, match="a bug"):
        list(bridge.vaes.decode_chunks(vae, torch.zeros(1, 16, 2, 4, 4)))
