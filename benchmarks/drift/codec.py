"""A linear stand-in for the VAE: causal, 8 x 8 x 4 to one place of 16 channels, like Wan's, but exact and almost free.

A latent-space study decodes and encodes hundreds of thousands of frames. The first frame has a slot of its own, later ones
share a slot by fours. A patch of four frames splits into mean and motion; the 16 strongest principal components of both are
kept, scaled to a mean variance of 1. The first slot holds those of the mean, and zeros for the motion. So encoding a decoded
latent gives the same latent, also where the last frame of a later slot at rest becomes the first frame of the next clip: any
drift comes from the model and not from the codec. Error recycling adds errors of later slots to first ones; they mean the same
there after `first_slot_error` has removed their motion, which a first slot cannot hold.

Shapes: N clips, T = 4 n + 1 frames, S = n + 1 slots; frames [N, T, 3, H, W] in [0, 1], latents [N, 16, S, H / 8, W / 8].
"""

from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

PATCH, FRAMES_PER_SLOT, CHANNELS = 8, 4, 16


@dataclass(frozen=True)
class LinearMap:
    """Patches [..., P] to channels [..., 16] and back.

    Attributes:
        mean: [P], the mean patch.
        down: [P, 16], patches to channels.
        up: [16, P], its pseudo-inverse.
    """

    mean: Tensor
    down: Tensor
    up: Tensor

    def encode(self, patches: Tensor) -> Tensor:
        """Return the channels of `patches`."""
        return (patches - self.mean) @ self.down

    def decode(self, channels: Tensor) -> Tensor:
        """Return the patches that have these channels."""
        return channels @ self.up + self.mean


@dataclass(frozen=True)
class LinearCodec:
    """The codec: one map for the first slot, one for the later ones."""

    first: LinearMap
    later: LinearMap

    def encode(self, frames: Tensor) -> Tensor:
        """Encode [N, T, 3, H, W] to [N, 16, S, h, w]."""
        first, later = split_patches(frames)
        channels = torch.cat([self.first.encode(first)[:, None], self.later.encode(later)], dim=1)
        return channels.permute(0, 4, 1, 2, 3)

    def decode(self, latent: Tensor) -> Tensor:
        """Decode [N, 16, S, h, w] to [N, T, 3, H, W], not clamped."""
        channels = latent.permute(0, 2, 3, 4, 1)
        first = self.first.decode(channels[:, 0]).unflatten(-1, (1, 3, PATCH, PATCH))[:, None]
        later = self.later.decode(channels[:, 1:]).unflatten(-1, (FRAMES_PER_SLOT, 3, PATCH, PATCH))
        return torch.cat([_join(first), _join(later)], dim=1)

    def at_rest(self, first_slot: Tensor, num_slots: int) -> Tensor:
        """Return the latent [N, 16, S, h, w] of still clips, given their slot [N, 16, h, w]: a view."""
        return first_slot[:, :, None].expand(-1, -1, num_slots, -1, -1)

    def first_slot_error(self, error: Tensor) -> Tensor:
        """Return the part of `error` [16, n, h, w] that a first slot can hold: what survives decoding and encoding a frame."""
        return torch.einsum("cnhw,cp,pd->dnhw", error, self.first.up, self.first.down)

    def save(self, path: Path) -> None:
        """Write the codec to a safetensors file."""
        tensors = {f"{kind}.{name}": value for kind in ("first", "later") for name, value in vars(getattr(self, kind)).items()}
        safetensors.torch.save_file({name: value.contiguous() for name, value in tensors.items()}, path)


def load_codec(path: Path) -> LinearCodec:
    """Read what :meth:`LinearCodec.save` wrote."""
    tensors = safetensors.torch.load_file(path)
    first, later = (LinearMap(*(tensors[f"{kind}.{name}"] for name in ("mean", "down", "up"))) for kind in ("first", "later"))
    return LinearCodec(first, later)


def fit_codec(frames: Tensor) -> LinearCodec:
    """Return the codec that keeps most of `frames` [N, T, 3, H, W]; below, P = 192 values of a patch of one frame."""
    later = split_patches(frames)[1].flatten(0, -2).double().unflatten(1, (FRAMES_PER_SLOT, -1))
    still = later.mean(1)
    mean = still.mean(0)
    still_variance, still_basis = _principal(still - mean)
    moving_variance, moving_basis = _principal((later - still[:, None]).flatten(1))
    # a still patch, repeated, is a vector of the later slots' space: a unit vector there has 1 / 2 of each frame's
    repeated = still_basis.repeat(FRAMES_PER_SLOT, 1) / FRAMES_PER_SLOT**0.5
    variance = torch.cat([FRAMES_PER_SLOT * still_variance, moving_variance])
    strongest = variance.argsort(descending=True)[:CHANNELS].sort().values
    basis = torch.cat([repeated, moving_basis], dim=1)[:, strongest]
    deviation = variance[strongest].sqrt()
    scale = deviation.sqrt() * deviation.mean().sqrt()  # between whitening and none; the channels' variances have the mean 1
    down, up = basis / scale, (basis * scale).T
    first_down = down.unflatten(0, (FRAMES_PER_SLOT, -1)).sum(0)  # of a frame at rest for a slot; motion gets 0
    first_up = up.unflatten(1, (FRAMES_PER_SLOT, -1)).mean(1)
    return LinearCodec(_as_map(mean, first_down, first_up), _as_map(mean.repeat(FRAMES_PER_SLOT), down, up))


def split_patches(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Return the patches of the first frame [N, h, w, 192] and of the later slots [N, S - 1, h, w, 768]."""
    height, width = frames.shape[-2] // PATCH, frames.shape[-1] // PATCH
    patches = frames.unflatten(-1, (width, PATCH)).unflatten(-3, (height, PATCH)).permute(0, 1, 3, 5, 2, 4, 6)
    later = patches[:, 1:].unflatten(1, (-1, FRAMES_PER_SLOT)).permute(0, 1, 3, 4, 2, 5, 6, 7)
    return patches[:, 0].flatten(3), later.flatten(4)


def _join(patches: Tensor) -> Tensor:
    """Put patches [N, S, h, w, frames, 3, 8, 8] together as frames [N, S * frames, 3, H, W]."""
    frames = patches.permute(0, 1, 4, 5, 2, 6, 3, 7)
    return frames.flatten(6, 7).flatten(4, 5).flatten(1, 2)


def _principal(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Return variances [16] and directions [P, 16] of the strongest principal components of `centred` [M, P]."""
    variance, basis = torch.linalg.eigh(centred.T @ centred / len(centred))
    return variance[-CHANNELS:].flip(0), basis[:, -CHANNELS:].flip(1)


def _as_map(mean: Tensor, down: Tensor, up: Tensor) -> LinearMap:
    """Return the fp32 map of `mean` [P], `down` [P, 16] and `up` [16, P], all fp64."""
    return LinearMap(mean.float(), down.float(), up.float())
