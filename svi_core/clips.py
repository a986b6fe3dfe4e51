"""The clip loop: N clips, each conditioned on the anchor and on the tail of the clip before.

Source: SVI (arXiv:2510.09212), Sec. 4; SVI_SPEC A1-A3 (seeds, stitching).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

import torch

from .conditioning import require_finite
from .layouts import Layout, Overlap
from .prompts import PromptStream

MAX_SEED = 2**53 - 1  # the largest integer that survives a browser's JSON
SEED_STEP = 42  # the authors' seed_i = 42 * i


class SeedMode(StrEnum):
    """How the noise seed moves from clip to clip."""

    PER_CLIP = "per clip"
    FIXED = "fixed"


@dataclass(frozen=True)
class ClipPlan:
    """What is decided before the first clip is made.

    Attributes:
        num_clips: clips of the video, >= 1.
        prompts: one prompt per clip; the last one holds on.
        seed: seed of clip 0.
        seed_mode: PER_CLIP adds 42 per clip, as the authors do; FIXED repeats the same noise.
    """

    num_clips: int
    prompts: PromptStream
    seed: int = 0
    seed_mode: SeedMode = SeedMode.PER_CLIP

    def __post_init__(self):
        if self.num_clips < 1:
            raise ValueError(f"num_clips is {self.num_clips}: a video has at least 1 clip.")
        if not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed is {self.seed}: use 0 .. 2^53 - 1, the range that a browser stores exactly.")

    def seed_of(self, clip_index: int) -> int:
        """Return the noise seed of clip `clip_index` (0-based); it wraps at 2^53."""
        step = SEED_STEP if self.seed_mode is SeedMode.PER_CLIP else 0
        return (self.seed + step * clip_index) % (MAX_SEED + 1)


@dataclass(frozen=True)
class Clip:
    """One finished clip.

    Attributes:
        index: 0-based.
        prompt: the text it was made from.
        seed: its noise seed.
        latent: [1, 16, F, h, w], the sampler's output.
        frames: [T, H, W, 3] in [0, 1], all frames of the clip, shared ones included.
    """

    index: int
    prompt: str
    seed: int
    latent: torch.Tensor
    frames: torch.Tensor


SampleClip = Callable[[int, int, Clip | None], torch.Tensor]
"""(clip index, seed, previous clip) -> latent [1, 16, F, h, w]."""

DecodeClip = Callable[[torch.Tensor], torch.Tensor]
"""latent [1, 16, F, h, w] -> frames [T, H, W, 3] in [0, 1]."""


def generate_clips(plan: ClipPlan, sample: SampleClip, decode: DecodeClip) -> Iterator[Clip]:
    """Yield the clips of `plan` one after the other.

    Only the clip before is kept, so memory does not depend on the number of clips, and the caller may stop at any clip.

    Raises:
        ValueError: a clip came out of the sampler with NaN or infinite values; earlier clips were yielded already.
    """
    previous = None
    for index in range(plan.num_clips):
        seed, prompt = plan.seed_of(index), plan.prompts.at(index)
        latent = sample(index, seed, previous)
        require_finite(latent, f"clip {index + 1} of {plan.num_clips} (seed {seed}, prompt {prompt[:60]!r})")
        previous = Clip(index, prompt, seed, latent, decode(latent))
        yield previous


def new_frames(clip: Clip, layout: Layout, num_clips: int) -> torch.Tensor:
    """Return the frames [T', H, W, 3] that `clip` adds to the video: all but the copy that `layout` does not keep.

    Source: SVI_SPEC A1 (1.0 keeps the next clip's copy), A2 and A3 (2.0 and 2.0 Pro keep the previous clip's).
    """
    if layout.overlap_rule is Overlap.KEEP_PREVIOUS:
        return clip.frames[layout.overlap :] if clip.index > 0 else clip.frames
    return clip.frames if clip.index == num_clips - 1 else clip.frames[: -layout.overlap]
