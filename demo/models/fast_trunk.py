"""The Wan video model's forward pass, arranged for training on a CPU.

It uses a `comfy.ldm.wan.model.WanModel`'s own parameters and equals its `forward` (tests/demo/models/test_tiny_models.py), with
two savings: bfloat16 throughout except where the original is float32 for good reason, and padding text tokens, which
are all alike, attended to once with their number added to the logit instead of 500 times.

Shapes: B samples, T latent slots, L text tokens, N = T * h / 2 * w / 2 tokens, C the model's width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def rotation(model: nn.Module, num_slots: int, height: int, width: int) -> Tensor:
    """Return the rotary factors of every token as complex numbers, `[N, 1, head width / 2]`."""
    table = model.rope_encode(num_slots, height, width)[0]
    return torch.complex(table[..., 0, 0], table[..., 1, 0])


def velocity(
    model: nn.Module,
    noisy_latent: Tensor,
    conditioning: Tensor,
    timestep: Tensor,
    text: Tensor,
    text_logits: Tensor,
) -> Tensor:
    """Predict noise - latent.

    Args:
        noisy_latent: `[B, 16, T, h, w]` in normalised latent space.
        conditioning: `[B, 20, T, h, w]`: four mask channels (1 = known), then 16 latent ones.
        timestep: 1000 * sigma, `[B]`.
        text: text encoder output `[B, L, text width]`, at least one padding token (zeros) in each sample.
        text_logits: `[B, L]`: 0 for words, log(number of padding tokens) for one padding token, -inf for the others.
    """
    from comfy.ldm.wan.model import sinusoidal_embedding_1d

    num_slots, height, width = noisy_latent.shape[2:]
    x = torch.cat([noisy_latent, conditioning], dim=1)
    x = _embed_patches(model.patch_embedding, x).bfloat16()
    time = model.time_embedding(sinusoidal_embedding_1d(model.freq_dim, timestep))
    modulation = model.time_projection(time).unflatten(1, (6, model.dim))
    with torch.autocast("cpu", torch.bfloat16):
        context = model.text_embedding(text.bfloat16())
    turn = rotation(model, num_slots, height, width)
    bias = text_logits[:, None, None, :].bfloat16()
    for block in model.blocks:
        x = _block(block, x, (block.modulation + modulation).bfloat16(), turn, context, bias)
    shift, scale = (model.head.modulation + time[:, None]).bfloat16().unbind(1)
    out = _linear(model.head.head, _modulate(x, shift, scale)).float()
    return _join_patches(out, num_slots, height, width)


def _linear(layer: nn.Module, x: Tensor) -> Tensor:
    """Apply a layer and its low-rank term `layer.low_rank`, if it has one."""
    out = F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))
    low_rank = getattr(layer, "low_rank", None)
    return out if low_rank is None else out + low_rank(x)


def _modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Normalise `[B, N, C]`, then scale and shift by `[B, C]`."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1.0 + scale[:, None]) + shift[:, None]


def _embed_patches(conv: nn.Module, x: Tensor) -> Tensor:
    """Apply the 1 x 2 x 2 patch convolution as a linear map: `[B, channels, T, h, w]` to `[B, N, C]`."""
    patches = x.unflatten(3, (-1, 2)).unflatten(5, (-1, 2)).permute(0, 2, 3, 5, 1, 4, 6)
    return F.linear(patches.flatten(4).flatten(1, 3), conv.weight.flatten(1), conv.bias)


def _join_patches(x: Tensor, num_slots: int, height: int, width: int) -> Tensor:
    """Put `[B, N, 4 * 16]` back together as `[B, 16, T, h, w]`."""
    x = x.unflatten(1, (num_slots, height // 2, width // 2)).unflatten(4, (2, 2, -1))
    return x.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)


def _block(block: nn.Module, x: Tensor, modulation: Tensor, turn: Tensor, context: Tensor, bias: Tensor) -> Tensor:
    """Self-attention, cross-attention, feed-forward; only the first and the last are modulated and gated."""
    shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = modulation.unbind(1)
    attended = _self_attention(block.self_attn, _modulate(x, shift_a, scale_a), turn)
    x = x + attended * gate_a[:, None]
    normed = F.layer_norm(x, x.shape[-1:], block.norm3.weight.to(x.dtype), block.norm3.bias.to(x.dtype), eps=1e-6)
    x = x + _cross_attention(block.cross_attn, normed, context, bias)
    hidden = F.gelu(_linear(block.ffn[0], _modulate(x, shift_f, scale_f)), approximate="tanh")
    return x + _linear(block.ffn[2], hidden) * gate_f[:, None]


def _heads(x: Tensor, num_heads: int) -> Tensor:
    """`[B, N, C]` to `[B, heads, N, C / heads]`."""
    return x.unflatten(2, (num_heads, -1)).transpose(1, 2)


def _rms(norm: nn.Module, x: Tensor) -> Tensor:
    return F.rms_norm(x, x.shape[-1:], norm.weight.to(x.dtype), eps=1e-6)


def _rotate(x: Tensor, turn: Tensor, num_heads: int) -> Tensor:
    """Turn neighbouring pairs of channels by the token's place, `[B, N, C]` to `[B, heads, N, C / heads]`."""
    pairs = torch.view_as_complex(x.float().unflatten(2, (num_heads, -1, 2)))
    return torch.view_as_real(pairs * turn).flatten(3).to(x.dtype).transpose(1, 2)


def _self_attention(attention: nn.Module, x: Tensor, turn: Tensor) -> Tensor:
    query = _rotate(_rms(attention.norm_q, _linear(attention.q, x)), turn, attention.num_heads)
    key = _rotate(_rms(attention.norm_k, _linear(attention.k, x)), turn, attention.num_heads)
    value = _heads(_linear(attention.v, x), attention.num_heads)
    return _linear(attention.o, _attend(query, key, value))


def _cross_attention(attention: nn.Module, x: Tensor, context: Tensor, bias: Tensor) -> Tensor:
    query = _heads(_rms(attention.norm_q, _linear(attention.q, x)), attention.num_heads)
    key = _heads(_rms(attention.norm_k, _linear(attention.k, context)), attention.num_heads)
    value = _heads(_linear(attention.v, context), attention.num_heads)
    return _linear(attention.o, _attend(query, key, value, bias))


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attend, `[B, heads, N, C / heads]` to `[B, N, C]`. Written out: at this size the fused CPU kernel takes twice as long."""
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if bias is not None:
        logits = logits + bias
    return (logits.softmax(-1) @ value).transpose(1, 2).flatten(2)
