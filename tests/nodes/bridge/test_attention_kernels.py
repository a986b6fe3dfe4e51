"""Candidates for attention: which are known, when cuDNN's is exact, and how differences are measured."""

import math
import sys
from types import ModuleType

import pytest
import torch
from torch.nn.attention import SDPBackend

from tests.nodes.conftest import PACK

HEADS, WIDTH, TOKENS = 2, 16, 1024


@pytest.fixture(scope="module")
def kernels(pack):
    return sys.modules[f"{PACK}.nodes.bridge.attention_kernels"]


def qkv(dtype=torch.bfloat16):
    random = torch.Generator().manual_seed(0)
    return [torch.randn(1, TOKENS, HEADS * WIDTH, generator=random).to(dtype) for _ in range(3)]


def split(t):
    return t.unflatten(-1, (HEADS, WIDTH)).transpose(1, 2)


def test_every_kernel_is_the_exact_sum_within_the_rounding_of_bfloat16(kernels):
    q, k, v = qkv()
    weights = (split(q.double()) @ split(k.double()).mT / WIDTH**0.5).softmax(-1)
    exact = (weights @ split(v.double())).transpose(1, 2).flatten(2)
    rounding = 2.0**-8 * v.abs().max()
    for kernel in (SDPBackend.FLASH_ATTENTION, SDPBackend.MATH):
        ours = kernels.attend_by(kernel, q, k, v, HEADS)
        assert ours.shape == q.shape and (ours.double() - exact).abs().max() < rounding < 0.02


@pytest.mark.parametrize(
    ("version", "queries", "keys", "exact"),
    [
        (91501, 32760, 32760, True),
        (91900, 32760, 512, True),
        (91500, 32760, 32760, False),
        (91500, 32760, 512, False),
        (91500, 32768, 32768, True),
        (91500, 32768, 77, False),
        (8907, 1024, 1024, True),
        (None, 1025, 1024, False),
    ],
)
def test_cudnn_is_a_candidate_only_where_it_is_exact(kernels, monkeypatch, version, queries, keys, exact):
    """PyTorch made it opt-in below 9.15.1, where lengths that 128 does not divide gave wrong results; 81 frames have 32 760."""
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: version)
    q, k = (torch.empty(1, tokens, 8, device="meta") for tokens in (queries, keys))
    assert kernels.known_kernels()["cudnn"].takes(q, k) is exact


def test_rounding_is_below_the_limit_and_8_bits_are_above(kernels):
    """Exact in fp32 against bf16, and queries and keys of 8 bits, as in SageAttention, against bf16."""
    q, k, v = qkv()
    plain = kernels.attend_by(SDPBackend.FLASH_ATTENTION, q, k, v, HEADS)
    exact = kernels.attend_by(SDPBackend.MATH, q.float(), k.float(), v.float(), HEADS)
    assert 0.0005 < kernels.deviation(plain, exact, HEADS) < 0.6 * kernels.MAX_DEVIATION[torch.bfloat16]

    def coded(t):
        step = split(t.float()).abs().amax(-1, keepdim=True) / 127
        return ((split(t.float()) / step).round() * step).transpose(1, 2).flatten(2)

    sharp = 3.0  # real attention is sharper than that of normal numbers
    exact = kernels.attend_by(SDPBackend.MATH, sharp * q.float(), k.float(), v.float(), HEADS)
    in_8_bits = kernels.attend_by(SDPBackend.MATH, coded(sharp * q), coded(k), v.float(), HEADS)
    assert kernels.deviation(in_8_bits, exact, HEADS) > 2 * kernels.MAX_DEVIATION[torch.bfloat16]


def test_a_difference_is_relative_and_none_is_hidden_by_the_other_tokens(kernels):
    expected = torch.ones(1, 9000, HEADS * WIDTH)
    found = expected.clone()
    assert kernels.deviation(found, expected, HEADS) == 0.0
    found[0, 8999, WIDTH:] = 1.5
    assert kernels.deviation(found, expected, HEADS) == pytest.approx(0.5)
    assert kernels.deviation(100 * found, 100 * expected, HEADS) == pytest.approx(0.5)
    expected[0, 8999] = 1e-6  # a small token of a large head: its rounding is that of the head
    found[0, 8999] = 2e-6
    assert kernels.deviation(found, expected, HEADS) < 1e-5
    found[0, 0, 0] = math.nan
    assert kernels.deviation(found, expected, HEADS) == math.inf


@pytest.fixture
def packages(kernels, monkeypatch):
    """Modules that stand for installed packages; those of before are forgotten."""
    kernels._flash_3.cache_clear()
    yield lambda name, module: monkeypatch.setitem(sys.modules, name, module)
    kernels._flash_3.cache_clear()


@pytest.mark.parametrize("name", ["flash_attn_interface", "fa3_fwd_interface"])
@pytest.mark.parametrize("with_sums", [False, True])
def test_flash_attention_3_is_a_candidate_where_it_is_installed(kernels, packages, name, with_sums):
    seen, module = [], ModuleType(name)
    module.__spec__ = object()

    def flash_attn_func(q, k, v):
        seen.append((q.shape, k.shape, v.shape))
        return (q, "log-sum-exp") if with_sums else q

    module.flash_attn_func = flash_attn_func
    packages(name, module)
    q, k, v = qkv()
    assert torch.equal(kernels.known_kernels()["flash 3"].attend(q, k, v, HEADS), q)
    assert seen == [((1, TOKENS, HEADS, WIDTH),) * 3]


def test_a_package_that_does_not_import_is_named(kernels, packages, monkeypatch, caplog):
    module = ModuleType("fa3_fwd_interface")
    module.__spec__ = object()
    packages("fa3_fwd_interface", module)  # without its function
    assert "flash 3" not in kernels.known_kernels()
    assert "fa3_fwd_interface is installed but does not import" in caplog.text


def test_what_is_registered_with_comfyui_is_a_candidate(kernels, comfy, monkeypatch):
    import comfy.ldm.modules.attention as attention

    monkeypatch.setitem(attention.REGISTERED_ATTENTION_FUNCTIONS, "comfy_kitchen_int8", lambda q, k, v, heads: q)
    known = kernels.known_kernels()
    assert {"cudnn", "flash", "ComfyUI's comfy_kitchen_int8"} <= set(known)
    assert not {"ComfyUI's pytorch", "ComfyUI's sub_quad", "ComfyUI's split"} & set(known)
    q, k, v = qkv()
    assert torch.equal(known["ComfyUI's comfy_kitchen_int8"].attend(q, k, v, HEADS), q)
