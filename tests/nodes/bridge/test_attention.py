"""The choice of an attention kernel: what is compared, who wins, who is left alone. CPU kernels stand in for a GPU's."""

import importlib
import sys

import pytest
import torch
from torch.nn.attention import SDPBackend

from tests.nodes.conftest import PACK

HEADS, WIDTH, TOKENS = 2, 16, 1024
KERNELS = {"flash": SDPBackend.FLASH_ATTENTION, "math": SDPBackend.MATH, "cudnn": SDPBackend.CUDNN_ATTENTION}


@pytest.fixture(scope="module")
def attention(pack):
    return sys.modules[f"{PACK}.nodes.bridge.attention"]


@pytest.fixture(scope="module")
def pytorchs(comfy):
    """What ComfyUI gives to an override when PyTorch's attention is next."""
    return importlib.import_module("comfy.ldm.modules.attention").attention_pytorch.__wrapped__


def qkv(tokens=TOKENS, dtype=torch.bfloat16, keys=None):
    random = torch.Generator().manual_seed(0)
    sizes = (tokens, keys or tokens, keys or tokens)
    return [torch.randn(1, size, HEADS * WIDTH, generator=random).to(dtype) for size in sizes]


def timer(attention, milliseconds):
    """Return a timer that runs what it times, and gives it the next of `milliseconds` (ComfyUI's comes first)."""
    left = list(milliseconds)

    def time(attend):
        attend()
        return left.pop(0)

    return time


def chooser(attention, milliseconds, **settings):
    return attention.FastestAttention(KERNELS, timer(attention, milliseconds), **{"device_type": "cpu", **settings})


def test_every_kernel_is_the_exact_sum_within_the_rounding_of_bfloat16(attention):
    q, k, v = qkv()
    heads = [t.double().unflatten(-1, (HEADS, WIDTH)).transpose(1, 2) for t in (q, k, v)]
    weights = (heads[0] @ heads[1].transpose(-1, -2) / WIDTH**0.5).softmax(-1)
    exact = (weights @ heads[2]).transpose(1, 2).flatten(2)
    rounding = 2.0**-8 * v.abs().max()
    for kernel in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        ours = attention._attend(kernel, q, k, v, HEADS)
        assert ours.shape == q.shape and (ours.double() - exact).abs().max() < rounding < 0.02


@pytest.mark.parametrize(
    ("milliseconds", "winner"),
    [((10.0, 9.0, 5.0), "math"), ((10.0, 6.0, 7.0), "flash"), ((10.0, 9.6, 9.9), "ComfyUI's"), ((1.0, 5.0, 5.0), "ComfyUI's")],
)
def test_the_clearly_fastest_kernel_is_timed_once_per_shape(attention, pytorchs, milliseconds, winner):
    q, k, v = qkv()
    fastest = chooser(attention, milliseconds)
    first = fastest(pytorchs, q, k, v, heads=HEADS, transformer_options={}, _inside_attn_wrapper=True)
    again = fastest(pytorchs, q, k, v, heads=HEADS)  # the timer has nothing left: timing again would fail
    assert list(fastest.chosen.values()) == [winner]
    if winner == "ComfyUI's":
        expected = pytorchs(q, k, v, HEADS)
    else:
        expected = attention._attend(KERNELS[winner], q, k, v, HEADS)
    assert torch.equal(first, expected) and torch.equal(again, expected)


def test_a_kernel_that_this_device_lacks_is_left_out(attention, pytorchs):
    fastest = chooser(attention, (10.0, 8.0, 9.0))  # cudnn needs a GPU and is never timed
    fastest(pytorchs, *qkv(), HEADS)
    assert list(fastest.chosen.values()) == ["flash"]


def test_other_shapes_are_timed_for_themselves(attention, pytorchs):
    fastest = chooser(attention, (10.0, 8.0, 9.0, 1.0, 8.0, 9.0))
    fastest(pytorchs, *qkv(), HEADS)
    fastest(pytorchs, *qkv(keys=77), HEADS)
    assert sorted(fastest.chosen.values()) == ["ComfyUI's", "flash"]


@pytest.mark.parametrize(
    ("case", "inputs", "options"),
    [
        ("a mask", {}, {"mask": torch.zeros(1, TOKENS, TOKENS, dtype=torch.bfloat16)}),
        ("another scale", {}, {"scale": 0.5}),
        ("heads split already", {}, {"skip_reshape": True}),
        ("few tokens", {"tokens": 1023}, {}),
        ("float32", {"dtype": torch.float32}, {}),
        ("a GPU is meant", {}, {"device_type": "cuda"}),
    ],
)
def test_what_is_not_plain_large_attention_goes_to_comfyui(attention, pytorchs, case, inputs, options):
    settings = {"device_type": options.pop("device_type")} if "device_type" in options else {}
    q, k, v = qkv(**inputs)
    if "skip_reshape" in options:
        q, k, v = (t.unflatten(-1, (HEADS, WIDTH)).transpose(1, 2) for t in (q, k, v))
    fastest = chooser(attention, (), **settings)
    assert torch.equal(fastest(pytorchs, q, k, v, HEADS, **options), pytorchs(q, k, v, HEADS, **options)), case
    assert not fastest.chosen


def test_the_attention_that_the_user_chose_is_respected(attention, comfy):
    sub_quad = importlib.import_module("comfy.ldm.modules.attention").attention_sub_quad.__wrapped__
    q, k, v = qkv()
    fastest = chooser(attention, ())
    assert torch.equal(fastest(sub_quad, q, k, v, HEADS), sub_quad(q, k, v, HEADS)) and not fastest.chosen


def test_the_attention_that_a_model_file_prefers_is_respected(attention, monkeypatch):
    """Newer ComfyUI hands the preference to the attention function as a keyword."""
    fastest, seen = chooser(attention, ()), []

    def newer(*tensors, preferred_attention=None, **options):
        seen.append(preferred_attention)
        return tensors[0]

    monkeypatch.setattr(attention, "_pytorchs", lambda: newer)
    fastest(newer, *qkv(), HEADS, preferred_attention="comfy_kitchen_int8")
    assert seen == ["comfy_kitchen_int8"] and not fastest.chosen


def test_a_failure_of_comfyuis_own_attention_is_its_own(attention, pytorchs):
    def fails(attend):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        attention.FastestAttention(KERNELS, fails, "cpu")(pytorchs, *qkv(), HEADS)


def test_a_model_gets_the_choice_by_a_clone_with_its_patches(attention, model, monkeypatch):
    assert attention.with_fastest_attention(model) is model, "a no-op on CPU"
    monkeypatch.setattr(attention.FASTEST, "device_type", "cpu")
    clone = attention.with_fastest_attention(model)
    assert clone is not model and clone.patches_uuid == model.patches_uuid and clone.model is model.model
    assert attention.OVERRIDE not in model.model_options["transformer_options"]
    assert attention.with_fastest_attention(clone) is clone, "an override that is there stays"


def test_wan_calls_the_override_for_self_and_cross_attention(attention, model, monkeypatch):
    """What ComfyUI hands over in a real forward pass is what the override expects."""
    seen = []
    fastest = chooser(attention, ())

    def note(func, q, k, v, heads, *rest, **options):
        seen.append((q.shape[1], k.shape[1], rest, set(options)))
        return fastest(func, q, k, v, heads, *rest, **options)

    transformer = model.model.diffusion_model
    latent = torch.zeros(1, 36, 2, 4, 4)
    context = torch.zeros(1, 7, transformer.text_embedding[0].in_features)
    with torch.inference_mode():
        transformer(latent, torch.tensor([500.0]), context, transformer_options={attention.OVERRIDE: note})
    assert {(q, k) for q, k, *_ in seen} == {(8, 8), (8, 7)}
    assert all(rest == () and options <= attention._KNOWN for *_, rest, options in seen)


@pytest.mark.parametrize("keys", [TOKENS, 77])
def test_a_compiler_is_told_rightly_what_the_operator_makes(attention, keys):
    """Shape, dtype and strides, and that it changes none of its inputs; PyTorch's own check of operators."""
    q, k, v = qkv(keys=keys)
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_static")
    found = torch.library.opcheck(attention._operator(), (q, k, v, HEADS), test_utils=checks)
    assert set(found.values()) == {"SUCCESS"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_chosen_kernel_differs_in_the_last_bits_only(attention, pytorchs):
    q, k, v = (t.cuda() for t in qkv(tokens=4096))
    fastest = attention.FastestAttention()
    assert (fastest(pytorchs, q, k, v, HEADS) - pytorchs(q, k, v, HEADS)).abs().max() < 0.01
    assert len(fastest.chosen) == 1
