"""One stage of sampling with ComfyUI's own samplers: it repeats itself, and leaves what nodes have made as it was."""

import pytest
import torch

SIGMAS = (1.0, 0.9, 0.6, 0.0)


@pytest.fixture(scope="module")
def inputs():
    """Noise, conditioning and the latent of a clip of two slots, as nodes hand them out."""
    random = torch.Generator().manual_seed(1)
    y = {"concat_latent_image": torch.randn(1, 16, 2, 4, 4, generator=random), "concat_mask": torch.ones(1, 1, 2, 4, 4)}
    positive, negative = ([[torch.randn(1, 7, 32, generator=random), dict(y)]] for _ in range(2))
    noise, samples = torch.randn(1, 16, 2, 4, 4, generator=random), torch.zeros(1, 16, 2, 4, 4)
    return {"noise": noise, "positive": positive, "negative": negative, "samples": samples, "sigmas": torch.tensor(SIGMAS)}


def tensors_in(value) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [tensor for part in parts for tensor in tensors_in(part)]


@pytest.mark.filterwarnings("ignore::Warning:comfy")
def test_no_sampler_of_comfyui_changes_what_it_is_given(bridge, model, inputs):
    """A second run gets the same objects from ComfyUI's cache. uni_pc wrote 0.001 over the last of the sigmas."""
    import comfy.samplers

    before = [tensor.clone() for tensor in tensors_in(inputs)]
    names = comfy.samplers.SAMPLER_NAMES
    assert {"euler", "uni_pc", "uni_pc_bh2"} <= set(names)
    for name in names:
        with torch.inference_mode():
            first, second = (
                bridge.sampling.sample_stage(
                    model, cfg=2.0, sampler=comfy.samplers.sampler_object(name), seed=1, callback=None, **inputs
                )
                for _ in range(2)
            )
        changed = [place for place, pair in enumerate(zip(tensors_in(inputs), before, strict=True)) if not torch.equal(*pair)]
        assert not changed, (name, inputs["sigmas"])
        assert torch.equal(first, second), name
