"""A linear stand-in for the VAE: 8 x 8 pixels to one place of 16 channels, as Wan's in space, without its compression of time.

The 16 strongest principal components of the patches are kept, scaled by one number to a mean variance of 1. It decodes as a
linear VAE with posterior noise does: each component shrinks towards its mean by variance / (variance + noise^2), the weak
ones, which are detail, most. So a picture that is decoded and encoded again has lost a little of its detail, as with a real
VAE. Without that loss encoding what was decoded changes nothing.

Source: Lucas et al., "Don't Blame the ELBO! A Linear VAE Perspective on Posterior Collapse" (arXiv:1911.02469), Sec. 4.

Shapes: frames [N, T, 3, H, W] in [0, 1], latents [N, 16, T, H / 8, W / 8].
"""

from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from .world import World, draw_scenes

PATCH, CHANNELS = 8, 16
NOISE = 0.2  # posterior noise, in pixel values; the deviation of a patch's strongest component is about 1.6
NUM_SCENES, NUM_FRAMES = 256, 3  # that it is fitted on


@dataclass(frozen=True)
class Codec:
    """The codec.

    Attributes:
        mean: [192], the mean patch.
        down: [192, 16], patches to channels.
        up: [16, 192], its pseudo-inverse.
        kept: [16], what a channel keeps when it is decoded with the VAE's loss.
    """

    mean: Tensor
    down: Tensor
    up: Tensor
    kept: Tensor

    def encode(self, frames: Tensor) -> Tensor:
        """Encode [N, T, 3, H, W] to [N, 16, T, h, w]."""
        return ((split(frames) - self.mean) @ self.down).permute(0, 4, 1, 2, 3)

    def decode(self, latent: Tensor, lossy: bool = True) -> Tensor:
        """Decode [N, 16, T, h, w] to [N, T, 3, H, W], not clamped; without the VAE's loss if not `lossy`."""
        channels = latent.permute(0, 2, 3, 4, 1)
        return _join((channels * self.kept if lossy else channels) @ self.up + self.mean)


@cache
def fit_codec() -> Codec:
    """Return the codec of the endless world; the same in all studies."""
    scenes = draw_scenes(World.ENDLESS, NUM_SCENES, NUM_FRAMES, torch.Generator().manual_seed(1))
    patches = split(scenes.frames).flatten(0, 3).double()
    mean = patches.mean(0)
    centred = patches - mean
    variance, basis = torch.linalg.eigh(centred.T @ centred / len(centred))
    variance, basis = variance[-CHANNELS:].flip(0), basis[:, -CHANNELS:].flip(1)
    scale = variance.mean().sqrt()
    kept = variance / (variance + NOISE**2)
    return Codec(mean.float(), (basis / scale).float(), (basis * scale).T.float(), kept.float())


def split(frames: Tensor) -> Tensor:
    """Return the patches [N, T, h, w, 192] of frames [N, T, 3, H, W]."""
    height, width = frames.shape[-2] // PATCH, frames.shape[-1] // PATCH
    patches = frames.unflatten(-1, (width, PATCH)).unflatten(-3, (height, PATCH))
    return patches.permute(0, 1, 3, 5, 2, 4, 6).flatten(4)


def _join(patches: Tensor) -> Tensor:
    """Put patches [N, T, h, w, 192] together as frames [N, T, 3, H, W]."""
    return patches.unflatten(-1, (3, PATCH, PATCH)).permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4)
