"""A decode without needless passes over memory: the same numbers, fewer bytes, and ComfyUI's own modules afterwards."""

import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.nodes.conftest import PACK


@pytest.fixture(scope="module")
def lean_decode(pack):
    return sys.modules[f"{PACK}.nodes.bridge.lean_decode"]


def small_vae(dtype=torch.float32):
    from comfy.ldm.wan.vae import WanVAE

    torch.manual_seed(0)
    vae = WanVAE(
        dim=8, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, attn_scales=[], temperal_downsample=[False, True, True]
    )
    with torch.no_grad():
        for weight in vae.parameters():
            spread = weight[0].numel() ** -0.5 if weight.ndim > 2 else 1.0
            weight.copy_(torch.randn(weight.shape) * spread)
    return vae.to(dtype).eval().requires_grad_(False)


class Written(TorchDispatchMode):
    """Counts the bytes that operations write into new tensors."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        out = operator(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor) and not any(result.alias_info for result in operator._schema.returns):
            self.bytes += out.nbytes
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_lean_decode_gives_every_number_of_comfyuis(lean_decode, dtype):
    vae = small_vae(dtype)
    latent = torch.randn(1, 16, 3, 4, 6).to(dtype)
    expected = vae.decode(latent)
    with lean_decode.lean(vae.decoder):
        assert torch.equal(vae.decode(latent), expected)
    assert lean_decode.gives_the_same(dtype)


def test_a_third_of_the_bytes_is_not_written(lean_decode):
    vae, latent, counted = small_vae(), torch.randn(1, 16, 3, 4, 6), []
    for way in (lean_decode.lean, lambda decoder: torch.no_grad()):
        with way(vae.decoder), Written() as written:
            vae.decode(latent)
        counted.append(written.bytes)
    assert counted[0] < 0.7 * counted[1]


def test_the_modules_are_comfyuis_again_even_after_an_error(lean_decode):
    vae = small_vae()
    with pytest.raises(RuntimeError, match="stop"), lean_decode.lean(vae.decoder):
        raise RuntimeError("stop")
    assert not any("forward" in vars(module) for module in vae.modules())
    assert not any(module.inplace for module in vae.modules() if isinstance(module, torch.nn.SiLU))


def test_a_norm_that_computes_otherwise_is_left_alone(lean_decode, monkeypatch):
    """As a later ComfyUI's may, with a fused kernel that rounds once."""
    import comfy.ldm.wan.vae

    monkeypatch.setattr(comfy.ldm.wan.vae.RMS_norm, "forward", lambda self, x: x * 1.001)
    lean_decode.gives_the_same.cache_clear()
    vae = small_vae()
    try:
        with lean_decode.lean(vae.decoder):
            assert not any("forward" in vars(module) for module in vae.modules())
    finally:
        lean_decode.gives_the_same.cache_clear()


def test_other_decoders_are_left_alone(lean_decode):
    other = torch.nn.Sequential(torch.nn.SiLU())
    with lean_decode.lean(other):
        assert not other[0].inplace
