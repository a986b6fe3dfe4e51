"""The clips that a requested run will show, and which of them are already stored."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ..clips.clip_plan import ClipRequest
from ..schedule.spec import ClipSpec
from ..schedule.text import format_options
from ..store.records import ClipRecord
from ..video.seams import Showing
from .requested_run import RequestedRun


@dataclass(frozen=True)
class ExpectedClip:
    """One clip of a requested run.

    Attributes:
        request: its request.
        showing: what it contributes to the video.
        first_frame: where it begins in the video, 0-based.
        begin: the same in seconds.
        options: its options in schedule syntax, without the seed; an anchor only where it changes.
        is_stored: whether the run folder holds it, so that it is reused; None if unknown.
        seconds: time to make it; 0 for a stored one, None if nothing comparable was measured.
        record: of the stored clip that is reused, if it has one.
        plan_key: see ClipPlan.plan_key; "" if too little is known.
    """

    request: ClipRequest
    showing: Showing
    first_frame: int
    begin: float
    options: str = ""
    is_stored: bool | None = None
    seconds: float | None = field(default=None, compare=False)
    record: ClipRecord | None = field(default=None, compare=False, repr=False)
    plan_key: str = field(default="", compare=False, repr=False)

    @property
    def num_frames(self) -> int:
        """Frames that the clip contributes, held ones included."""
        return self.showing.num_frames


def expected_clips(run: RequestedRun, records: Sequence[ClipRecord]) -> list[ExpectedClip]:
    """Return the clips of `run` up to its final length; `records` are those of its folder."""
    clips, position = list[ExpectedClip](), run.num_start_frames
    for request, showing in run.plan.walk():
        if run.max_frames:
            showing = showing.limited(max(1, run.max_frames - position))
        begin = run.start_seconds + (position - run.num_start_frames) / run.coding.frame_rate
        options = _options(request.spec, clips[-1].request.spec if clips else None)
        clips.append(ExpectedClip(request, showing, position, begin, options))
        position += showing.num_frames
        if 0 < run.max_frames <= position:
            break
    return _with_stored(run, clips, records) if run.has_keys else clips


def _options(spec: ClipSpec, before: ClipSpec | None) -> str:
    keeps_anchor = before is not None and spec.anchor == before.anchor
    return format_options(replace(spec, seed=None, anchor=None if keeps_anchor else spec.anchor))


def _with_stored(run: RequestedRun, clips: list[ExpectedClip], records: Sequence[ClipRecord]) -> list[ExpectedClip]:
    """Return `clips` with `is_stored`, by the keys that follow from the graph alone."""
    stored = {record.plan_key: record for record in records if record.plan_key}
    marked, key = list[ExpectedClip](), run.plan.continues or None
    for clip in clips:
        key = run.plan.plan_key(clip.request, None if clip.request.starts_anew else key)
        take = clip.request.take
        record = take.record if take else stored.get(key)
        marked.append(replace(clip, is_stored=record is not None or take is not None, record=record, plan_key=key))
    return marked
