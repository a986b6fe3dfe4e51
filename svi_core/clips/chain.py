"""The chain of clips: each is made once, stored under its key, and continues from the tail of the one before.

Source: SVI (arXiv:2510.09212), Sec. 4; docs/METHOD.md, 3.1 and 3.3 (what a clip hands to the next).
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from ..conditioning.build_y import KnownPart, cut_to_8_bits, motion_tail, require_finite
from ..schedule.options import format_options
from ..store.records import ClipRecord
from ..store.run_store import RunStore, chain_key
from ..store.takes import Take
from ..systems.layouts import Layout
from .clip_plan import ClipPlan, ClipRequest


class Predecessor(Protocol):
    """What a clip continues from: the clip before, or the end of a video.

    Attributes:
        key: 64 hex digits; determines latent and frames.
        latent: [1, 16, F, h, w], un-normalised; its last slots are the motion of a latent-space layout.
    """

    @property
    def key(self) -> str: ...
    @property
    def latent(self) -> torch.Tensor: ...

    def tail(self, num_frames: int) -> torch.Tensor:
        """Return the last `num_frames` frames [n, H, W, 3] in [0, 1]."""
        ...


def motion_of(layout: Layout, previous: Predecessor) -> KnownPart:
    """Return the motion that a clip of `layout` takes from the clip before: its last latent slots (2.0 Pro) or frames."""
    if layout.in_latent_space:
        return KnownPart(latent=motion_tail(previous.latent, layout.num_motion_frames))
    return KnownPart(frames=motion_frames(layout, previous))


def motion_frames(layout: Layout, previous: Predecessor) -> torch.Tensor:
    """Return the motion frames [n, H, W, 3] of the clip before, as they will be encoded again."""
    frames = previous.tail(layout.num_motion_frames)
    return cut_to_8_bits(frames) if layout.cuts_to_8_bits else frames


@dataclass(frozen=True)
class Clip:
    """One finished clip.

    Attributes:
        request: its request.
        key: hash of all that determines it.
        latent: [1, 16, F, h, w], the sampler's output.
        reused: it was found in the run store.
        decode: latent -> chunks of frames [t, H, W, 3] in [0, 1].
        plan_key: see ClipPlan.plan_key.
        last_frames: [n, H, W, 3], its last few frames if it was decoded already.
        is_end_only: `decode` yields these and nothing of the frames before, see :meth:`with_end_only`.
    """

    request: ClipRequest
    key: str
    latent: torch.Tensor
    reused: bool
    decode: Callable[[torch.Tensor], Iterator[torch.Tensor]] = field(repr=False)
    plan_key: str = ""
    last_frames: torch.Tensor | None = field(default=None, repr=False, compare=False)
    is_end_only: bool = False

    def tail(self, num_frames: int) -> torch.Tensor:
        """Return the last `num_frames` frames [n, H, W, 3], decoding the clip unless :attr:`last_frames` has them."""
        if self.last_frames is not None and len(self.last_frames) >= num_frames:
            return self.last_frames[-num_frames:]
        return torch.cat(list(self.decode(self.latent)))[-num_frames:]

    def keeps_frames_from(self, start: int) -> bool:
        """Whether all frames from `start` (0-based) on are in memory."""
        return self.last_frames is not None and len(self.last_frames) >= self.request.layout.num_frames - start

    def with_end_only(self) -> "Clip":
        """Return this clip with frames of :attr:`last_frames` alone: those before are missing, and stand there as grey ones."""
        end, num_frames = self.last_frames, self.request.layout.num_frames
        assert end is not None
        missing = end.new_full((1, *end.shape[1:]), 0.5).expand(num_frames - len(end), -1, -1, -1)

        def decode(latent: torch.Tensor) -> Iterator[torch.Tensor]:
            yield missing
            yield end

        return replace(self, decode=decode, is_end_only=True)


class DecodedClip:
    """Iterates once over the frames of a clip in chunks [t, H, W, 3], and keeps the last few for the next clip."""

    def __init__(self, clip: Clip):
        self._clip = clip
        self._last: torch.Tensor | None = None

    def __iter__(self) -> Iterator[torch.Tensor]:
        layout = self._clip.request.layout
        last, count = [], max(layout.num_motion_frames, layout.overlap)
        for chunk in self._clip.decode(self._clip.latent):
            last = [chunk[-count:] if len(chunk) >= count else torch.cat([*last, chunk])[-count:]]
            yield chunk
        self._last = torch.cat(last)

    @property
    def clip(self) -> Clip:
        """The clip, with its last frames once it is decoded."""
        return replace(self._clip, last_frames=self._last)


class ClipMaker(Protocol):
    """The model side of the loop; core knows neither ComfyUI nor weights."""

    def begin(self, request: ClipRequest) -> None:
        """Take note that the clip is made next, or taken from the store."""

    def determinants(self, request: ClipRequest) -> object:
        """Return everything that determines the clip, except the clip before, for its key."""

    def sample(self, request: ClipRequest, previous: Predecessor | None) -> torch.Tensor:
        """Return the latent [1, 16, F, h, w] of the clip."""
        ...

    def decode(self, latent: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the clip's frames in chunks [t, H, W, 3] in [0, 1]."""
        ...

    def measures(self, request: ClipRequest) -> dict[str, float]:
        """Return what the sampling time depends on besides the size: "num_steps", "num_passes", ..."""
        ...


def make_clip(
    plan: ClipPlan,
    maker: ClipMaker,
    store: RunStore,
    request: ClipRequest,
    before: Clip | None = None,
    start: Predecessor | None = None,
) -> Clip:
    """Return the clip of `request` from `store`, or sample and store it.

    Args:
        before: the clip before; None for the first.
        start: the end of the video that the plan continues, if any.

    Raises:
        ValueError: the sampler returned NaN or infinite values; nothing is stored. Or the take that the schedule pins is gone
            or damaged.
    """
    maker.begin(request)
    if request.take is not None:
        return _stored_take(maker, store, request, request.take)
    previous = None if request.starts_anew else before or start
    plan_key = None if request.starts_anew else before.plan_key if before else plan.continues or None
    key = chain_key(previous.key if previous else None, maker.determinants(request))
    plan_key = plan.plan_key(request, plan_key)
    options = format_options(replace(request.spec, seed=None, cut=request.spec.cut and request.index > 0, hold=0, seam=None))
    record = ClipRecord(
        key,
        request.index,
        request.spec.prompt,
        request.seed,
        {},
        plan_key=plan_key,
        options=options,
        parent=previous.key if previous else "",
    )
    latent = store.load_latent(key)
    reused = latent is not None
    if latent is None:
        began = time.monotonic()
        latent = maker.sample(request, previous)
        require_finite(latent, f"clip {request.index + 1} (seed {request.seed}, prompt {request.spec.prompt[:60]!r})")
        size = dict(zip(("num_slots", "latent_height", "latent_width"), latent.shape[-3:], strict=True))
        measures = {"sample_seconds": round(time.monotonic() - began, 3), **size, **maker.measures(request)}
        record = replace(record, measures=measures, made=round(time.time(), 3))
        store.save_latent(record, latent.cpu())
    store.ensure_record(record)
    return Clip(request, key, latent, reused, maker.decode, plan_key)


def _stored_take(maker: ClipMaker, store: RunStore, request: ClipRequest, take: Take) -> Clip:
    """Return the take that the schedule pins, with the prompt that it was made from."""
    latent = store.load_latent(take.key)
    if latent is None:
        raise ValueError(
            f"take {take.key[:12]} of clip {request.index + 1} is gone from {store.clips}, or damaged: remove [take ...], or "
            "use another take."
        )
    record = take.record or ClipRecord(take.key, request.index, request.spec.prompt, request.seed, {})
    store.ensure_record(replace(record, index=request.index))
    made = replace(request, spec=replace(request.spec, prompt=record.prompt))
    return Clip(made, take.key, latent, True, maker.decode, take.plan_key)
