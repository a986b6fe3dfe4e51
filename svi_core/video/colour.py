"""Colour correction towards the anchor, on the shown frames only: the frames that condition the next clip stay unchanged.

At the end of each clip the mean and deviation of every colour channel are compared with the anchor's. The correction
changes gradually over the clip, from that of the end of the clip before to this one, so that it never jumps at a seam.
Source: the mean and deviation transfer of Reinhard et al., "Color Transfer between Images" (2001),
https://doi.org/10.1109/38.946629, in RGB.
"""

from dataclasses import dataclass

import torch

END_FRAMES = 16  # frames at the end of a clip that are compared with the anchor
_GAIN_LIMITS = (0.5, 2.0)  # a flat anchor or a flat clip must not blow up noise


@dataclass(frozen=True)
class ColourCorrection:
    """An affine change of each colour channel, in [0, 1]: gain * value + offset.

    Attributes:
        gain: three factors, red, green, blue.
        offset: three summands.
    """

    gain: tuple[float, float, float] = (1.0, 1.0, 1.0)
    offset: tuple[float, float, float] = (0.0, 0.0, 0.0)

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        """Return `frames` [T, H, W, 3] corrected, in [0, 1]."""
        return (frames * frames.new_tensor(self.gain)).add_(frames.new_tensor(self.offset)).clamp_(0.0, 1.0)


def match_colour(frames: torch.Tensor, anchor: torch.Tensor, strength: float) -> ColourCorrection:
    """Return what brings `frames` [T, H, W, 3] to the channel means and deviations of `anchor` [1, H, W, 3].

    Args:
        strength: 0 (nothing) to 1 (all the way).
    """
    have_mean, want_mean = (t.float().mean(dim=(0, 1, 2)).cpu() for t in (frames, anchor))
    have_spread, want_spread = (t.float().std(dim=(0, 1, 2)).cpu() for t in (frames, anchor))
    full_gain = (want_spread / have_spread.clamp_min(1e-6)).clamp(*_GAIN_LIMITS)
    gain = 1.0 + strength * (full_gain - 1.0)
    offset = strength * (want_mean - full_gain * have_mean)
    return ColourCorrection(tuple(gain.tolist()), tuple(offset.tolist()))


def corrected(
    chunk: torch.Tensor, position: int, begin: ColourCorrection, end: ColourCorrection, num_frames: int
) -> torch.Tensor:
    """Return `chunk` [t, H, W, 3], the frames from `position` on of a clip: by `begin` at its start, `end` at its end."""
    if begin == end:
        return begin(chunk)
    share = torch.arange(position, position + len(chunk), dtype=torch.float32) / max(1, num_frames - 1)
    return begin(chunk).lerp_(end(chunk), share.view(-1, 1, 1, 1).to(chunk))
