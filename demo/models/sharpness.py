"""Measure how sharp the shipped models are: the VAE on held-out clips, and the object in clips that continue each other.

    python -m demo.models.sharpness                   # the single model
    python -m demo.models.sharpness --expert-pair     # Wan 2.2's pair, as `make demo` uses it

Prints the VAE's PSNR and, for each of three chained clips of held-out stories, how well the object's outline meets the true
one (intersection over union) and how far its mean colour is off, in shares of the range of a channel.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from statistics import mean

import torch.nn.functional as F
from torch import Tensor

from demo.models.comfy_import import import_comfy
from demo.models.contact_sheet import Sampler, grow_story
from demo.models.train_vae import measure_psnr
from demo.world.scenes import HELD_OUT_SEED, SEGMENT_FRAMES, Story, render_scenery, render_story, sample_story, track_story

SEEDS = (1_000_005, 1_000_011, 1_000_012, 1_000_013, 1_000_014, 1_000_033)
NUM_CLIPS, EVERY = 3, 8
LEAST_DIFFERENCE = 0.12
"""From the scenery, in some channel, of a pixel that belongs to the object."""
REACH = 8
"""Pixels around the true object in which a picture's object is looked for, so that blurred scenery elsewhere is not one."""


@dataclass(frozen=True)
class Sharpness:
    """Of the object in one clip: `overlap` of its outline with the true one, 0 to 1, and `colour` error, 0 to 1."""

    overlap: float
    colour: float


def outline(frames: Tensor, scenery: Tensor) -> Tensor:
    """Return which pixels `[T, 1, H, W]` differ from the scenery (both `[T, 3, H, W]` in [0, 1]): the object, as 0 or 1."""
    return ((frames - scenery).abs().amax(1, keepdim=True) > LEAST_DIFFERENCE).float()


def compare(made: Tensor, truth: Tensor, scenery: Tensor) -> Sharpness:
    """Compare the object in `made` with that in `truth`, `[T, 3, H, W]` in [0, 1], before the true `scenery`."""
    true = outline(truth, scenery)
    near = F.max_pool2d(true, 2 * REACH + 1, stride=1, padding=REACH)
    found = outline(made, scenery) * near
    both, either = (true * found).sum((1, 2, 3)), (true + found).clamp(max=1).sum((1, 2, 3))
    size = true.sum((2, 3)).clamp(min=1)
    colours = [(frames * true).sum((2, 3)) / size for frames in (made, truth)]
    return Sharpness(float((both / either.clamp(min=1)).mean()), float((colours[0] - colours[1]).abs().amax(1).mean()))


def of_story(sampler: Sampler, story: Story) -> list[Sharpness]:
    """Generate the story from its first frame and captions, clip after clip, and measure each clip's new frames."""
    truth, made = render_story(story), grow_story(sampler, story)
    scenery = render_scenery(story, track_story(story))
    starts = [SEGMENT_FRAMES * clip for clip in range(len(story.captions))]
    parts = [slice(start + EVERY, start + SEGMENT_FRAMES, EVERY) for start in starts]
    return [compare(made[part], truth[part], scenery[part]) for part in parts]


def main() -> None:
    """Read the command line, generate and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--cfg", type=float, default=2.0)
    parser.add_argument("--expert-pair", action="store_true", help="use Wan 2.2's pair instead of the single model")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS, help="stories; 1000000 and above are held out")
    parser.add_argument("--comfyui", help="root of the ComfyUI tree")
    options = parser.parse_args()
    import_comfy(options.comfyui)
    psnr = measure_psnr(range(HELD_OUT_SEED, HELD_OUT_SEED + 8))
    sys.stdout.write(f"VAE, 8 held-out clips: {psnr.mean():.1f} dB, the worst {psnr.min():.1f} dB\n")
    sampler, rows = Sampler(options.expert_pair, options.steps, options.cfg), []
    for seed in options.seeds:
        story = sample_story(seed, NUM_CLIPS)
        rows.append(of_story(sampler, story))
        figures = ", ".join(f"{own.overlap:.2f} / {own.colour:.2f}" for own in rows[-1])
        sys.stdout.write(f"story {seed}, the {story.colour} {story.kind}: outline / colour of the clips {figures}\n")
    for clip, found in enumerate(zip(*rows, strict=True), start=1):
        overlap, colour = mean(own.overlap for own in found), mean(own.colour for own in found)
        sys.stdout.write(f"clip {clip}, mean: outline {overlap:.2f}, colour off by {colour:.2f}\n")


if __name__ == "__main__":
    main()
