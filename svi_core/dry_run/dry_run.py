"""The plan of a run: what each clip will be, which ones are there already, and what the rest will cost.

Nothing is loaded and nothing is changed: a plan reads what the graph says and what the run folder holds.
"""

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..geometry import LATENT_CHANNELS
from ..schedule.spec import ClipSpec
from ..schedule.text import format_options
from ..store.clip_times import ClipTime, ClipWork, TimeEstimate, estimate_time, measured_time
from ..store.records import ClipRecord, read_records
from .outline import PlannedClip, RunOutline
from .warnings import advise

# What video of this kind takes at crf 18, very roughly; six steps of crf halve or double it.
_BITS_PER_PIXEL = {"h264": 0.4, "h265": 0.25}


@dataclass(frozen=True)
class DiskNeed:
    """What a run still writes, and the room there is.

    Attributes:
        latent_bytes: latents of the clips to make, exactly; None if the frame size is not known.
        video_bytes: their segments and the joined video, about; None if nothing tells.
        peak_bytes: most room taken meanwhile: the video is joined anew while the one before is still there.
        is_measured: the video's size is taken from segments of this run, not from a rule of thumb.
        free_bytes: room on the disk of the run folder; None if the folder is not known.
    """

    latent_bytes: int | None
    video_bytes: int | None
    peak_bytes: int | None
    is_measured: bool
    free_bytes: int | None

    @property
    def is_short(self) -> bool:
        """Whether the room will not do."""
        return None not in (self.peak_bytes, self.free_bytes) and self.peak_bytes > self.free_bytes


@dataclass(frozen=True)
class RunPlan:
    """What a run will do.

    Attributes:
        outline: what the graph says.
        clips: in the order of the video.
        time: of the most frequent kind of clip to make, with its source; None if nothing comparable was measured.
        disk: what it writes.
        warnings: what its owner should know first.
    """

    outline: RunOutline
    clips: tuple[PlannedClip, ...]
    time: TimeEstimate | None
    disk: DiskNeed
    warnings: tuple[str, ...]

    @property
    def num_frames(self) -> int:
        """Frames of the whole video."""
        return self.outline.num_start_frames + sum(clip.num_frames for clip in self.clips)

    @property
    def seconds(self) -> float:
        """Length of the whole video."""
        last = self.clips[-1]
        return last.begin + last.num_frames / self.outline.coding.frame_rate

    @property
    def new_clips(self) -> tuple[PlannedClip, ...]:
        """The clips to make: all that are not known to be there."""
        return tuple(clip for clip in self.clips if not clip.is_stored)

    @property
    def num_stored(self) -> int | None:
        """How many clips are there already; None if that cannot be told."""
        if any(clip.is_stored is None for clip in self.clips):
            return None
        return len(self.clips) - len(self.new_clips)

    @property
    def work_seconds(self) -> float | None:
        """How long making the new clips will take; None if nothing comparable was measured."""
        times = [clip.seconds for clip in self.new_clips]
        return None if None in times else float(sum(times))


def make_plan(outline: RunOutline, earlier: Sequence[ClipTime] = ()) -> RunPlan:
    """Return the plan of the run that `outline` describes.

    Args:
        earlier: what runs in other folders took.

    Raises:
        ValueError: clips that cannot follow one another, naming them.
    """
    outline.plan.require_joints(outline.plan.schedule.snapshot())
    records = [] if outline.folder is None else read_records(outline.folder)
    clips = _with_stored(outline, _shown_clips(outline), records)
    estimates = _estimates(outline, clips, records, earlier)
    clips = tuple(replace(clip, seconds=_seconds_of(outline, clip, estimates)) for clip in clips)
    disk = _disk_need(outline, clips, records)
    warnings = advise(outline, clips)
    if disk.is_short:
        room = f"{disk.free_bytes / 1e9:.1f} GB are free, but about {disk.peak_bytes / 1e9:.1f} GB are needed"
        warnings = (f"the disk is too small: {room}. Free space, make fewer clips, or raise crf.", *warnings)
    return RunPlan(outline, clips, _main_estimate(outline, clips, estimates), disk, warnings)


def _shown_clips(outline: RunOutline) -> list[PlannedClip]:
    """Return the clips with what they show, as far as the final length lets them."""
    clips, position = [], outline.num_start_frames
    for request, showing in outline.plan.walk():
        if outline.max_frames:
            showing = showing.limited(max(1, outline.max_frames - position))
        begin = outline.start_seconds + (position - outline.num_start_frames) / outline.coding.frame_rate
        asked = _options(request.spec, clips[-1].request.spec if clips else None)
        clips.append(PlannedClip(request, showing, position, begin, asked))
        position += showing.num_frames
        if 0 < outline.max_frames <= position:
            break
    return clips


def _options(spec: ClipSpec, before: ClipSpec | None) -> str:
    goes_on = before is not None and spec.anchor == before.anchor
    return format_options(replace(spec, seed=None, anchor=None if goes_on else spec.anchor))


def _with_stored(outline: RunOutline, clips: list[PlannedClip], records: list[ClipRecord]) -> list[PlannedClip]:
    """Say of each clip whether the run folder has it, by the keys that the graph alone tells."""
    if not outline.has_keys:
        return clips
    stored = {record.plan_key for record in records} - {""}
    marked, key = [], outline.plan.continues or None
    for clip in clips:
        key = outline.plan.plan_key(clip.request, None if clip.request.starts_anew else key)
        marked.append(replace(clip, is_stored=key in stored))
    return marked


def _estimates(
    outline: RunOutline, clips: Sequence[PlannedClip], records: list[ClipRecord], earlier: Sequence[ClipTime]
) -> dict[ClipWork, TimeEstimate | None]:
    """Return what a clip of each kind of work will take."""
    measured = [measured_time(record.measures) for record in records]
    of_run = [time for time in measured if time is not None]
    of_others = [time for time in earlier if time.models and time.models == outline.model_names]
    kinds = {outline.work_of(clip.request) for clip in clips} - {None}
    return {work: estimate_time(work, of_run, of_others) for work in kinds}


def _seconds_of(outline: RunOutline, clip: PlannedClip, estimates: dict[ClipWork, TimeEstimate | None]) -> float | None:
    if clip.is_stored:
        return 0.0
    estimate = estimates.get(outline.work_of(clip.request))
    return estimate and estimate.seconds


def _main_estimate(
    outline: RunOutline, clips: Sequence[PlannedClip], estimates: dict[ClipWork, TimeEstimate | None]
) -> TimeEstimate | None:
    """Return the estimate of most of the clips to make, or of most clips where all are there."""
    works = [outline.work_of(clip.request) for clip in clips if not clip.is_stored]
    works = works or [outline.work_of(clip.request) for clip in clips]
    return estimates.get(Counter(works).most_common(1)[0][0])


def _disk_need(outline: RunOutline, clips: Sequence[PlannedClip], records: list[ClipRecord]) -> DiskNeed:
    free = None if outline.folder is None else shutil.disk_usage(_existing(outline.folder)).free
    if outline.size is None:
        return DiskNeed(None, None, None, False, free)
    width, height = outline.size
    new = [clip for clip in clips if not clip.is_stored]
    slots = sum(clip.request.layout.num_slots for clip in new)
    latent_bytes = slots * LATENT_CHANNELS * (height // 8) * (width // 8) * outline.value_bytes
    measured = _measured_frame_bytes(outline, records)
    bits = _BITS_PER_PIXEL[outline.coding.codec] * 2 ** ((18 - outline.coding.crf) / 6)
    frame_bytes = measured or width * height * bits / 8
    segments = int(frame_bytes * sum(clip.num_frames for clip in new))
    joined = int(frame_bytes * (outline.num_start_frames + sum(clip.num_frames for clip in clips)))
    peak = latent_bytes + segments + 2 * joined
    return DiskNeed(latent_bytes, segments + joined, peak, measured is not None, free)


def _measured_frame_bytes(outline: RunOutline, records: list[ClipRecord]) -> float | None:
    """Return the bytes of a frame in the run's finished segments of the same coding, or None if there is none."""
    total_bytes = total_frames = 0
    for record in records:
        for name, facts in record.segments.items():
            path = outline.folder / "clips" / f"{record.key}-{name}.mp4"
            if name.endswith(outline.coding.tag) and path.is_file():
                total_bytes += path.stat().st_size
                total_frames += facts["num_frames"]
    return total_bytes / total_frames if total_frames else None


def _existing(folder: Path) -> Path:
    """Return `folder`, or the nearest folder above it that is there."""
    return next(path for path in (folder, *folder.absolute().parents) if path.exists())
