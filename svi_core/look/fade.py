"""Do the clips of a chain still look like true clips? Measures that need no truth of the same story.

A chain that degrades fades to grey, blurs, stops moving or leaves the colours of its data. A distance from the truth does not
show it: a faded picture is nearer to the truth than a sharp wrong one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor

from .frame_measures import NUM_BANDS, measure_pixels

NUM_FINE_BANDS = 2  # of the octaves of detail: 1-2 and 2-4 pixels


@dataclass(frozen=True)
class ClipLook:
    """How N clips look, each the mean over its frames; pixels are in [0, 1].

    Attributes:
        contrast: [N], standard deviation of luma within a frame.
        spectrum: [N], root of the share of luma's energy at details of 1-16 pixels that lies at 1-4 pixels. A picture whose
            amplitudes fall as 1/f, as natural ones do, has about as much energy in each octave: 0.7.
        motion: [N], mean absolute change between neighbouring frames.
        saturation: [N], mean of max(R, G, B) - min(R, G, B).
        colour: [N, 3], mean R, G and B.
    """

    contrast: Tensor
    spectrum: Tensor
    motion: Tensor
    saturation: Tensor
    colour: Tensor


@dataclass(frozen=True)
class Fade:
    """What is left in N clips of how true clips look: 1 is as in the mean true clip; NaN where that has nothing itself.

    Attributes:
        contrast, spectrum, motion, saturation: [N], the clip's over the mean of true clips.
        colour: [N], distance of the clip's mean colour from that of all true clips, over the root mean square distance of a
            true clip. It is far above 1 where the colours have left those of the data.
    """

    contrast: Tensor
    spectrum: Tensor
    motion: Tensor
    saturation: Tensor
    colour: Tensor


def look_at(frames: Tensor) -> ClipLook:
    """Measure how clips `frames` [N, T, 3, H, W] in [0, 1] look.

    Raises:
        ValueError: a clip has fewer than two frames, or frames of less than 16 pixels a side.
    """
    num_clips, num_frames, _, height, width = frames.shape
    if num_frames < 2 or min(height, width) < 2**NUM_BANDS:
        raise ValueError(
            f"clips have {num_frames} frames of {width}x{height} pixels: a look needs 2 frames of {2**NUM_BANDS} pixels a side."
        )
    pixels = frames.detach().float().cpu().movedim(2, -1)
    rows = np.stack([measure_pixels(clip.numpy()).rows for clip in pixels]).reshape(num_clips, num_frames, -1)
    _, contrast, saturation = torch.from_numpy(rows).float().mean(1)[:, :3].unbind(1)
    energies = torch.from_numpy(10.0 ** rows[..., -NUM_BANDS:])
    shares = energies[..., :NUM_FINE_BANDS].sum(-1) / energies.sum(-1)
    motion = (pixels[:, 1:] - pixels[:, :-1]).abs().mean((1, 2, 3, 4))
    return ClipLook(contrast, shares.sqrt().mean(1).float(), motion, saturation, pixels.mean((1, 2, 3)))


def joined(looks: Sequence[ClipLook]) -> ClipLook:
    """Return the looks of several sets of clips as those of one set, in order."""
    return ClipLook(*(torch.cat([getattr(look, part.name) for look in looks]) for part in fields(ClipLook)))


def fade(clips: ClipLook, truth: ClipLook) -> Fade:
    """Return what is left in `clips` of how the clips of `truth` look; the two need not show the same scenes.

    Raises:
        ValueError: `truth` has fewer than two clips.
    """
    if len(truth.colour) < 2:
        raise ValueError(f"there is {len(truth.colour)} true clip: the colours of true clips need at least two to differ.")
    centre = truth.colour.mean(0)
    return Fade(
        contrast=_share(clips.contrast, truth.contrast.mean()),
        spectrum=_share(clips.spectrum, truth.spectrum.mean()),
        motion=_share(clips.motion, truth.motion.mean()),
        saturation=_share(clips.saturation, truth.saturation.mean()),
        colour=_share((clips.colour - centre).norm(dim=1), (truth.colour - centre).square().sum(1).mean().sqrt()),
    )


def _share(values: Tensor, whole: Tensor) -> Tensor:
    """Return `values` [N] over `whole`, or NaN where that is 0."""
    return values / whole if whole > 0 else torch.full_like(values, torch.nan)
