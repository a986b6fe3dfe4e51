"""The Wan 2.1 VAE on a whole clip at once, fast on a CPU.

ComfyUI runs the causal 3-D convolutions chunk by chunk with a feature cache. Here the same modules (a
`comfy.ldm.wan.vae.WanVAE`, its own parameters) run over all frames in one pass, each causal convolution written as one
2-D convolution over the channels of frames t-2, t-1 and t. On two cores with bfloat16 that is about 20 times as fast,
with gradients. tests/demo/models/test_tiny_models.py holds it equal to ComfyUI's `encode` and `decode`.

Tensors are `[B, T, H, W, C]`, contiguous: the memory layout that the CPU convolutions prefer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def encode(vae: nn.Module, frames: Tensor) -> Tensor:
    """Encode `[B, T, H, W, 3]` in [-1, 1], T = 4 n + 1, to the latent mean `[B, n + 1, H / 8, W / 8, 16]`."""
    x = _run(vae.encoder.downsamples, causal_conv(vae.encoder.conv1, frames))
    x = _run(vae.encoder.head, _run(vae.encoder.middle, x))
    return causal_conv(vae.conv1, x).chunk(2, dim=-1)[0]


def decode(vae: nn.Module, latent: Tensor) -> Tensor:
    """Decode `[B, n + 1, H / 8, W / 8, 16]` to frames `[B, 4 n + 1, H, W, 3]` in about [-1, 1]."""
    x = causal_conv(vae.decoder.conv1, causal_conv(vae.conv2, latent))
    x = _run(vae.decoder.middle, x)
    return _run(vae.decoder.head, _run(vae.decoder.upsamples, x))


def causal_conv(conv: nn.Module, x: Tensor, time_stride: int = 1, num_past: int | None = None) -> Tensor:
    """Apply a causal 3-D convolution as one 2-D convolution.

    Args:
        num_past: frames of zeros put in front; default: kernel length - 1, as many as keep the length.
    """
    weight = conv.weight.to(x.dtype)
    bias = None if conv.bias is None else conv.bias.to(x.dtype)
    taps = weight.shape[2]
    num_past = taps - 1 if num_past is None else num_past
    if x.shape[1] == 1 and num_past == taps - 1:
        return _conv2d(x, weight[:, :, -1], bias, conv.padding[1])
    if taps == 1:
        return _conv2d(x, weight[:, :, 0], bias, conv.padding[1])
    padded = F.pad(x, (0, 0, 0, 0, 0, 0, num_past, 0))
    length = padded.shape[1] - taps + 1
    stacked = torch.cat([padded[:, tap : tap + length : time_stride] for tap in range(taps)], dim=-1)
    kernel = weight.transpose(1, 2).flatten(1, 2)
    return _conv2d(stacked, kernel, bias, conv.padding[1])


def _conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, stride: int = 1) -> Tensor:
    """Convolve every frame of `[B, T, H, W, C]`."""
    batch, time = x.shape[:2]
    out = F.conv2d(x.flatten(0, 1).permute(0, 3, 1, 2), weight, bias, stride=stride, padding=padding)
    return out.permute(0, 2, 3, 1).unflatten(0, (batch, time))


def _run(layers: nn.Module, x: Tensor) -> Tensor:
    """Apply a sequence of VAE modules, distinguished by their attributes."""
    for layer in layers:
        x = _apply(layer, x)
    return x


def _apply(layer: nn.Module, x: Tensor) -> Tensor:
    if hasattr(layer, "residual"):
        shortcut = x if isinstance(layer.shortcut, nn.Identity) else causal_conv(layer.shortcut, x)
        return shortcut + _run(layer.residual, x)
    if hasattr(layer, "to_qkv"):
        return _attend(layer, x)
    if hasattr(layer, "mode"):
        return _resample(layer, x)
    if hasattr(layer, "gamma"):
        return _rms_norm(layer, x)
    if isinstance(layer, nn.Conv3d):
        return causal_conv(layer, x)
    return layer(x)


def _rms_norm(norm: nn.Module, x: Tensor) -> Tensor:
    """Divide by the root mean square over channels; the mean is a matrix product, which is fast for few channels."""
    channels = x.shape[-1]
    mean_square = torch.matmul(x * x, x.new_full((channels, 1), 1.0 / channels))
    return x * torch.rsqrt(mean_square + 1e-12) * norm.gamma.flatten().to(x.dtype)


def _attend(block: nn.Module, x: Tensor) -> Tensor:
    """Attend with one head over the pixels of each frame."""
    batch, time, height, width, _ = x.shape
    tokens = _rms_norm(block.norm, x).flatten(0, 1).flatten(1, 2)
    weight, bias = block.to_qkv.weight.to(x.dtype), block.to_qkv.bias.to(x.dtype)
    query, key, value = F.linear(tokens, weight.flatten(1), bias).chunk(3, dim=-1)
    out = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])[:, 0]
    out = F.linear(out, block.proj.weight.to(x.dtype).flatten(1), block.proj.bias.to(x.dtype))
    return x + out.view(batch, time, height, width, -1)


def _resample(layer: nn.Module, x: Tensor) -> Tensor:
    """Halve or double the picture, and the frame rate of all but the first frame where the layer does so."""
    if layer.mode == "upsample3d" and x.shape[1] > 1:
        x = torch.cat([x[:, :1], _double_frames(layer.time_conv, x[:, 1:])], dim=1)
    conv = layer.resample[1]
    weight, bias = conv.weight.to(x.dtype), conv.bias.to(x.dtype)
    if layer.mode.startswith("upsample"):
        batch, time, height, width, channels = x.shape
        x = x[:, :, :, None, :, None].expand(batch, time, height, 2, width, 2, channels)
        return _conv2d(x.reshape(batch, time, 2 * height, 2 * width, channels), weight, bias, 1)
    x = _conv2d(F.pad(x, (0, 0, 0, 1, 0, 1)), weight, bias, 0, stride=2)
    if layer.mode == "downsample3d" and x.shape[1] > 1:
        x = torch.cat([x[:, :1], causal_conv(layer.time_conv, x, time_stride=2, num_past=0)], dim=1)
    return x


def _double_frames(conv: nn.Module, x: Tensor) -> Tensor:
    """Make two frames of each: the first and the second half of the channels."""
    pairs = causal_conv(conv, x).unflatten(-1, (2, x.shape[-1]))
    return pairs.permute(0, 1, 4, 2, 3, 5).flatten(1, 2)
