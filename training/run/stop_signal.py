"""Stop a training run by Ctrl-C, SIGTERM or a file. It finishes its step, saves and ends; a second Ctrl-C ends it at once.

    touch runs/mine/stop

The file works where signals do not: torchrun kills its processes 30 seconds after a signal, and saving the checkpoint of a 14B
model with its banks in RAM can take longer.
"""

import signal
from pathlib import Path
from types import FrameType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
BY_FILE = -1  # in place of a signal's number
FILE_NAME = "stop"


class StopSignal:
    """Catches signals while it is open as a context manager.

    Attributes:
        received: number of the signal that arrived, or 0.
    """

    def __init__(self, run: Path | None = None):
        """Prepare to catch signals and to look for the file in the folder `run`."""
        self.received = 0
        self._file = run and run / FILE_NAME
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_raised) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def asked_by_file(self) -> bool:
        """Whether the file exists."""
        return self._file is not None and self._file.exists()

    def should_stop(self) -> bool:
        """Return whether this process was told to stop. The other processes may not know yet."""
        return bool(self.received) or self.asked_by_file

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
        for other in SIGNALS:
            signal.signal(other, self._before[other])
