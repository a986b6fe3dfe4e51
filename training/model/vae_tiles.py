"""Encode a clip in spatial tiles with the result of encoding it whole.

The first part of Wan's encoder, its downsampling layers, sees only a neighbourhood of each pixel and needs most of the
memory. It runs tile by tile, each tile with a margin of its surroundings, which is cut off afterwards. The second part has
attention over the whole picture; it works at an eighth of the resolution and runs once. So no tile is blended with another.
Source: docs/METHOD.md, 5.3.
"""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from svi_core.geometry import SPATIAL_STRIDE

MARGIN = 48  # pixels; what is further away changes a latent by less than rounding does, with trained and with random weights


def encode_in_tiles(vae: nn.Module, pixels: Tensor, tile: int) -> Tensor:
    """Return the latent [1, 16, F, h, w] of a clip, equal to ``vae.encode(pixels)`` up to rounding.

    Args:
        vae: a `comfy.ldm.wan.vae.WanVAE`, on the device of `pixels`.
        pixels: [1, 3, T, H, W] in [-1, 1].
        tile: side of a tile in pixels, a multiple of 8, without its margin of 48 pixels on each side.
    """
    *_, height, width = pixels.shape
    downsampling = _with_parts(
        vae, encoder=_with_parts(vae.encoder, middle=nn.ModuleList(), head=nn.ModuleList()), conv1=_Twice()
    )
    features = None
    for rows in _spans(height, tile):
        for columns in _spans(width, tile):
            (top, bottom), (left, right) = _with_margin(rows, height), _with_margin(columns, width)
            found = downsampling.encode(pixels[..., top:bottom, left:right])
            if features is None:
                features = found.new_empty(*found.shape[:3], height // SPATIAL_STRIDE, width // SPATIAL_STRIDE)
            features[(..., _latents(rows), _latents(columns))] = found[(..., _latents(rows, top), _latents(columns, left))]
    assert features is not None, pixels.shape
    for layer in (*vae.encoder.middle, *vae.encoder.head, vae.conv1):
        features = layer(features)
    return features.chunk(2, dim=1)[0]


class _Twice(nn.Module):
    """Replaces the layer that makes mean and variance, of which ComfyUI returns the mean: both are the features."""

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([features, features], dim=1)


def _with_parts(module: nn.Module, **parts: nn.Module) -> nn.Module:
    """Return a copy of `module` that shares its weights, with other modules in some places."""
    changed = copy.copy(module)
    changed._modules = {**module._modules, **parts}
    return changed


def _spans(size: int, tile: int) -> Iterator[tuple[int, int]]:
    for start in range(0, size, tile):
        yield start, min(start + tile, size)


def _with_margin(span: tuple[int, int], size: int) -> tuple[int, int]:
    return max(0, span[0] - MARGIN), min(size, span[1] + MARGIN)


def _latents(span: tuple[int, int], start: int = 0) -> slice:
    """Return the latents of a span of pixels, counted from pixel `start`."""
    return slice((span[0] - start) // SPATIAL_STRIDE, (span[1] - start) // SPATIAL_STRIDE)
