"""A GUIDER as a recipe: it guides each stage with the run's model and prompts, and stays as the user connected it."""

import copy
import functools
from types import SimpleNamespace

import pytest
import torch

from tests.nodes.conftest import load_diffusion_model

LOW = "wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors"
SIGMAS = torch.tensor([1.0, 0.9, 0.6, 0.0])


@pytest.fixture(scope="module")
def guiders(bridge):
    return bridge.guiders


@pytest.fixture(scope="module")
def low(tiny_models):
    return load_diffusion_model(tiny_models, LOW)


def prompt(seed: int) -> list:
    return [[torch.randn(1, 7, 32, generator=torch.Generator().manual_seed(seed)), {}]]


@pytest.fixture(scope="module")
def prompts(bridge):
    """The prompts of a clip, conditioned on its y."""
    random = torch.Generator().manual_seed(9)
    y = SimpleNamespace(latent=torch.randn(1, 16, 2, 4, 4, generator=random), mask=torch.zeros(1, 1, 2, 4, 4))
    names = {"positive": 1, "negative": 2, "middle": 3, "empty_negative_prompt": 4}
    return {name: bridge.sampling.set_y(prompt(seed), y) for name, seed in names.items()}


@pytest.fixture
def sample(bridge, prompts):
    """Sample a stage: by a recipe, or by cfg if there is none."""
    import comfy.samplers

    def run(model, recipe=None, cfg=None, sigmas=SIGMAS):
        noise = torch.randn(1, 16, 2, 4, 4, generator=torch.Generator().manual_seed(3))
        stage = {"sampler": comfy.samplers.sampler_object("euler"), "sigmas": sigmas, "seed": 1, "callback": None}
        with torch.inference_mode():
            if recipe is None:
                pair = {name: prompts[name] for name in ("positive", "negative")}
                return bridge.sampling.sample_stage(model, noise, cfg, samples=torch.zeros_like(noise), **pair, **stage)
            guider = recipe.guider_for(model, prompts, cfg, SIGMAS)
            return bridge.sampling.sample_guided(guider, noise, samples=torch.zeros_like(noise), **stage)

    return run


@pytest.fixture
def cfg_guider(model):
    """The guider of ComfyUI's CFGGuider, on prompts that no clip uses."""
    import comfy.samplers

    def make(cfg=3.5, on=model, kind=comfy.samplers.CFGGuider):
        guider = kind(on)
        guider.inner_set_conds({"positive": prompt(7), "negative": prompt(8)})
        guider.set_cfg(cfg)
        return guider

    return make


@pytest.fixture
def recorder():
    """A guider with state and settings of many kinds, as APG guiders have; it notes what it is shown."""
    import comfy.samplers

    class Momentum:
        def __init__(self):
            self.average = 0.0

    class Recording(comfy.samplers.CFGGuider):
        def __init__(self, model):
            super().__init__(model)
            self.model = model.clone()  # a second handle on the model, as the APG guider of LTXVideo has
            self.momentum, self.rules, self.scale = Momentum(), ({"start": 0.5},), torch.tensor([1.0, 2.0])
            self.on_step = self.note

        def note(self, sigmas):
            self.momentum.average += 1
            type(self).seen.append((sigmas.tolist(), self.momentum.average, self.model, self.model_patcher))

        def predict_noise(self, x, timestep, model_options, seed):
            self.on_step(model_options["transformer_options"]["sample_sigmas"])
            return super().predict_noise(x, timestep, model_options, seed)

    Recording.seen = []  # no closure: what a function closes over enters keys
    return Recording


def test_a_cfg_guider_guides_as_cfg_does_bit_for_bit(guiders, model, sample, cfg_guider):
    for cfg in (1.0, 3.5):
        assert torch.equal(sample(model, guiders.GuidanceRecipe(cfg_guider(cfg))), sample(model, cfg=cfg)), cfg
    assert not torch.equal(sample(model, cfg=3.5), sample(model, cfg=3.0))


def test_a_guider_without_negative_prompt_is_cfg_1(guiders, model, sample):
    from comfy_extras.nodes_custom_sampler import Guider_Basic

    guider = Guider_Basic(model)
    guider.set_conds(prompt(7))
    recipe = guiders.GuidanceRecipe(guider)
    recipe.check({"model": model}, ())
    assert torch.equal(sample(model, recipe), sample(model, cfg=1.0)) and recipe.num_passes(None) == 1


def test_the_schedules_cfg_replaces_that_of_a_cfg_guider(guiders, model, sample, cfg_guider):
    recipe = guiders.GuidanceRecipe(cfg_guider(3.5))
    recipe.require_cfg(2.0)
    assert torch.equal(sample(model, recipe, cfg=2.0), sample(model, cfg=2.0))
    assert (recipe.num_passes(None), recipe.num_passes(1.0), recipe.guider.cfg) == (2, 1, 3.5)
    assert recipe.determinants(None) != recipe.determinants(2.0)


def test_the_run_s_expert_samples_and_the_guider_stays_as_it_was(guiders, model, low, sample, recorder, cfg_guider):
    guider = cfg_guider(kind=recorder)
    before = dict(vars(guider))
    conds = copy.deepcopy(guider.original_conds)
    recipe = guiders.GuidanceRecipe(guider)
    recipe.check({"model": model, "model_low_noise": low}, ())
    high_made, low_made = (sample(expert, recipe, sigmas=part) for expert, part in ((model, SIGMAS[:2]), (low, SIGMAS[1:])))
    assert torch.equal(high_made, sample(model, cfg=3.5, sigmas=SIGMAS[:2]))
    assert torch.equal(low_made, sample(low, cfg=3.5, sigmas=SIGMAS[1:])) and not torch.equal(high_made, low_made)
    assert [entry[1] for entry in recorder.seen] == [1, 1, 2]  # each stage begins with the state as it was connected
    assert [
        (entry[2] is entry[3], entry[3] is expert) for entry, expert in zip(recorder.seen, (model, low, low), strict=True)
    ] == [(True, True)] * 3
    assert vars(guider) == before and guider.momentum.average == 0.0
    assert all(torch.equal(guider.original_conds[name][0]["cross_attn"], conds[name][0]["cross_attn"]) for name in conds)
    assert "predict_noise" not in vars(guider)


def test_a_guider_sees_the_steps_of_the_clip_and_the_model_those_of_its_stage(guiders, model, sample, recorder, cfg_guider):
    from comfy.patcher_extension import WrappersMP

    shown = []

    def note(execute, *arguments):
        shown.append(arguments[-1]["transformer_options"]["sample_sigmas"].tolist())
        return execute(*arguments)

    watched = model.clone()
    watched.add_wrapper(WrappersMP.CALC_COND_BATCH, note)
    recipe = guiders.GuidanceRecipe(cfg_guider(kind=recorder, on=watched))
    sample(watched, recipe, sigmas=SIGMAS[1:])
    assert [entry[0] for entry in recorder.seen] == [SIGMAS.tolist()] * 2
    assert shown == [SIGMAS[1:].tolist()] * 2


def test_further_prompts_stay_and_get_the_clip_s_y(guiders, model, prompts, sample):
    from comfy_extras.nodes_custom_sampler import Guider_DualCFG
    from comfy_extras.nodes_perpneg import Guider_PerpNeg

    dual, perpendicular = Guider_DualCFG(model), Guider_PerpNeg(model)
    dual.set_conds(prompt(7), prompt(3), prompt(8))
    dual.set_cfg(2.0, 1.5)
    perpendicular.set_conds(prompt(7), prompt(8), prompt(4))
    perpendicular.set_cfg(2.0, 0.5)
    for guider, name in ((dual, "middle"), (perpendicular, "empty_negative_prompt")):
        recipe = guiders.GuidanceRecipe(guider)
        recipe.check({"model": model}, ())
        (kept,) = recipe.prompts.items()
        assert kept[0] == name and torch.equal(kept[1][0][0], prompts[name][0][0]) and recipe.num_passes(None) == 3
        assert kept[1][0][1]["prompt_type"] == "negative" and "uuid" not in kept[1][0][1]
        assert sample(model, recipe).isfinite().all()
        made = recipe.guider_for(model, prompts, None, SIGMAS)
        assert all("concat_latent_image" in cond[0] for cond in made.original_conds.values())
        with pytest.raises(ValueError, match=rf"the schedule sets cfg 3 for a clip, but guider \({type(guider).__name__}\)"):
            recipe.require_cfg(3.0)
        recipe.require_cfg(None)


def test_the_key_has_class_settings_and_code_but_no_state_of_a_run(guiders, model, low, sample, recorder, cfg_guider):
    def key(guider):
        from stable_video_infinity_pack.svi_core.files.fingerprint import fingerprint

        return fingerprint(guiders.GuidanceRecipe(guider).determinants(None))

    class Other(recorder):
        def predict_noise(self, x, timestep, model_options, seed):
            return super().predict_noise(x, timestep, model_options, seed) * 1.0

    guider = cfg_guider(kind=recorder)
    keys = [key(guider), key(cfg_guider(kind=recorder, cfg=3.0)), key(cfg_guider()), key(cfg_guider(kind=Other))]
    changed = cfg_guider(kind=recorder)
    changed.rules[0]["start"] = 0.25
    assert len({*keys, key(changed)}) == 5
    sample(model, guiders.GuidanceRecipe(guider))
    assert key(guider) == key(cfg_guider(kind=recorder, on=low)) == keys[0]  # neither a run nor its model counts


def test_a_guider_of_two_models_is_refused(guiders, model, low, cfg_guider):
    class TwoModels(type(cfg_guider())):
        pass

    for held in (low, [low], {"negative": low}, SimpleNamespace(of=low), functools.partial(print, low), low.clone):
        guider = cfg_guider(kind=TwoModels)
        guider.uncond_model_patcher = held
        with pytest.raises(ValueError, match=r"guider \(TwoModels\) holds a second model"):
            guiders.GuidanceRecipe(guider).check({"model": model, "model_low_noise": low}, ())


def test_a_guider_that_holds_a_network_is_refused(guiders, model, cfg_guider):
    """It was copied with all its weights for each clip, and the low-noise expert was guided by the copy."""
    for held in (model.model.diffusion_model, [model.model], {"head": torch.nn.Linear(2, 2)}):
        guider = cfg_guider()
        guider.network = held
        with pytest.raises(ValueError, match=r"guider \(CFGGuider\) holds a network \(.*\), which a run cannot replace"):
            guiders.GuidanceRecipe(guider).check({"model": model}, ())
    guider.network = model.model.model_sampling  # numbers only: a setting like others
    guiders.GuidanceRecipe(guider).check({"model": model}, ())


def test_a_guider_with_a_replaced_method_is_refused(guiders, model, cfg_guider):
    """The replacement is tied to the guider itself, which has no model in a run: the first step of a clip failed."""
    guider = cfg_guider()
    predict = guider.predict_noise
    guider.predict_noise = lambda *arguments: predict(*arguments)
    with pytest.raises(ValueError, match=r"guider \(CFGGuider\) has its predict_noise replaced by another node"):
        guiders.GuidanceRecipe(guider).check({"model": model}, ())


def test_a_patch_that_only_the_guider_s_model_has_is_refused(guiders, model, low, cfg_guider):
    """STG guiders patch a clone of the model; a run would sample without that patch."""
    patched, lora = model.clone(), model.clone()
    patched.set_model_patch_replace(lambda *_: None, "dit", "double_block", 1)
    key = next(key for key in model.model.state_dict() if key.endswith("ffn.0.bias"))
    lora.add_patches({f"{key}": (torch.ones_like(model.model.state_dict()[key]),)})
    for carrier, place in ((patched, r"patches_replace / dit / \('double_block', 1\)"), (lora, f"patches / {key}")):
        recipe = guiders.GuidanceRecipe(cfg_guider(on=carrier))
        with pytest.raises(ValueError, match=rf"guider \(CFGGuider\) has a patch on its model \(.*{place}\)"):
            recipe.check({"model": model, "model_low_noise": low}, ())
        recipe.check({"model": low, "model_low_noise": carrier}, ())
        guiders.GuidanceRecipe(cfg_guider()).check({"model": carrier}, ())  # the run's model may have more
    own = cfg_guider()
    own.model_options = {**model.model_options, "disable_cfg1_optimization": True}
    with pytest.raises(ValueError, match="disable_cfg1_optimization"):
        guiders.GuidanceRecipe(own).check({"model": model}, ())


def test_what_is_no_guider_of_comfyui_or_has_no_positive_prompt_is_refused(guiders, model, cfg_guider):
    import comfy.samplers

    with pytest.raises(ValueError, match="guider is a SimpleNamespace, which is not built on ComfyUI's CFGGuider"):
        guiders.GuidanceRecipe(SimpleNamespace()).check({"model": model}, ())
    with pytest.raises(ValueError, match="has no positive prompt"):
        guiders.GuidanceRecipe(comfy.samplers.CFGGuider(model)).check({"model": model}, ())


def test_what_cannot_be_copied_is_refused(guiders, model, cfg_guider):
    guider = cfg_guider()
    guider.lines = (line for line in "ab")
    with pytest.raises(ValueError, match="holds what cannot be copied for each clip"):
        guiders.GuidanceRecipe(guider).check({"model": model}, ())


def test_guidance_by_sound_needs_a_guider_that_goes_through_it(guiders, model, recorder, cfg_guider):
    heard = (SimpleNamespace(num_extra_passes=1),)
    guiders.GuidanceRecipe(cfg_guider()).check({"model": model}, heard)
    with pytest.raises(ValueError, match="so the guidance of control would be left out"):
        guiders.GuidanceRecipe(cfg_guider(kind=recorder)).check({"model": model}, heard)
    guiders.GuidanceRecipe(cfg_guider(kind=recorder)).check({"model": model}, (SimpleNamespace(num_extra_passes=0),))
