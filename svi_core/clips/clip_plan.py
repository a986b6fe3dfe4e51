"""The plan of a run: the request of each clip, and how neighbouring clips join.

Source: SVI (arXiv:2510.09212), Sec. 4; docs/METHOD.md, 4.4 (seeds) and 5.1 (overlap).
"""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from ..files.fingerprint import NOT_HASHED
from ..geometry import num_pixel_frames
from ..schedule.spec import MAX_SEED, ClipSpec, Requirement, Schedule
from ..store.run_store import chain_key
from ..store.takes import Take
from ..systems.layouts import Layout, Overlap, make_layout
from ..video.seams import Seam, Showing

SEED_STEP = 42  # the authors' seed_i = 42 * i


class SeedMode(StrEnum):
    """How the noise seed changes from clip to clip."""

    PER_CLIP = "per clip"
    FIXED = "fixed"


class ScheduleSource(Protocol):
    """The source of a run's clip specs: a Schedule, or a LiveSchedule that may change during the run."""

    def at(self, clip_index: int, require: Requirement | None = None) -> ClipSpec:
        """Return the spec of clip `clip_index` (0-based); a change during the run counts only if `require` accepts it."""
        ...

    def snapshot(self) -> Schedule:
        """Return the current schedule."""
        ...


@dataclass(frozen=True)
class ClipRequest:
    """The request for one clip: its spec, with everything filled in that the schedule leaves open.

    Attributes:
        index: 0-based place in the video.
        spec: what the schedule says.
        seed: its noise seed.
        layout: its layout, with the schedule's lengths.
        starts_anew: conditioned on the anchor only: the first clip, or a cut.
        seam: how the frames that it shares with the clip before are joined.
        start_frame: position of its frame 0 in the video; negative if it overlaps a continued video.
        take: the stored clip that is shown in its place.
    """

    index: int
    spec: ClipSpec
    seed: int
    layout: Layout
    starts_anew: bool
    seam: Seam = Seam.DROP
    start_frame: int = 0
    take: Take | None = field(default=None, metadata=NOT_HASHED)

    def placed_after(self, before: "ClipRequest | None") -> "ClipRequest":
        """Return this request placed after the clip `before`, or first."""
        end = before.start_frame + before.layout.num_frames + before.spec.hold if before else 0
        return replace(self, start_frame=end - (0 if self.starts_anew else self.layout.overlap))

    @property
    def num_blended(self) -> int:
        """How many frames are blended with the clip before; never frame 0 of a 2.0 Pro clip, which replays its anchor."""
        if self.starts_anew or self.seam is Seam.DROP:
            return 0
        return self.layout.overlap - 1 if self.layout.in_latent_space else self.layout.overlap


@dataclass(frozen=True)
class ClipPlan:
    """The decisions made before the first clip.

    Attributes:
        num_clips: clips of the video, >= 1.
        schedule: the source of clip specs.
        layout: how clips are conditioned and joined, unless the schedule says otherwise.
        seed: of the first clip; with a continued video, of the first clip of its first run.
        seed_mode: PER_CLIP adds 42 per clip, as the authors do; FIXED repeats the same noise.
        graph_hash: a hash of everything else in the graph, known before any model loads.
        seam: how shared frames are joined, unless the schedule says otherwise.
        continues: a hash of the video that the run continues; empty if it starts anew.
        num_clips_before: clips of earlier runs in that video: seeds continue after theirs, so that no noise repeats.
        accepts: raises ValueError if a spec of a changed schedule asks for what the run does not have.
        takes: returns the stored clip whose key begins with some digits, or raises ValueError; None: pins are not read.
    """

    num_clips: int
    schedule: ScheduleSource
    layout: Layout
    seed: int = 0
    seed_mode: SeedMode = SeedMode.PER_CLIP
    graph_hash: str = ""
    seam: Seam = Seam.DROP
    continues: str = ""
    num_clips_before: int = 0
    accepts: Callable[[ClipSpec], None] = field(default=lambda spec: None, repr=False, compare=False)
    takes: Callable[[str], Take] | None = field(default=None, repr=False, compare=False)

    def __post_init__(self):
        if self.num_clips < 1:
            raise ValueError(f"num_clips is {self.num_clips}: a video has at least 1 clip.")
        if not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed is {self.seed}: use 0 .. 2^53 - 1, the range that a browser stores exactly.")

    def seed_of(self, clip_index: int, spec: ClipSpec | None = None) -> int:
        """Return the noise seed of clip `clip_index` (0-based): the schedule's, or a computed one that wraps at 2^53."""
        if spec is not None and spec.seed is not None:
            return spec.seed
        step = SEED_STEP if self.seed_mode is SeedMode.PER_CLIP else 0
        return (self.seed + step * (self.num_clips_before + clip_index)) % (MAX_SEED + 1)

    def request(self, clip_index: int, before: ClipRequest | None = None) -> ClipRequest:
        """Return the current request for clip `clip_index`, placed after the clip of `before`.

        A live schedule may answer differently next time. The joint of two clips depends on both requests, so the following
        clip must be made from the request with which the clip before was shown.

        Raises:
            ValueError: the schedule sets lengths that the layout cannot take.
        """

        def require(index: int, spec: ClipSpec) -> None:
            self.accepts(spec)
            request = self.request_for(index, spec)
            if before is not None and not request.starts_anew:
                _require_room(before, request)

        return self.request_for(clip_index, self.schedule.at(clip_index, require)).placed_after(before)

    def following(self, request: ClipRequest) -> ClipRequest | None:
        """Return the request after `request`, or None after the last."""
        return self.request(request.index + 1, request) if request.index < self.num_clips - 1 else None

    def walk(self) -> Iterator[tuple[ClipRequest, Showing]]:
        """Yield each clip's request and shown part, by the current schedule."""
        request: ClipRequest | None = self.request(0)
        while request is not None:
            following = self.following(request)
            yield request, shown_part(request, following)
            request = following

    def plan_key(self, request: ClipRequest, previous: str | None) -> str:
        """Return a clip's key as far as it follows from the graph; `previous` is that of the clip before, None after a cut."""
        if request.take is not None:
            return request.take.plan_key
        spec = replace(request.spec, hold=0, seam=None)  # these change what is shown of the clip, not the clip itself
        return _known_key(previous, self.graph_hash, spec, request.seed, request.layout, request.starts_anew)

    @property
    def first_key(self) -> str:
        """The plan key of the first clip, or the digits of its take: what tells this run from others, whatever comes later."""
        spec = self.schedule.snapshot().at(0)
        if spec.take is not None:
            return spec.take
        request = self.request_for(0, spec)
        return self.plan_key(request, None if request.starts_anew else self.continues or None)

    def request_for(self, clip_index: int, spec: ClipSpec) -> ClipRequest:
        """Return the request that `spec` makes for clip `clip_index`; raise ValueError for lengths that do not fit."""
        layout, take = self.layout, None
        try:
            if spec.take is not None and self.takes is not None:
                take = self.takes(spec.take)
            num_frames = spec.num_frames if take is None else num_pixel_frames(take.num_slots)
            if num_frames is not None or spec.num_motion_frames is not None:
                num_motion = self.layout.num_motion_frames if spec.num_motion_frames is None else spec.num_motion_frames
                layout = make_layout(layout.name, num_frames or layout.num_frames, num_motion, layout.cuts_to_8_bits)
        except ValueError as error:
            raise ValueError(f"clip {clip_index + 1} of the schedule: {error}") from error
        starts_anew = spec.cut or (clip_index == 0 and not self.continues)
        seam = Seam.DROP if clip_index == 0 else spec.seam or self.seam  # a continued video's own frames stay as they are
        seed = take.record.seed if take and take.record else self.seed_of(clip_index, spec)
        return ClipRequest(clip_index, spec, seed, layout, starts_anew, seam, take=take)

    def require_joints(self, schedule: Schedule) -> None:
        """Raise ValueError, naming the clip, if a clip is too short for what it shares with its neighbours."""
        before = None
        for index in range(min(self.num_clips, len(schedule))):
            request = self.request_for(index, schedule.at(index))
            if before is not None and not request.starts_anew:
                _require_room(before, request)
            before = request


@functools.lru_cache(maxsize=16_384)  # after an edit, the clips before it are as they were
def _known_key(previous: str | None, *determinants: object) -> str:
    return chain_key(previous, determinants)


def shown_part(request: ClipRequest, following: ClipRequest | None) -> Showing:
    """Return what the clip of `request` contributes to a video in which `following` comes next; each moment is shown once.

    Source: docs/METHOD.md, 5.1 (1.0 keeps the next clip's copy of the overlap, 2.0 and Pro the previous clip's).
    """
    start, stop = 0, request.layout.num_frames
    if request.num_blended:
        start = request.layout.overlap - request.num_blended
    elif not request.starts_anew and (request.index == 0 or request.layout.overlap_rule is Overlap.KEEP_PREVIOUS):
        start = request.layout.overlap
    if following is not None and not following.starts_anew:
        keeps_next = following.layout.overlap_rule is Overlap.KEEP_NEXT
        stop -= following.num_blended or (following.layout.overlap if keeps_next else 0)
    is_end = stop == request.layout.num_frames
    return Showing(range(start, stop), request.num_blended, request.seam, request.spec.hold, is_end)


def _require_room(before: ClipRequest, request: ClipRequest) -> None:
    """Raise ValueError, naming the clip, if its motion or blend is longer than the clip before allows."""
    if request.layout.overlap >= before.layout.num_frames:
        raise ValueError(
            f"clip {request.index + 1} of the schedule shares {request.layout.overlap} frames with the clip before, which has "
            f"only {before.layout.num_frames}: use fewer motion frames, a longer clip before, or cut."
        )
    if not shown_part(before, request).frames:
        raise ValueError(
            f"clip {before.index + 1} of the schedule has {before.layout.num_frames} frames, all of which go into its seams: "
            f"use {before.layout.num_frames + 4} or more."
        )
