"""How far a run is: which clip, what is done for it, and the time left, which comes from measured times only."""

import time
from collections import deque
from collections.abc import Callable
from enum import StrEnum
from statistics import median

from ..store.clip_times import duration

_NUM_KEPT_TIMES = 64  # steps and clips whose times count


class Phase(StrEnum):
    """What a run does for a clip, in this order."""

    TEXT = "reading its prompt"
    PREPARING = "loading models and images"
    SAMPLING = "sampling"
    DECODING = "decoding"
    WRITING = "writing"


class RunProgress:
    """The progress of one run, told by what makes its clips.

    Attributes:
        phase: what is done for the clip.
    """

    def __init__(
        self,
        num_clips: int,
        num_steps: int,
        earlier_seconds: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Begin a run.

        Args:
            num_clips: 0 if unknown.
            num_steps: sampler steps of a clip.
            earlier_seconds: time of such a clip in earlier runs, if any was measured.
            clock: returns seconds.
        """
        self.phase = Phase.TEXT
        self._num_clips, self._num_steps, self._earlier, self._clock = num_clips, num_steps, earlier_seconds, clock
        self._index = self._done = self._total = self._num_made = 0
        self._started = self._began = self._phase_began = self._last = clock()
        self._seconds: dict[Phase, float] = {}
        self._steps: deque[float] = deque(maxlen=_NUM_KEPT_TIMES)
        self._clips: deque[float] = deque(maxlen=_NUM_KEPT_TIMES)
        self._frame_seconds: float | None = None
        self._decode_seconds: float | None = None  # of a whole clip

    def begin_clip(self, index: int) -> None:
        """Begin the clip `index` (0-based)."""
        self._index, self._seconds = index, {}
        if self._num_clips:
            self._num_clips = max(self._num_clips, index + 1)  # a live schedule may bring shorter clips
        self._began = self._phase_began = self._clock()
        self.phase, self._done, self._total = Phase.TEXT, 0, 0

    def enter(self, phase: Phase, total: int = 0) -> None:
        """Begin a phase of `total` steps, or frames."""
        now = self._clock()
        self._seconds[self.phase] = self._seconds.get(self.phase, 0.0) + now - self._phase_began
        self.phase, self._done, self._total = phase, 0, total
        self._phase_began = self._last = now

    def advance(self, num: int = 1) -> None:
        """Count `num` more steps, or frames, of the phase."""
        now, self._done = self._clock(), self._done + num
        if self.phase is Phase.SAMPLING:
            self._steps.append((now - self._last) / num)
        else:
            self._frame_seconds = (now - self._phase_began) / self._done
            self._decode_seconds = self._frame_seconds * self._total
        self._last = now

    def end_clip(self, is_reused: bool) -> str:
        """End the clip; return its line for the log."""
        self.enter(Phase.WRITING)
        if is_reused and Phase.DECODING not in self._seconds:
            return f"{self._clip} reused"
        seconds = self._clock() - self._began
        if is_reused:
            return f"{self._clip} reused, and decoded in {duration(seconds)}"
        self._clips.append(seconds)
        self._num_made += 1
        parts = (
            f"{phase} {duration(self._seconds[phase])}" for phase in (Phase.SAMPLING, Phase.DECODING) if phase in self._seconds
        )
        left = self.seconds_left
        return f"{self._clip} made in {duration(seconds)} ({', '.join(parts)})" + (f"; {duration(left)} left" if left else "")

    @property
    def kept(self) -> str:
        """What of the run is on disk, in words."""
        num_kept = self._index + (self.phase in (Phase.DECODING, Phase.WRITING))
        if not num_kept:
            return "no new clip was made; stored clips are kept"
        number = f"{num_kept} of {self._num_clips}" if self._num_clips else str(num_kept)
        return f"{number} {'clip' if number == '1' else 'clips'} kept; Run goes on from there"

    @property
    def summary(self) -> str:
        """What the run has done, in words."""
        parts = [(self._num_made, "made"), (self._index + 1 - self._num_made, "reused")]
        counted = ", ".join(f"{num} {word}" for num, word in parts if num)
        clips = "1 clip" if self._index == 0 else f"{self._index + 1} clips"
        return f"{clips}: {counted}, in {duration(self._clock() - self._started)}."

    @property
    def work(self) -> tuple[float, int]:
        """How much is done, and of how much, in steps; all frames of a clip count as one. Of one clip if the number is open."""
        of_clip = self._num_steps + 1
        done = 0.0
        if self.phase is Phase.SAMPLING:
            done = min(self._done, self._num_steps)
        elif self.phase is Phase.DECODING:
            done = self._num_steps + min(1.0, self._done / max(1, self._total))
        elif self.phase is Phase.WRITING:
            done = of_clip
        return (self._index * of_clip + done, self._num_clips * of_clip) if self._num_clips else (done, of_clip)

    @property
    def clip_seconds_left(self) -> float | None:
        """Seconds left for the clip, or None if nothing comparable was measured."""
        if self.phase is Phase.WRITING:
            return 0.0
        if self.phase is Phase.DECODING:
            return None if self._frame_seconds is None else (self._total - self._done) * self._frame_seconds
        expected = self._expected_seconds
        by_clip = None if expected is None else max(0.0, expected - (self._clock() - self._began))
        sampling = self._sampling_left
        if sampling is None:
            return by_clip
        if self._decode_seconds is not None:
            return sampling + self._decode_seconds
        return None if by_clip is None else max(sampling, by_clip)

    @property
    def seconds_left(self) -> float | None:
        """Seconds left for the run, or None if unknown."""
        of_clip, expected = self.clip_seconds_left, self._expected_seconds
        num_after = self._num_clips - self._index - 1
        if of_clip is None or num_after < 0 or (num_after and expected is None):
            return None
        return of_clip + num_after * (expected or 0.0)

    @property
    def text(self) -> str:
        """Clip, phase and time left in two short lines."""
        now = str(self.phase)
        if self.phase is Phase.SAMPLING:
            now += f", step {min(self._done + 1, self._total)} of {self._total}"
        elif self.phase is Phase.DECODING:
            now += f", frame {min(self._done, self._total)} of {self._total}"
        return f"{self._clip[0].upper()}{self._clip[1:]}: {now}\n{self._time_left}".rstrip()

    @property
    def _clip(self) -> str:
        return f"clip {self._index + 1}" + (f" of {self._num_clips}" if self._num_clips else "")

    @property
    def _time_left(self) -> str:
        of_clip, of_run, sampling = self.clip_seconds_left, self.seconds_left, self._sampling_left
        parts = list[str]()
        if of_clip:
            parts.append(f"{duration(of_clip)} left for this clip")
        elif sampling and of_clip is None:
            parts.append(f"{duration(sampling)} of sampling left")
        if of_run and self._index < self._num_clips - 1:
            parts.append(f"{duration(of_run)} for the run" if of_clip else f"{duration(of_run)} left for the run")
        return ", ".join(parts)

    @property
    def _sampling_left(self) -> float | None:
        if self.phase is not Phase.SAMPLING or not self._steps:
            return None
        return max(0.0, (self._total - self._done) * median(self._steps) - (self._clock() - self._last))

    @property
    def _expected_seconds(self) -> float | None:
        """Time of a clip: the median of this run, else of earlier ones."""
        return median(self._clips) if self._clips else self._earlier
