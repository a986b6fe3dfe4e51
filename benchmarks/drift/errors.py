"""Errors that are not the model's own, for the arms that test whether its own are needed."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from svi_core.recycling.error_bank import ErrorBank

from .codec import LinearCodec

GAIN, SATURATION, BLUR = (
    0.15,
    0.3,
    1.0,
)  # largest change of a colour channel and of saturation, and standard deviation of the blur in pixels


class GaussianErrors:
    """A bank whose errors are Gaussian noise, each as large as the error that the real bank would have given."""

    def __init__(self, bank: ErrorBank):
        self._bank = bank
        self.entry_shape, self.grid = bank.entry_shape, bank.grid

    def sample_noise_error(self, sigma: float, generator: torch.Generator) -> Tensor | None:
        """As `ErrorBank.sample_noise_error`."""
        return _matched(self._bank.sample_noise_error(sigma, generator), generator)

    def sample_latent_error(self, sigma: float, generator: torch.Generator) -> Tensor | None:
        """As `ErrorBank.sample_latent_error`."""
        return _matched(self._bank.sample_latent_error(sigma, generator), generator)

    def sample_image_error(self, num_slots: int, generator: torch.Generator, grids=None, window="random") -> Tensor | None:
        """As `ErrorBank.sample_image_error`."""
        return _matched(self._bank.sample_image_error(num_slots, generator, grids, window), generator)


def _matched(error: Tensor | None, generator: torch.Generator) -> Tensor | None:
    if error is None:
        return None
    return torch.randn(error.shape, generator=generator) * error.square().mean().sqrt()


def hand_made_error(codec: LinearCodec, slots: Tensor, is_first: bool, generator: torch.Generator) -> Tensor:
    """Return the error of known frames under blur and a change of colours: [16, n, h, w] for latent slots [16, n, h, w].

    Args:
        codec: of the latents.
        slots: of the conditioning latent.
        is_first: whether they are first slots, of one frame each, or later ones, of four.
        generator: draws the strength.
    """
    channel_map = codec.first if is_first else codec.later
    patches = channel_map.decode(slots.permute(1, 2, 3, 0))
    frames = patches.unflatten(-1, (-1, 3, 8, 8)).permute(0, 3, 4, 1, 5, 2, 6).flatten(5, 6).flatten(3, 4)
    spoilt = _blurred(_recoloured(frames, generator), generator)
    back = spoilt.unflatten(-1, (-1, 8)).unflatten(-3, (-1, 8)).permute(0, 3, 5, 1, 2, 4, 6).flatten(3)
    return channel_map.encode(back).permute(3, 0, 1, 2) - slots


def _recoloured(frames: Tensor, generator: torch.Generator) -> Tensor:
    """Change gain and saturation of `frames` [n, T, 3, H, W]."""
    draws = 2 * torch.rand(4, generator=generator) - 1
    grey = frames.mean(2, keepdim=True)
    saturated = grey + (frames - grey) * (1 + SATURATION * draws[3])
    return (saturated * (1 + GAIN * draws[:3]).view(3, 1, 1)).clamp(0, 1)


def _blurred(frames: Tensor, generator: torch.Generator) -> Tensor:
    deviation = BLUR * float(torch.rand((), generator=generator)) + 1e-3
    radius = math.ceil(3 * BLUR)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / deviation) ** 2)
    weights = (weights / weights.sum()).view(1, 1, -1)
    flat = frames.flatten(0, 2)[:, None]
    flat = F.conv2d(F.pad(flat, (radius, radius, 0, 0), "replicate"), weights[:, :, None, :])
    flat = F.conv2d(F.pad(flat, (0, 0, radius, radius), "replicate"), weights[:, :, :, None])
    return flat[:, 0].unflatten(0, frames.shape[:3])
