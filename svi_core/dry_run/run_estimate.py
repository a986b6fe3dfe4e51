"""The estimate of a requested run, from the graph and the run folder alone: its clips, what is stored, what the rest costs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..store.clip_times import ClipTime, ClipWork, TimeEstimate, estimate_time, measured_time
from ..store.records import ClipRecord, read_records
from .disk_need import DiskNeed, disk_need
from .expected_clips import ExpectedClip, expected_clips
from .requested_run import RequestedRun
from .warnings import run_warnings


@dataclass(frozen=True)
class RunEstimate:
    """What a run will do.

    Attributes:
        run: what the graph requests.
        clips: in the order of the video.
        time: for the most common kind of new clip; None if nothing comparable was measured.
        disk: disk space needed.
        warnings: the most serious first.
        records: of all clips in the run folder.
    """

    run: RequestedRun
    clips: tuple[ExpectedClip, ...]
    time: TimeEstimate | None
    disk: DiskNeed
    warnings: tuple[str, ...]
    records: tuple[ClipRecord, ...] = ()

    @property
    def num_frames(self) -> int:
        """Frames of the whole video."""
        return self.run.num_start_frames + sum(clip.num_frames for clip in self.clips)

    @property
    def seconds(self) -> float:
        """Length of the whole video."""
        last = self.clips[-1]
        return last.begin + last.num_frames / self.run.coding.frame_rate

    @property
    def new_clips(self) -> tuple[ExpectedClip, ...]:
        """The clips to make: all except those known to be stored."""
        return tuple(clip for clip in self.clips if not clip.is_stored)

    @property
    def num_stored(self) -> int | None:
        """How many clips are stored; None if unknown."""
        if any(clip.is_stored is None for clip in self.clips):
            return None
        return len(self.clips) - len(self.new_clips)

    @property
    def work_seconds(self) -> float | None:
        """Time to make the new clips; None if nothing comparable was measured."""
        times = [clip.seconds for clip in self.new_clips if clip.seconds is not None]
        return float(sum(times)) if len(times) == len(self.new_clips) else None


def estimate_run(run: RequestedRun, earlier: Sequence[ClipTime] = ()) -> RunEstimate:
    """Return what `run` will do.

    Args:
        earlier: clip times of runs in other folders.

    Raises:
        ValueError: naming clips that cannot follow one another.
    """
    run.plan.require_joints(run.plan.schedule.snapshot())
    records = [] if run.folder is None else read_records(run.folder)
    clips = expected_clips(run, records)
    times = _times_by_work(run, clips, records, earlier)
    timed: list[ExpectedClip] = []
    for clip in clips:
        time = times.get(run.work_of(clip.request))
        timed.append(replace(clip, seconds=0.0 if clip.is_stored else time and time.seconds))
    disk = disk_need(run, timed, records)
    warnings = (*disk.warnings, *run_warnings(run, timed))
    return RunEstimate(run, tuple(timed), _usual_time(run, timed, times), disk, warnings, tuple(records))


def _times_by_work(
    run: RequestedRun, clips: Sequence[ExpectedClip], records: list[ClipRecord], earlier: Sequence[ClipTime]
) -> dict[ClipWork | None, TimeEstimate | None]:
    """Return the time of a clip for each kind of work."""
    measured = [measured_time(record.measures) for record in records]
    of_run = [time for time in measured if time is not None]
    of_others = [time for time in earlier if time.models and time.models == run.model_names]
    kinds = {run.work_of(clip.request) for clip in clips}
    return {work: estimate_time(work, of_run, of_others) for work in kinds if work is not None}


def _usual_time(
    run: RequestedRun, clips: Sequence[ExpectedClip], times: dict[ClipWork | None, TimeEstimate | None]
) -> TimeEstimate | None:
    """Return the time of most of the new clips, or of most clips if all are stored."""
    works = [run.work_of(clip.request) for clip in clips if not clip.is_stored]
    works = works or [run.work_of(clip.request) for clip in clips]
    return times.get(Counter(works).most_common(1)[0][0])
