"""SVI Generate's clips on a model that went through TorchCompileModel: the same frames, the same few graphs, or a refusal."""

from functools import partial
from types import SimpleNamespace

import pytest
import torch
from torch.nn.attention import SDPBackend

from tests.nodes.bridge.clips import latents_of


@pytest.fixture
def graphs(comfy):
    """The graphs compiled so far; the compiler forgets what it knew before and after."""
    torch._dynamo.reset()
    yield []
    torch._dynamo.reset()


@pytest.fixture
def compiled(graphs):
    """Do to a model what TorchCompileModel does, with a backend that counts graphs and runs them as they are."""
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    def count(graph, inputs, **options):
        graphs.append(graph)
        return graph.forward

    def without_options(guards):
        return ["transformer_options" not in guard.name for guard in guards]

    def compile_model(model):
        clone = model.clone(disable_dynamic=True)
        set_torch_compile_wrapper(model=clone, backend=count, options={"guard_filter_fn": without_options})
        return clone

    return compile_model


def test_clips_of_a_compiled_model_are_the_same_and_one_graph_serves_them_all(
    module, sampler, experts, compiled, graphs, tmp_path
):
    """Two experts, and a LoRA of another strength in each clip: weights change, graphs do not."""
    expected = latents_of(module, tmp_path / "plain", *sampler(*experts))
    counted = []
    models = [compiled(model) for model in experts]
    found = latents_of(module, tmp_path / "compiled", *sampler(*models), lambda: counted.append(len(graphs)))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))
    assert not torch.equal(found[1], found[2]) and counted == [1, 1, 1]


def test_the_choice_of_a_kernel_is_one_operator_of_the_graph(module, sampler, experts, compiled, graphs, tmp_path, monkeypatch):
    """Kernels are timed once for each shape on real numbers, not compiled into every block; the result is the winner's."""
    attention, timed = module("nodes.bridge.attention"), []

    def milliseconds(attend):
        assert not torch.compiler.is_compiling() and attend().isfinite().all()
        timed.append(attend)
        return [10.0, 9.0, 1.0][(len(timed) - 1) % 3]

    kernels = module("nodes.bridge.attention_kernels")
    backends = {"flash": SDPBackend.FLASH_ATTENTION, "math": SDPBackend.MATH}
    candidates = {name: kernels.Kernel(partial(kernels.attend_by, backend)) for name, backend in backends.items()}
    monkeypatch.setattr(attention, "FASTEST", attention.FastestAttention(lambda: candidates, milliseconds, "cpu"))
    monkeypatch.setattr(attention, "MIN_TOKENS", 1)
    monkeypatch.setitem(attention.MAX_DEVIATION, torch.float32, 0.01)
    found = latents_of(module, tmp_path / "compiled", *sampler(*(compiled(model) for model in experts)))
    assert len(graphs) == 1 and len(timed) == 2 * 3
    assert list(attention.FASTEST.chosen.values()) == ["math", "math"]  # over the clip, and over the text
    expected = latents_of(module, tmp_path / "plain", *sampler(*experts))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True)) and len(timed) == 2 * 3


def test_a_compiled_model_makes_clips_of_its_own_keys(module, experts, compiled):
    fingerprint = module("nodes.bridge.models").model_fingerprint
    once, again = (fingerprint(compiled(experts[0])) for _ in range(2))
    assert once == again != fingerprint(experts[0])


@pytest.mark.parametrize("place", [0, 1])
def test_poses_or_sound_on_a_compiled_model_are_refused(module, sampler, experts, compiled, place):
    """ComfyUI would use a graph again that was made without them, or with those of another clip."""
    control = SimpleNamespace(condition=module("svi_core.systems.layouts").Condition.POSE, check=lambda *_: None, num_frames=0)
    models = list(experts)
    plan, maker = sampler(*models, (control,))
    module("nodes.check_run").check_run(maker, plan)
    models[place] = compiled(models[place])
    plan, maker = sampler(*models, (control,))
    with pytest.raises(ValueError, match=f"{('model', 'model_low_noise')[place]} is compiled.*remove TorchCompileModel"):
        module("nodes.check_run").check_run(maker, plan)


def test_a_compiled_graph_does_miss_a_changed_patch(module, experts, compiled):
    """Why they are refused: ComfyUI's own behaviour. When this test fails, the refusal can go."""
    model = compiled(experts[0])
    inputs = {"x": torch.randn(1, 36, 2, 4, 4), "timestep": torch.tensor([500.0]), "context": torch.randn(1, 7, 32)}
    wrapper = model.get_wrappers("apply_model", "torch.compile")[0]
    transformer = wrapper.__closure__[0].cell_contents["diffusion_model"]

    def scaled(by):
        return {"patches": {"double_block": [lambda given: {"img": given["img"] * by}]}}

    with torch.inference_mode():
        first, second = (transformer(**inputs, transformer_options=scaled(by)) for by in (1.0, 0.5))
        without = transformer(**inputs, transformer_options={})
        plain = model.model.diffusion_model(**inputs, transformer_options=scaled(0.5))
    assert torch.equal(first, without) or torch.equal(first, second)
    assert not torch.allclose(second, plain)
