"""Estimate how long clips will take from how long earlier clips took.

The record of each sampled clip holds its time, size and steps. One small file also keeps the medians of finished runs, so that
a new run in a new folder can be estimated too.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from ..files.checked_file import set_aside
from ..files.sealed_json import read_sealed, write_sealed

MAX_KEPT = 200  # runs; the oldest are removed
TRAINED_TOKENS = 32_760  # of 81 frames at 832 x 480
_LINEAR_SHARE, _ATTENTION_SHARE = 787, 900  # TFLOP of one forward pass of Wan 14B at that size
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClipWork:
    """The amount of work for one clip.

    Attributes:
        num_steps: sampler steps, both experts together.
        num_passes: forward passes of the model in each step: 1 at cfg 1, else 2.
        num_slots: latent slots F.
        latent_height: h, in latent cells of 8 pixels.
        latent_width: w.
    """

    num_steps: int
    num_passes: int
    num_slots: int
    latent_height: int
    latent_width: int

    @property
    def amount(self) -> float:
        """Work, proportional to time: linear layers grow with the tokens, attention with their square.

        Source: operations counted for Wan 14B (docs/METHOD.md, 11.1).
        """
        tokens = self.num_slots * self.latent_height * self.latent_width / 4
        return self.num_steps * self.num_passes * tokens * (_LINEAR_SHARE + _ATTENTION_SHARE * tokens / TRAINED_TOKENS)

    @property
    def same_size(self) -> tuple[int, int]:
        """The frame size; times of another size are named as such."""
        return self.latent_height, self.latent_width


@dataclass(frozen=True)
class ClipTime:
    """Time and memory that one clip, or the median clip of a run, took.

    Attributes:
        seconds: from the first step to the decoded frames, as far as measured.
        work: the amount of work.
        models: file names of the diffusion models.
        peak_bytes: peak memory of the accelerator; 0 without one.
    """

    seconds: float
    work: ClipWork
    models: tuple[str, ...] = ()
    peak_bytes: int = 0


@dataclass(frozen=True)
class TimeEstimate:
    """Seconds that a clip will take, and the source of the estimate; `peak_bytes` as in :class:`ClipTime`."""

    seconds: float
    source: str
    peak_bytes: int = 0


def measured_time(measures: Mapping[str, float], models: tuple[str, ...] = ()) -> ClipTime | None:
    """Return the time in a clip's record (see ClipRecord.measures), or None if it is incomplete."""
    try:
        work = ClipWork(
            int(measures["num_steps"]),
            int(measures["num_passes"]),
            int(measures["num_slots"]),
            int(measures["latent_height"]),
            int(measures["latent_width"]),
        )
        seconds = measures["sample_seconds"] + measures.get("decode_seconds", 0.0)
    except KeyError:
        return None
    return ClipTime(seconds, work, models, int(measures.get("peak_bytes", 0)))


def estimate_time(work: ClipWork, of_run: Sequence[ClipTime], of_others: Sequence[ClipTime]) -> TimeEstimate | None:
    """Estimate a clip of `work` from the clips of its own run, else from runs with the same models.

    Times of the same frame size are preferred; different steps, passes and frames are scaled by the work. None: no comparable
    measurement.
    """
    for times, whose in ((of_run, "clips of this run"), (of_others, "earlier runs with these models")):
        same = [time for time in times if time.work.same_size == work.same_size]
        if same or times:
            chosen = same or times
            seconds = median(time.seconds / time.work.amount for time in chosen) * work.amount
            is_scaled = any(time.work != work for time in chosen)
            source = f"median of {len(chosen)} {whose}" + (", scaled" if is_scaled else "")
            return TimeEstimate(seconds, source + ("" if same else " from another frame size"), _peak(chosen))
    return None


def duration(seconds: float) -> str:
    """Return a time in handy units: "40 s", "3 min 20 s", "2 h 5 min", "3 days 4 h"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = [(days, "days" if days > 1 else "day"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((i for i, (value, _) in enumerate(units) if value), 3)
    return " ".join(f"{value} {unit}" for value, unit in units[first : first + 2] if value)


def read_times(book: Path) -> list[ClipTime]:
    """Return the runs in the file `book`, newest last; an unreadable file is logged and counts as empty."""
    try:
        return _read(book)
    except (OSError, ValueError) as error:
        _log.warning("SVI: %s cannot be read (%s); times of earlier runs are not known.", book, error)
        return []


def remember_times(book: Path, times: Iterable[ClipTime]) -> None:
    """Add the median of a run's `times` to `book`; it replaces an earlier one for the same work and models.

    A damaged `book` is set aside.

    Raises:
        OSError: the file cannot be read or written.
    """
    times = list(times)
    if not times:
        return
    try:
        known = _read(book)
    except ValueError as error:
        set_aside(book, error)
        known = []
    middle = sorted(times, key=lambda time: time.seconds / time.work.amount)[len(times) // 2]
    new = replace(middle, peak_bytes=_peak(times))
    others = [time for time in known if (time.work, time.models) != (new.work, new.models)]
    entries = [asdict(time) for time in [*others, new][-MAX_KEPT:]]
    book.parent.mkdir(parents=True, exist_ok=True)
    write_sealed(book, {"runs": entries})


def _read(book: Path) -> list[ClipTime]:
    """Return the runs in `book`; raise ValueError if it is damaged."""
    if not book.exists():
        return []
    facts = read_sealed(book)
    try:
        return [replace(ClipTime(**e), work=ClipWork(**e["work"]), models=tuple(e["models"])) for e in facts["runs"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"it is not what SVI wrote: {error!r}") from error


def _peak(times: Iterable[ClipTime]) -> int:
    return max(time.peak_bytes for time in times)
