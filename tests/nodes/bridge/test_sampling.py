"""One stage of sampling with ComfyUI's own samplers: it repeats itself, and leaves what nodes have made as it was."""

import pytest
import torch

SIGMAS = (1.0, 0.9, 0.6, 0.0)


@pytest.fixture
def inputs(comfy):
    """Noise, conditioning and the latent of a clip of two slots, as nodes hand them out."""
    from comfy.clip_vision import Output

    random = torch.Generator().manual_seed(1)
    y = {"concat_latent_image": torch.randn(1, 16, 2, 4, 4, generator=random), "concat_mask": torch.ones(1, 1, 2, 4, 4)}
    features = Output()
    features.penultimate_hidden_states = torch.randn(1, 5, 8, generator=random)
    positive, negative = ([[torch.randn(1, 7, 32, generator=random), {**y, "clip_vision_output": features}]] for _ in range(2))
    noise, samples = torch.randn(1, 16, 2, 4, 4, generator=random), torch.zeros(1, 16, 2, 4, 4)
    return {"noise": noise, "positive": positive, "negative": negative, "samples": samples, "sigmas": torch.tensor(SIGMAS)}


def tensors_in(value) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, list | tuple):
        parts = value
    elif isinstance(value, dict):
        parts = value.values()
    else:  # ComfyUI's wrapping of one condition, or CLIP vision features
        parts = [getattr(value, name, None) for name in ("cond", "penultimate_hidden_states")] if value is not None else []
    return [tensor for part in parts for tensor in tensors_in(part)]


@pytest.mark.filterwarnings("ignore::Warning:comfy")
def test_no_sampler_of_comfyui_changes_what_it_is_given(bridge, model, inputs):
    """A second run gets the same objects from ComfyUI's cache. uni_pc wrote 0.001 over the last of the sigmas."""
    import comfy.samplers

    before = [tensor.clone() for tensor in tensors_in(inputs)]
    names = comfy.samplers.SAMPLER_NAMES
    assert {"euler", "uni_pc", "uni_pc_bh2"} <= set(names)
    for name in names:
        sampler = comfy.samplers.sampler_object(name)  # which ComfyUI keeps between two runs
        with torch.inference_mode():
            first, second = (
                bridge.sampling.sample_stage(model, cfg=2.0, sampler=sampler, seed=1, callback=None, **inputs) for _ in range(2)
            )
        changed = [place for place, pair in enumerate(zip(tensors_in(inputs), before, strict=True)) if not torch.equal(*pair)]
        assert not changed, (name, inputs["sigmas"])
        assert torch.equal(first, second), name


def writing(model):
    """Return the model with patches of four kinds that write into whatever they get, once it was used."""
    from comfy.patcher_extension import WrappersMP

    def overwrite(*given):
        for tensor in tensors_in(given):
            tensor.mul_(0.5)

    def unet(apply_model, given):
        made = apply_model(given["input"], given["timestep"], **given["c"])
        overwrite(given["input"], given["timestep"], given["c"])
        return made

    def wrapper(execute, *given, **more):
        made = execute(*given, **more)
        overwrite(*given, more)
        return made

    patched = model.clone()
    patched.set_model_unet_function_wrapper(unet)
    for kind in (WrappersMP.CALC_COND_BATCH, WrappersMP.APPLY_MODEL, WrappersMP.DIFFUSION_MODEL):
        patched.add_wrapper(kind, wrapper)
    return patched


@pytest.fixture
def guided(bridge):
    """Sample as `sample_stage` does, by a guider."""
    import comfy.samplers

    def run(model, cfg, positive, negative, **stage):
        guider = comfy.samplers.CFGGuider(model)
        guider.set_conds(positive, negative)
        guider.set_cfg(cfg)
        return bridge.sampling.sample_guided(guider, **stage)

    return run


@pytest.mark.parametrize("name", ["euler", "uni_pc"])
@pytest.mark.parametrize("cfg", [1.0, 2.0])
def test_nothing_that_a_patch_writes_reaches_what_nodes_have_made(bridge, model, inputs, guided, name, cfg):
    """x, sigmas, c_concat, c_crossattn and the prompts themselves, by each way that the pack samples."""
    import comfy.samplers

    before = [tensor.clone() for tensor in tensors_in(inputs)]
    stage = {"cfg": cfg, "sampler": comfy.samplers.sampler_object(name), "seed": 1, "callback": None, **inputs}
    for patched in (model, writing(model)):
        with torch.inference_mode():
            made = [sample(patched, **stage) for sample in (bridge.sampling.sample_stage, guided) for _ in range(2)]
        changed = [place for place, pair in enumerate(zip(tensors_in(inputs), before, strict=True)) if not torch.equal(*pair)]
        assert not changed, patched is model
        for one in made:  # a sampler whose sigmas a patch halves may come to nothing
            torch.testing.assert_close(one, made[0], rtol=0, atol=0, equal_nan=patched is not model)


def test_prompts_and_anchors_are_hashed_once_a_run(sampler, experts, module, monkeypatch):
    """They have megabytes: 8.4 each prompt, 5.2 the anchor at 832 x 480."""
    plan, maker = sampler(*experts)
    request = plan.request(0)
    first = maker.determinants(request)
    hashed, real = [], module("nodes.clip_sampler").fingerprint
    for room in ("nodes.clip_sampler", "nodes.schedule"):
        monkeypatch.setattr(module(room), "fingerprint", lambda *values: hashed.append(values) or real(*values))
    assert maker.determinants(request) == first and hashed == []
    assert first[1] == real(maker.prompts.encode(request.spec.prompt)) and first[2][0] == real(maker.anchor)
