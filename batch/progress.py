"""The progress of a batch: one line with the time left on a terminal, one line per story elsewhere."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TextIO

SHOW_SECONDS = 1.0


@dataclass
class Progress:
    """Counts clips, finished and running, and tells the user.

    Attributes:
        clips: name of each story to make -> its number of clips, as far as known.
        num_ready: stories whose videos were there already.
    """

    clips: Mapping[str, int]
    num_ready: int = 0
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    _running: dict[str, tuple[str, float]] = field(default_factory=dict)  # story -> server, share done
    _ended: set[str] = field(default_factory=set)
    _started: float = field(default_factory=time.monotonic)
    _shown: float = 0.0
    _line_is_open: bool = False
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def begin(self, story: str, server: str) -> None:
        with self._lock:
            self._running[story] = (server, 0.0)

    def advance(self, story: str, done: float) -> None:
        with self._lock:
            if story in self._running:
                self._running[story] = (self._running[story][0], done)

    def drop(self, story: str) -> None:
        """Forget a story that goes back to those that wait."""
        with self._lock:
            self._running.pop(story, None)

    def end(self, story: str, how: str) -> None:
        with self._lock:
            self.drop(story)
            self._ended.add(story)
            place = f"{self.num_ready + len(self._ended)} of {self.num_ready + len(self.clips)}"
            self.say(f"{place}  {story}: {how}{self._time_left()}")

    def say(self, message: str) -> None:
        """Write a line for the user."""
        with self._lock:
            self.end_line()
            self.stream.write(f"[svi] {message}\n")
            self.stream.flush()

    def end_line(self) -> None:
        """End the progress line, so that the next message starts on a new one."""
        if self._line_is_open:
            self.stream.write("\n")
            self._line_is_open = False

    def show(self) -> None:
        """Rewrite the progress line, on a terminal."""
        if not self.stream.isatty() or time.monotonic() - self._shown < SHOW_SECONDS:
            return
        with self._lock:
            self._shown = time.monotonic()
            running = ", ".join(f"{story} {done:.0%}" for story, (_, done) in self._running.items())
            ended = f"{self.num_ready + len(self._ended)} of {self.num_ready + len(self.clips)} stories"
            line = f"[svi] {self.share():4.0%}  {ended}{self._time_left()}  {running}"
            self.stream.write(
                f"\r{line[: shutil.get_terminal_size().columns - 1]}\x1b[K"
            )  # one that wraps could not be rewritten
            self.stream.flush()
            self._line_is_open = True

    def share(self) -> float:
        """Return the share of the clips to make that is made, 0 to 1."""
        weights = {story: max(num_clips, 1) for story, num_clips in self.clips.items()}
        running = sum(weights[story] * done for story, (_, done) in self._running.items())
        return (sum(weights[story] for story in self._ended) + running) / max(sum(weights.values()), 1)

    def _time_left(self) -> str:
        share = self.share()
        if not 0 < share < 1:
            return ""
        left = round((time.monotonic() - self._started) * (1 - share) / share)
        hours, minutes = divmod(left // 60, 60)
        return f"  about {hours}:{minutes:02d}:{left % 60:02d} left"
