"""Several cards, as far as they can be faked: "cpu:1" is another device to ComfyUI, whose tensors lie on the CPU."""

import pytest
import torch

from tests.nodes.bridge.clips import latents_of

SECOND = torch.device("cpu", 1)


@pytest.fixture
def two_devices(comfy, monkeypatch):
    import comfy.model_management

    monkeypatch.setattr(
        comfy.model_management, "get_all_torch_devices", lambda exclude_current=False: [torch.device("cpu"), SECOND]
    )


def test_each_expert_runs_on_its_own_device(module, sampler, experts, tmp_path, two_devices, monkeypatch):
    """As ComfyUI's Select Model Device places them; the latent goes from one to the other."""
    import comfy.model_management

    expected = latents_of(module, tmp_path / "one", *sampler(*experts))
    loaded, load = [], comfy.model_management.load_models_gpu
    low = experts[1].deepclone_multigpu(new_load_device=SECOND)

    def note(models, *arguments, **options):
        loaded.extend((model.model, model.load_device) for model in models)
        return load(models, *arguments, **options)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", note)
    found = latents_of(module, tmp_path / "two", *sampler(experts[0], low))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert {device for model, device in loaded if model is low.model} == {SECOND}
    assert {device for model, device in loaded if model is experts[0].model} == {torch.device("cpu")}


def test_comfyuis_split_of_the_passes_of_guidance_makes_the_same_clips(module, sampler, experts, tmp_path, two_devices):
    """MultiGPU CFG Split: the prompt's pass on one device, the negative prompt's on the other, our LoRA on both."""
    import comfy.multigpu

    expected = latents_of(module, tmp_path / "one", *sampler(*experts))
    split = [comfy.multigpu.create_multigpu_deepclones(model.clone(), 2) for model in experts]
    ran = [0, 0]
    for place, patcher in enumerate((split[0], split[0].get_additional_models_with_key("multigpu")[0])):

        def count(*_, place=place):
            ran[place] += 1

        patcher.model.diffusion_model.blocks[0].register_forward_hook(count)
    found = latents_of(module, tmp_path / "two", *sampler(*split))
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(found, expected, strict=True))
    assert ran[0] == ran[1] > 0


def test_the_peak_is_that_of_the_fullest_card(module, monkeypatch):
    """The plan compares it with one card's memory."""
    import comfy.model_management

    sampling, cards = module("nodes.bridge.sampling"), [torch.device("cuda", 0), torch.device("cuda", 1)]
    peaks, reset = dict(zip(cards, (3, 5), strict=True)), []
    monkeypatch.setattr(comfy.model_management, "get_all_torch_devices", lambda: cards)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", peaks.get)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset.append)
    sampling.reset_peak_memory()
    assert sampling.peak_memory() == 5 and reset == cards
