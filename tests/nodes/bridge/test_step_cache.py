"""SVI Generate with ComfyUI's EasyCache, for many steps: fewer passes, the same clips each time, keys that stay."""

import importlib.util
import shutil
import sys

import pytest
import torch

from tests.nodes.bridge.clips import latents_of

STEPS, FORCED = 20, 3.0  # random models change so much from step to step that no usual threshold is kept


@pytest.fixture(scope="module")
def easy_cache(comfyui_path, comfy):
    """ComfyUI's node; loaded by its file, since comfy_extras would import ComfyUI's nodes."""
    path = comfyui_path / "comfy_extras" / "nodes_easycache.py"
    spec = importlib.util.spec_from_file_location("svi_test_easycache", path)
    module = sys.modules.setdefault(spec.name, importlib.util.module_from_spec(spec))
    spec.loader.exec_module(module)

    def cached(model, threshold=0.2):
        return module.EasyCacheNode.execute(model, threshold, 0.15, 0.95, False).args[0]

    return cached


@pytest.fixture
def passes(experts):
    """How often each expert's first block has run."""
    counted = [0, 0]

    def count(place):
        def hook(*_):
            counted[place] += 1

        return hook

    hooks = [model.model.diffusion_model.blocks[0].register_forward_hook(count(place)) for place, model in enumerate(experts)]
    yield counted
    for hook in hooks:
        hook.remove()


def test_many_steps_need_fewer_passes_and_give_the_same_clips_each_time(module, sampler, experts, easy_cache, passes, tmp_path):
    latents_of(module, tmp_path / "plain", *sampler(*experts, num_steps=STEPS))
    plain, passes[:] = list(passes), [0, 0]
    found = [
        latents_of(module, tmp_path / name, *sampler(*(easy_cache(model, FORCED) for model in experts), num_steps=STEPS))
        for name in ("once", "again")
    ]
    cached = [count / 2 for count in passes]
    assert sum(plain) in (3 * STEPS, 2 * 3 * STEPS) and 0 < sum(cached) < 0.9 * sum(plain)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True)) and all(latent.isfinite().all() for latent in found[0])


@pytest.mark.parametrize("leaks", [False, True])
def test_a_clip_is_cached_by_itself(module, sampler, experts, easy_cache, passes, tmp_path, monkeypatch, leaks):
    """The second clip of a chain is what new nodes make of it, by as many passes: nothing is kept of the clip before."""
    folders, counted, second = [tmp_path / "chain", tmp_path / "anew"], [], []
    if leaks:
        holder = sys.modules["svi_test_easycache"].EasyCacheHolder
        monkeypatch.setattr(holder, "clone", lambda self: self)
        monkeypatch.setattr(holder, "reset", lambda self: self)

    def after_each():
        counted.append(list(passes))
        if len(counted) == 1:
            shutil.copytree(*folders)

    for folder in folders:
        passes[:] = [0, 0]
        plan, maker = sampler(*(easy_cache(model, FORCED) for model in experts), num_steps=STEPS)
        second.append(latents_of(module, folder, plan, maker, after_each)[1])
    in_chain, anew = ([b - a for a, b in zip(*counted[place : place + 2], strict=True)] for place in (0, 3))
    assert counted[3] == [0, 0], "the first clip is that of the chain"
    assert sum(anew) > 0 and (in_chain == anew and torch.equal(*second)) is not leaks


def test_its_clips_have_keys_that_stay_and_change_with_the_threshold(module, sampler, experts, easy_cache, tmp_path):
    """Sampling must not change what a key is made of, or a resumed run would make all clips again."""
    plan, maker = sampler(*(easy_cache(model) for model in experts))
    fingerprint = module("svi_core.files.fingerprint").fingerprint
    before = fingerprint(maker.determinants(plan.request(0)))
    latents_of(module, tmp_path, plan, maker)
    after = fingerprint(maker.determinants(plan.request(0)))
    keys = {before, after}
    for threshold in (0.2, 0.3):
        plan, maker = sampler(*(easy_cache(model, threshold) for model in experts))
        keys.add(fingerprint(maker.determinants(plan.request(0))))
    plan, maker = sampler(*experts)
    keys.add(fingerprint(maker.determinants(plan.request(0))))
    assert before == after and len(keys) == 3, "once for each threshold, and once without"
