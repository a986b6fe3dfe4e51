"""The chain of clips: each is made once, kept under its key, and moves on from the tail of the one before.

Source: SVI (arXiv:2510.09212), Sec. 4; docs/METHOD.md, 3.1 and 3.3 (what a clip hands to the next).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch

from ..conditioning.build_y import KnownPart, cut_to_8_bits, motion_tail, require_finite
from ..store.records import ClipRecord
from ..store.run_store import RunStore, chain_key
from ..systems.layouts import Layout
from .clip_plan import ClipPlan, ClipRequest


class Predecessor(Protocol):
    """What a clip moves on from: the clip before, or the end of a video that is continued.

    Attributes:
        key: 64 hex digits; determines both of the following.
        latent: [1, 16, F, h, w], un-normalised; its last slots are the motion of a latent-space layout.
    """

    key: str
    latent: torch.Tensor

    def tail(self, num_frames: int) -> torch.Tensor:
        """Return the last `num_frames` frames [n, H, W, 3] in [0, 1]."""


def motion_of(layout: Layout, previous: Predecessor) -> KnownPart:
    """Return the motion that a clip of `layout` takes from the clip before: its last latents (2.0 Pro), or its last frames."""
    if layout.in_latent_space:
        return KnownPart(latent=motion_tail(previous.latent, layout.num_motion_frames))
    return KnownPart(frames=motion_frames(layout, previous))


def motion_frames(layout: Layout, previous: Predecessor) -> torch.Tensor:
    """Return the frames [n, H, W, 3] of the clip before that carry motion, as they are encoded again."""
    frames = previous.tail(layout.num_motion_frames)
    return cut_to_8_bits(frames) if layout.cuts_to_8_bits else frames


@dataclass(frozen=True)
class Clip:
    """One finished clip.

    Attributes:
        request: what was asked.
        key: hash of all that determines it.
        latent: [1, 16, F, h, w], the sampler's output.
        reused: whether it was found in the run store.
        decode: latent -> chunks of frames [t, H, W, 3] in [0, 1].
        plan_key: as the graph alone tells it, see ClipPlan.plan_key.
    """

    request: ClipRequest
    key: str
    latent: torch.Tensor
    reused: bool
    decode: Callable[[torch.Tensor], Iterator[torch.Tensor]] = field(repr=False)
    plan_key: str = ""
    _last: list[torch.Tensor] = field(default_factory=list, init=False, repr=False)

    def frames(self) -> Iterator[torch.Tensor]:
        """Yield all frames of the clip in chunks [t, H, W, 3]; the last few are remembered for :meth:`tail`."""
        last = None
        for chunk in self.decode(self.latent):
            last = chunk if last is None else torch.cat([last, chunk])
            last = last[-self.request.layout.num_motion_frames :]
            yield chunk
        self._last[:] = [last.clone()]

    def tail(self, num_frames: int) -> torch.Tensor:
        """Return the last `num_frames` frames [n, H, W, 3], decoding the clip only if that was not done yet."""
        if not self._last or len(self._last[0]) < num_frames:
            last = torch.cat(list(self.decode(self.latent)))[-num_frames:]
            self._last[:] = [last.clone()]
        return self._last[0][-num_frames:]


class ClipMaker(Protocol):
    """The model side of the loop, as callables: core knows neither ComfyUI nor weights."""

    def determinants(self, request: ClipRequest) -> object:
        """Return everything besides the clip before that determines the clip, for its key."""

    def sample(self, request: ClipRequest, previous: Predecessor | None) -> torch.Tensor:
        """Return the latent [1, 16, F, h, w] of the clip."""

    def decode(self, latent: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the clip's frames in chunks [t, H, W, 3] in [0, 1]."""

    def measures(self, request: ClipRequest) -> dict[str, float]:
        """Return what the time of the clip just sampled depends on besides its size: "num_steps", "num_passes", ..."""


def make_clip(
    plan: ClipPlan, maker: ClipMaker, store: RunStore, before: Clip | None = None, start: Predecessor | None = None
) -> Clip:
    """Return the clip of `plan` that comes after `before`, from `store` where it is, else sampled and stored.

    Args:
        before: the clip before; None for the first.
        start: what the first clip moves on from, if the plan continues a video.

    Raises:
        ValueError: it came out of the sampler with NaN or infinite values; nothing is stored then.
    """
    request = plan.request(before.request.index + 1 if before else 0).placed_after(before and before.request)
    previous = None if request.starts_anew else before or start
    plan_key = None if request.starts_anew else before.plan_key if before else plan.continues or None
    key = chain_key(previous and previous.key, maker.determinants(request))
    plan_key = plan.plan_key(request, plan_key)
    record = ClipRecord(key, request.index, request.spec.prompt, request.seed, {}, plan_key=plan_key)
    latent = store.load_latent(key)
    reused = latent is not None
    if latent is None:
        began = time.monotonic()
        latent = maker.sample(request, previous)
        require_finite(latent, _describe(request))
        record.measures["sample_seconds"] = round(time.monotonic() - began, 3)
        record.measures.update(_size_of(latent), **maker.measures(request))
        store.save_latent(record, latent.cpu())
    store.ensure_record(record)
    return Clip(request, key, latent, reused, maker.decode, plan_key)


def generate_clips(plan: ClipPlan, maker: ClipMaker, store: RunStore, start: Predecessor | None = None) -> Iterator[Clip]:
    """Yield the clips of `plan` in order, the first moving on from `start` if the plan continues a video.

    Only the clip before is kept, so memory does not depend on the number of clips, and the caller may stop at any clip.
    What `store` holds is reused. Raises as :func:`make_clip`; earlier clips are stored already then.
    """
    assert bool(plan.continues) == (start is not None)
    clip = None
    for _ in range(plan.num_clips):
        clip = make_clip(plan, maker, store, clip, start)
        yield clip


def _size_of(latent: torch.Tensor) -> dict[str, float]:
    slots, height, width = latent.shape[-3:]
    return {"num_slots": slots, "latent_height": height, "latent_width": width}


def _describe(request: ClipRequest) -> str:
    return f"clip {request.index + 1} (seed {request.seed}, prompt {request.spec.prompt[:60]!r})"
