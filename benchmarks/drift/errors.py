"""Errors that are not a bank's, for the arms that test whether the model's own are needed."""

import torch
import torchvision.transforms.v2.functional as tv
from torch import Tensor

from svi_core.recycling.error_bank import ErrorBank

from .codec import Codec

GAIN, SATURATION, BLUR = 0.15, 0.3, 1.5  # largest change of a colour and of saturation, and of the blur's deviation in pixels


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


def hand_made_error(codec: Codec, slot: Tensor, generator: torch.Generator) -> Tensor:
    """Return the error [16, 1, h, w] of a known latent slot [16, 1, h, w] under blur and a change of colours."""
    frame = codec.decode(slot[None], lossy=False)[0, 0]
    return codec.encode(_blurred(_recoloured(frame, generator), generator)[None, None])[0] - slot


def _recoloured(frame: Tensor, generator: torch.Generator) -> Tensor:
    """Change gain and saturation of `frame` [3, H, W]."""
    draws = 2 * torch.rand(4, generator=generator) - 1
    grey = frame.mean(0, keepdim=True)
    saturated = grey + (frame - grey) * (1 + SATURATION * draws[3])
    return (saturated * (1 + GAIN * draws[:3]).view(3, 1, 1)).clamp(0, 1)


def _blurred(frame: Tensor, generator: torch.Generator) -> Tensor:
    return tv.gaussian_blur(frame, [9, 9], [BLUR * float(torch.rand((), generator=generator)) + 1e-3])
