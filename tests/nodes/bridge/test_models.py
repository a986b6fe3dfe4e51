"""Fingerprints of ComfyUI's own models: equal for equal models, different for anything that changes their output."""

import sys

import pytest
import torch

from tests.nodes.conftest import load_diffusion_model

HIGH = "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors"
LOW = "wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors"


@pytest.fixture
def lora_module(pack):
    return sys.modules[f"{pack.__name__}.nodes.lora"]


def with_lora(pack, model, strength, seed=0):
    core, nodes = (sys.modules[f"{pack.__name__}.{name}"] for name in ("svi_core.systems.lora", "nodes.lora"))
    generator = torch.Generator().manual_seed(seed)
    key = "diffusion_model.blocks.0.self_attn.q.lora_{}.weight"
    tensors = {
        key.format("A"): torch.randn(2, 64, generator=generator),
        key.format("B"): torch.randn(64, 2, generator=generator),
    }
    return nodes.apply_lora(model, core.LoraFile("x", tensors, {}, tuple(tensors)), "model", strength)[0]


def with_shift(model, shift):
    import comfy.model_sampling

    class Sampling(comfy.model_sampling.ModelSamplingDiscreteFlow, comfy.model_sampling.CONST):
        pass

    sampling = Sampling(model.model.model_config)
    sampling.set_parameters(shift=shift, multiplier=1000)
    patched = model.clone()
    patched.add_object_patch("model_sampling", sampling)
    return patched


def test_fingerprint_tells_models_and_their_settings_apart(pack, bridge, tiny_models, model):
    variants = {
        "high": model,
        "low": load_diffusion_model(tiny_models, LOW),
        "lora": with_lora(pack, model, 1.0),
        "weaker lora": with_lora(pack, model, 0.5),
        "other lora": with_lora(pack, model, 1.0, seed=1),
        "shift 5": with_shift(model, 5.0),
        "shift 8": with_shift(model, 8.0),
    }
    prints = {name: bridge.models.model_fingerprint(variant) for name, variant in variants.items()}
    assert len(set(prints.values())) == len(prints)


def test_fingerprint_tells_precision_and_bypass_loras_apart(bridge, tiny_models, comfy):
    import comfy.sd

    def load(**options):
        return comfy.sd.load_diffusion_model(str(tiny_models / "diffusion_models" / HIGH), model_options=options)

    def bypassed(strength):
        generator = torch.Generator().manual_seed(0)
        key = "diffusion_model.blocks.0.self_attn.q.lora_{}.weight"
        tensors = {
            key.format("A"): torch.randn(2, 64, generator=generator),
            key.format("B"): torch.randn(64, 2, generator=generator),
        }
        return comfy.sd.load_bypass_lora_for_models(load(), None, tensors, strength, 0.0)[0]

    variants = [load(), load(dtype=torch.float8_e4m3fn), bypassed(1.0), bypassed(0.3)]
    prints = [bridge.models.model_fingerprint(variant) for variant in variants]
    assert len(set(prints)) == len(prints)
    assert bridge.models.model_fingerprint(bypassed(0.3)) == prints[3]


def test_samples_of_a_large_weight_stay_inside_it(bridge):
    for shape in ((5120, 5120), (5120, 13824), (1,), (0,), ()):
        sample = bridge.models._sampled(torch.empty(shape, dtype=torch.float16))
        assert sample[1] == shape


class Packed(torch.Tensor):
    """Stored bytes that show another shape, as a GGUF loader's weights do."""

    @property
    def shape(self):
        return torch.Size([4, 4])


class QuantizedLayer(torch.nn.Module):
    """A layer whose state dict holds a shape only."""

    def __init__(self, content):
        super().__init__()
        stored = torch.tensor(content, dtype=torch.uint8).as_subclass(Packed)
        self.weight = torch.nn.Parameter(stored, requires_grad=False)

    def _save_to_state_dict(self, destination, prefix, keep_vars):
        destination[prefix + "weight"] = torch.zeros(4, 4, device="meta")
        destination[prefix + "temp.weight"] = torch.zeros(4, 4, device="meta")  # room to unpack, which is no weight


def test_weights_that_a_state_dict_only_names_are_told_apart_by_their_bytes(bridge, comfy):
    def fingerprint(content):
        model = torch.nn.Sequential(QuantizedLayer(content))
        return bridge.models.weights_fingerprint(
            comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))
        )

    assert fingerprint([1, 2, 3]) == fingerprint([1, 2, 3]) != fingerprint([1, 2, 4])


def test_fingerprint_of_the_same_thing_is_the_same(pack, bridge, tiny_models, model):
    other = load_diffusion_model(tiny_models, HIGH)
    assert bridge.models.model_fingerprint(other) == bridge.models.model_fingerprint(model)
    assert bridge.models.model_fingerprint(with_lora(pack, other, 1.0)) == bridge.models.model_fingerprint(
        with_lora(pack, model, 1.0)
    )
    assert bridge.models.model_fingerprint(with_shift(other, 5.0)) == bridge.models.model_fingerprint(with_shift(model, 5.0))


def test_fingerprint_without_a_file_is_of_the_weights_before_any_patch(pack, bridge, tiny_models):
    model = load_diffusion_model(tiny_models, HIGH)
    model.cached_patcher_init = None
    patched = with_lora(pack, model, 1.0)
    before = bridge.models.model_fingerprint(patched)
    patched.patch_model()
    assert bridge.models.model_fingerprint(patched) == before
    patched.unpatch_model()
    other = load_diffusion_model(tiny_models, LOW)
    other.cached_patcher_init = None
    assert bridge.models.model_fingerprint(other) != bridge.models.model_fingerprint(model)
