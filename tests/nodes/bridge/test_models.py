"""The model side of the loop on ComfyUI's own classes: chunked decode, fingerprints, memory that runs out."""

import sys

import pytest
import torch

from tests.nodes.conftest import load_diffusion_model

HIGH = "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors"
LOW = "wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors"


@pytest.mark.parametrize("slots", [1, 2, 3, 6, 21])
def test_chunked_decode_is_bit_for_bit_the_whole_decode(bridge, vae, slots):
    latent = torch.randn(1, 16, slots, 4, 6, generator=torch.Generator().manual_seed(slots))
    chunks = list(bridge.decode_chunks(vae, latent))
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
    real = bridge._decode_causally

    def failing(vae, samples):
        for index, chunk in enumerate(real(vae, samples)):
            if index == 2:
                raise error
            yield chunk

    monkeypatch.setattr(bridge, "_decode_causally", failing)
    with torch.inference_mode():  # as ComfyUI executes nodes
        frames = torch.cat(list(bridge.decode_chunks(vae, latent)))
        expected = vae.decode(latent)[0]
    assert frames.shape == (21, 32, 48, 3) and "from 9 on are decoded in spatial tiles" in caplog.text
    assert torch.allclose(frames, expected, atol=0.05)


@pytest.mark.parametrize("error", OUT_OF_MEMORY, ids=lambda error: type(error).__name__)
def test_memory_too_small_even_for_tiles_is_told_with_the_size(bridge, vae, monkeypatch, error):
    def failing(*_, **__):
        raise error
        yield

    monkeypatch.setattr(bridge, "_decode_causally", failing)
    monkeypatch.setattr(vae, "decode_tiled", lambda *_, **__: next(failing()))
    with pytest.raises(type(error), match="decoding a clip of 21 frames of 48 x 32 pixels, even in spatial tiles.*--lowvram"):
        list(bridge.decode_chunks(vae, torch.zeros(1, 16, 6, 4, 6)))


def test_other_errors_in_the_decode_are_not_swallowed(bridge, vae, monkeypatch):
    def failing(vae, samples):
        raise RuntimeError("a bug")
        yield

    monkeypatch.setattr(bridge, "_decode_causally", failing)
    with pytest.raises(RuntimeError, match="a bug"):
        list(bridge.decode_chunks(vae, torch.zeros(1, 16, 2, 4, 4)))


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
    prints = {name: bridge.model_fingerprint(variant) for name, variant in variants.items()}
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
    prints = [bridge.model_fingerprint(variant) for variant in variants]
    assert len(set(prints)) == len(prints)
    assert bridge.model_fingerprint(bypassed(0.3)) == prints[3]


def test_samples_of_a_large_weight_stay_inside_it(bridge):
    for shape in ((5120, 5120), (5120, 13824), (1,), (0,), ()):
        sample = bridge._sampled(torch.empty(shape, dtype=torch.float16))
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
        return bridge.weights_fingerprint(comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu")))

    assert fingerprint([1, 2, 3]) == fingerprint([1, 2, 3]) != fingerprint([1, 2, 4])


def test_fingerprint_of_the_same_thing_is_the_same(pack, bridge, tiny_models, model):
    other = load_diffusion_model(tiny_models, HIGH)
    assert bridge.model_fingerprint(other) == bridge.model_fingerprint(model)
    assert bridge.model_fingerprint(with_lora(pack, other, 1.0)) == bridge.model_fingerprint(with_lora(pack, model, 1.0))
    assert bridge.model_fingerprint(with_shift(other, 5.0)) == bridge.model_fingerprint(with_shift(model, 5.0))


def test_fingerprint_without_a_file_is_of_the_weights_before_any_patch(pack, bridge, tiny_models):
    model = load_diffusion_model(tiny_models, HIGH)
    model.cached_patcher_init = None
    patched = with_lora(pack, model, 1.0)
    before = bridge.model_fingerprint(patched)
    patched.patch_model()
    assert bridge.model_fingerprint(patched) == before
    patched.unpatch_model()
    other = load_diffusion_model(tiny_models, LOW)
    other.cached_patcher_init = None
    assert bridge.model_fingerprint(other) != bridge.model_fingerprint(model)
