"""What is asked of each clip, and the chain of clips: each moves on from the tail of the one before.

Source: SVI (arXiv:2510.09212), Sec. 4; SVI_SPEC A1-A3 (seeds, stitching).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

import torch

from .conditioning import require_finite
from .layouts import Layout, Overlap
from .prompts import PromptStream
from .run_store import ClipRecord, RunStore, chain_key

MAX_SEED = 2**53 - 1  # the largest integer that survives a browser's JSON
SEED_STEP = 42  # the authors' seed_i = 42 * i


class SeedMode(StrEnum):
    """How the noise seed moves from clip to clip."""

    PER_CLIP = "per clip"
    FIXED = "fixed"


class Part(StrEnum):
    """Which of a clip's frames go into the video."""

    ALL = "all"
    HEAD = "head"  # all but the overlap with the next clip
    TAIL = "tail"  # all but the overlap with the clip before


@dataclass(frozen=True)
class ClipRequest:
    """What one clip is asked to be.

    Attributes:
        index: 0-based place in the video.
        prompt: its text.
        seed: its noise seed.
    """

    index: int
    prompt: str
    seed: int


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

    def requests(self) -> Iterator[ClipRequest]:
        """Yield what is asked of each clip in order."""
        for index in range(self.num_clips):
            yield ClipRequest(index, self.prompts.at(index), self.seed_of(index))

    def part_of(self, clip_index: int, layout: Layout) -> Part:
        """Return which frames of clip `clip_index` the video shows: each moment once.

        Source: SVI_SPEC A1 (1.0 keeps the next clip's copy of the overlap), A2 and A3 (2.0 and Pro the previous clip's).
        """
        if layout.overlap_rule is Overlap.KEEP_PREVIOUS:
            return Part.ALL if clip_index == 0 else Part.TAIL
        return Part.ALL if clip_index == self.num_clips - 1 else Part.HEAD


@dataclass(frozen=True)
class Clip:
    """One finished clip.

    Attributes:
        request: what was asked.
        key: hash of all that determines it.
        latent: [1, 16, F, h, w], the sampler's output.
        reused: whether it was found in the run store.
        tail: its last frames [n, H, W, 3] in [0, 1], made on demand (pixel-space layouts only need them).
    """

    request: ClipRequest
    key: str
    latent: torch.Tensor
    reused: bool
    tail: Callable[[int], torch.Tensor]


class ClipMaker(Protocol):
    """The model side of the loop, as callables: core knows neither ComfyUI nor weights."""

    def determinants(self, request: ClipRequest) -> object:
        """Return everything besides the clip before that determines the clip, for its key."""

    def sample(self, request: ClipRequest, previous: Clip | None) -> torch.Tensor:
        """Return the latent [1, 16, F, h, w] of the clip."""

    def decode(self, latent: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the clip's frames in chunks [t, H, W, 3] in [0, 1]."""


def generate_clips(plan: ClipPlan, maker: ClipMaker, store: RunStore) -> Iterator[Clip]:
    """Yield the clips of `plan` in order; what `store` holds is reused, everything else is sampled and stored.

    Only the clip before is kept, so memory does not depend on the number of clips, and the caller may stop at any clip.

    Raises:
        ValueError: a clip came out of the sampler with NaN or infinite values; earlier clips are stored already.
    """
    previous, key = None, None
    for request in plan.requests():
        key = chain_key(key, maker.determinants(request))
        latent = store.load_latent(key)
        reused = latent is not None
        if latent is None:
            latent = maker.sample(request, previous)
            where = f"clip {request.index + 1} of {plan.num_clips} (seed {request.seed}, prompt {request.prompt[:60]!r})"
            require_finite(latent, where)
            store.save_latent(ClipRecord(key, request.index, request.prompt, request.seed, {}), latent.cpu())
        previous = Clip(request, key, latent, reused, _tail_of(latent, maker))
        yield previous


def cut_frames(chunks: Iterator[torch.Tensor], part: Part, num_frames: int, overlap: int) -> Iterator[torch.Tensor]:
    """Yield of a clip's `chunks` [t, H, W, 3] (together `num_frames` frames) only the frames of `part`."""
    first = overlap if part is Part.TAIL else 0
    end = num_frames - overlap if part is Part.HEAD else num_frames
    position = 0
    for chunk in chunks:
        kept = chunk[max(0, first - position) : max(0, end - position)]
        position += len(chunk)
        if len(kept):
            yield kept


def _tail_of(latent: torch.Tensor, maker: ClipMaker) -> Callable[[int], torch.Tensor]:
    """Return a function that decodes the last n frames of a clip, keeping no more than them in memory."""

    def tail(num_frames: int) -> torch.Tensor:
        kept = torch.empty(0)
        for chunk in maker.decode(latent):
            kept = torch.cat([kept.to(chunk), chunk])[-num_frames:] if kept.numel() else chunk[-num_frames:]
        return kept.clone()

    return tail
