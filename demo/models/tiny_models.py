"""The tiny models: real Wan architectures at a size that two CPU cores can train, and their files.

ComfyUI's loaders read every size from the file, except the heads and the text width of the video model, which its
header overrides. Sizes: see demo/README.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

MODELS = Path(__file__).resolve().parent
VAE_FILE = MODELS / "tiny_wan_vae.safetensors"
TEXT_ENCODER_FILE = MODELS / "tiny_umt5.safetensors"
TRUNK_FILE = MODELS / "tiny_wan21_i2v.safetensors"
HIGH_NOISE_FILE = MODELS / "tiny_wan22_i2v_high.safetensors"
LOW_NOISE_FILE = MODELS / "tiny_wan22_i2v_low.safetensors"

VAE_WIDTH = 8
LATENT_CHANNELS = 16
TEXT_WIDTH = 64
TEXT_TOKENS = 512
TRUNK = {"dim": 192, "ffn_dim": 768, "num_heads": 4, "num_layers": 6, "text_dim": TEXT_WIDTH}


def build_vae(width: int = VAE_WIDTH, seed: int = 0) -> nn.Module:
    """Build a Wan 2.1 VAE that starts as a per-frame autoencoder: convolutions look at the present frame only."""
    import comfy.ldm.wan.vae as wan_vae

    vae = wan_vae.WanVAE(
        dim=width,
        z_dim=LATENT_CHANNELS,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=2,
        attn_scales=[],
        temperal_downsample=[False, True, True],
    )
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in vae.named_parameters():
        nn.init.constant_(parameter, 1.0 if name.endswith("gamma") else 0.0)
    for name, module in vae.named_modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            _start_convolution(name, module, generator)
    return vae


@torch.no_grad()
def _start_convolution(name: str, conv: nn.Module, generator: torch.Generator) -> None:
    """Draw a convolution's weights; kernels longer than one frame see the past through a tenth of that scale."""
    shape = conv.weight.shape
    drawn = torch.randn(shape, generator=generator)
    if conv.weight.ndim == 5 and shape[2] == 3 and shape[3] == 1:
        conv.weight.copy_(0.02 * drawn)
        identity = torch.eye(shape[1]).repeat(shape[0] // shape[1], 1)
        conv.weight[:, :, -1, 0, 0] += identity
        return
    taps = shape[2] if conv.weight.ndim == 5 else 1
    fan_in = math.prod(shape[1:]) / taps
    drawn *= fan_in**-0.5 * (0.4 if name.endswith(("residual.6", "proj")) else 1.0)
    if taps == 3:
        drawn[:, :, :2] *= 0.1
    conv.weight.copy_(drawn)


def build_trunk(seed: int = 0, sizes: Mapping[str, int] = TRUNK) -> nn.Module:
    """Build the Wan image-to-video model (36 input channels, no image embedding), ready to be trained.

    `sizes` are those of TRUNK; the width `dim` is at least 132.

    The noisy latent and the conditioning latent start in separate halves of the token, and the head starts as the
    inverse of the patch embedding, so that copying, the hardest part for a narrow model, is there from the first step.
    """
    import comfy.ops
    from comfy.ldm.wan.model import WanModel

    trunk = WanModel(
        model_type="t2v", in_dim=36, out_dim=LATENT_CHANNELS, cross_attn_norm=True,
        device="cpu", dtype=torch.float32, operations=comfy.ops.disable_weight_init, **sizes,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in trunk.named_parameters():
        _start_trunk_parameter(name, parameter, generator)
    basis = torch.empty(sizes["dim"], sizes["dim"])
    nn.init.orthogonal_(basis, generator=generator)
    with torch.no_grad():
        _start_copying(trunk, basis)
    return trunk


def _start_trunk_parameter(name: str, parameter: Tensor, generator: torch.Generator) -> None:
    """Set one parameter: norms to 1, biases to 0, gates half open, weights to unit gain (less at branch ends)."""
    if name.endswith("modulation"):
        nn.init.zeros_(parameter)
        if parameter.shape[1] == 6:
            nn.init.constant_(parameter.data[:, 2::3], 0.5)
    elif parameter.ndim == 1:
        nn.init.constant_(parameter, 1.0 if "norm" in name and name.endswith("weight") else 0.0)
    else:
        gain = 0.3 if name.endswith((".o.weight", "ffn.2.weight")) else 1.0
        gain = 0.02 if name.startswith("time_projection") else gain
        nn.init.normal_(parameter, std=gain * math.prod(parameter.shape[1:]) ** -0.5, generator=generator)


def _start_copying(trunk: nn.Module, basis: Tensor) -> None:
    """Embed noisy and conditioning latents along orthonormal rows of `basis`; read the noisy ones back at the head."""
    embedding = torch.zeros_like(trunk.patch_embedding.weight).flatten(2)
    width = LATENT_CHANNELS * 4
    noisy, known, mask = basis[:width], basis[width : 2 * width], basis[2 * width :]
    embedding[:, :LATENT_CHANNELS] = noisy.T.reshape(-1, LATENT_CHANNELS, 4)
    embedding[:, LATENT_CHANNELS + 4 :] = known.T.reshape(-1, LATENT_CHANNELS, 4)
    embedding[:, LATENT_CHANNELS] = 0.5 * mask[:4].T
    trunk.patch_embedding.weight.copy_(embedding.view_as(trunk.patch_embedding.weight))
    order = noisy.view(LATENT_CHANNELS, 4, -1).transpose(0, 1).flatten(0, 1)
    trunk.head.head.weight.copy_(0.7 * order)


def save_half(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> int:
    """Write the tensors in float16 and return the size of the file in bytes."""
    half = {name: (t.half() if t.is_floating_point() else t).contiguous().clone() for name, t in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file(half, path, metadata=metadata)
    return path.stat().st_size


def trunk_metadata() -> dict[str, str]:
    """Return the safetensors header that tells ComfyUI what it cannot infer from the tensors of the video model."""
    return {"config": json.dumps({"transformer": {name: TRUNK[name] for name in ("num_heads", "text_dim")}})}
