"""What is asked of each clip, and the chain of clips: each moves on from the tail of the one before.

Source: SVI (arXiv:2510.09212), Sec. 4; docs/METHOD.md, 4.4 (seeds) and 5.1 (overlap).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Protocol

from ..schedule.spec import MAX_SEED, ClipSpec, Requirement, Schedule
from ..store.run_store import chain_key
from ..systems.layouts import Layout, Overlap, make_layout
from ..video.seams import Seam, Showing

SEED_STEP = 42  # the authors' seed_i = 42 * i


class SeedMode(StrEnum):
    """How the noise seed moves from clip to clip."""

    PER_CLIP = "per clip"
    FIXED = "fixed"


class ScheduleSource(Protocol):
    """Where a run's clip specs come from: a Schedule, or a LiveSchedule that may change while the run goes."""

    def at(self, clip_index: int, require: Requirement | None = None) -> ClipSpec:
        """Return what is said of clip `clip_index` (0-based); what came since the run began only if `require` accepts it."""
        ...

    def snapshot(self) -> Schedule:
        """Return the schedule as it is now."""
        ...


@dataclass(frozen=True)
class ClipRequest:
    """What one clip is asked to be, with everything that the schedule left open filled in.

    Attributes:
        index: 0-based place in the video.
        spec: what the schedule says.
        seed: its noise seed.
        layout: its layout, with the schedule's lengths.
        starts_anew: conditioned on the anchor only: the first clip, or a cut.
        seam: what becomes of the frames that it shares with the clip before.
        start_frame: where its frame 0 lies on the video's timeline; negative where a continued video's frames come first.
    """

    index: int
    spec: ClipSpec
    seed: int
    layout: Layout
    starts_anew: bool
    seam: Seam = Seam.DROP
    start_frame: int = 0

    def placed_after(self, before: "ClipRequest | None") -> "ClipRequest":
        """Return this request on the timeline: after the clip `before`, or first where there is none."""
        end = before.start_frame + before.layout.num_frames + before.spec.hold if before else 0
        return replace(self, start_frame=end - (0 if self.starts_anew else self.layout.overlap))

    @property
    def num_blended(self) -> int:
        """How many frames are mixed with the clip before; a 2.0 Pro clip's frame 0, which replays its anchor, never is."""
        if self.starts_anew or self.seam is Seam.DROP:
            return 0
        return self.layout.overlap - 1 if self.layout.in_latent_space else self.layout.overlap


@dataclass(frozen=True)
class ClipPlan:
    """What is decided before the first clip is made.

    Attributes:
        num_clips: clips of the video, >= 1.
        schedule: what is said of each clip.
        layout: how clips are conditioned and joined, where the schedule says nothing else.
        seed: of the first clip of all, which is clip 0 unless runs are continued.
        seed_mode: PER_CLIP adds 42 per clip, as the authors do; FIXED repeats the same noise.
        graph_hash: a hash of everything else that the graph says, which is known before any model loads.
        seam: what becomes of shared frames, where the schedule says nothing else.
        continues: a hash of the video that the first clip moves on from; empty if it starts anew.
        num_clips_before: clips of earlier runs in that video: seeds go on after theirs, since no noise may come twice.
        accepts: raises ValueError where a spec, of a schedule that changed meanwhile, asks for what the run does not have.
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

    def __post_init__(self):
        if self.num_clips < 1:
            raise ValueError(f"num_clips is {self.num_clips}: a video has at least 1 clip.")
        if not 0 <= self.seed <= MAX_SEED:
            raise ValueError(f"seed is {self.seed}: use 0 .. 2^53 - 1, the range that a browser stores exactly.")

    def seed_of(self, clip_index: int, spec: ClipSpec | None = None) -> int:
        """Return the noise seed of clip `clip_index` (0-based): the schedule's, or one that wraps at 2^53."""
        if spec is not None and spec.seed is not None:
            return spec.seed
        step = SEED_STEP if self.seed_mode is SeedMode.PER_CLIP else 0
        return (self.seed + step * (self.num_clips_before + clip_index)) % (MAX_SEED + 1)

    def request(self, clip_index: int, before: ClipRequest | None = None) -> ClipRequest:
        """Return what the schedule now asks of clip `clip_index`, placed after the clip of `before`.

        A live schedule may answer otherwise the next time. The joint of two clips depends on both, so whoever asked for the
        following clip to show one must also make that one.

        Raises:
            ValueError: the schedule gives it lengths that its layout cannot take.
        """

        def require(index: int, spec: ClipSpec) -> None:
            self.accepts(spec)
            request = self.request_for(index, spec)
            if before is not None and not request.starts_anew:
                _require_room(before, request)

        return self.request_for(clip_index, self.schedule.at(clip_index, require)).placed_after(before)

    def following(self, request: ClipRequest) -> ClipRequest | None:
        """Return what is asked of the clip after `request`, None after the last."""
        return self.request(request.index + 1, request) if request.index < self.num_clips - 1 else None

    def walk(self) -> Iterator[tuple[ClipRequest, Showing]]:
        """Yield what is asked of each clip, and what of it is shown, as the schedule is now."""
        request: ClipRequest | None = self.request(0)
        while request is not None:
            following = self.following(request)
            yield request, shown_part(request, following)
            request = following

    def plan_key(self, request: ClipRequest, previous: str | None) -> str:
        """Return the key of a clip as far as the graph tells it; `previous` is that of the clip before, None after a cut."""
        spec = replace(request.spec, hold=0, seam=None)  # these change what is shown of a clip, not the clip
        return chain_key(previous, (self.graph_hash, spec, request.seed, request.layout, request.starts_anew))

    def request_for(self, clip_index: int, spec: ClipSpec) -> ClipRequest:
        """Return what `spec` asks of clip `clip_index`.

        Raises:
            ValueError: naming the clip, lengths that its layout cannot take.
        """
        layout = self.layout
        if spec.num_frames is not None or spec.num_motion_frames is not None:
            num_motion = self.layout.num_motion_frames if spec.num_motion_frames is None else spec.num_motion_frames
            try:
                layout = make_layout(layout.name, spec.num_frames or layout.num_frames, num_motion, layout.cuts_to_8_bits)
            except ValueError as error:
                raise ValueError(f"clip {clip_index + 1} of the schedule: {error}") from error
        starts_anew = spec.cut or (clip_index == 0 and not self.continues)
        seam = Seam.DROP if clip_index == 0 else spec.seam or self.seam  # a continued video's own frames stay as they are
        return ClipRequest(clip_index, spec, self.seed_of(clip_index, spec), layout, starts_anew, seam)

    def require_joints(self, schedule: Schedule) -> None:
        """Refuse clips that are too short for what they share with their neighbours.

        Raises:
            ValueError: naming the clip.
        """
        before = None
        for index in range(min(self.num_clips, len(schedule))):
            request = self.request_for(index, schedule.at(index))
            if before is not None and not request.starts_anew:
                _require_room(before, request)
            before = request


def shown_part(request: ClipRequest, following: ClipRequest | None) -> Showing:
    """Return what the clip of `request` gives to a video in which `following` comes next, so that each moment is shown once.

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
    """Refuse a clip whose motion or blend is longer than what the clip before can give.

    Raises:
        ValueError: naming the clip.
    """
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
