"""The wish to end a training: Ctrl-C, SIGTERM or a file. It finishes its step, saves and ends; a second Ctrl-C ends it at once.

    touch runs/mine/stop

The file works where signals do not: torchrun gives its processes 30 seconds after a signal before it kills them, and the
checkpoint of a 14B training with its banks in RAM can take longer.
"""

import signal
from pathlib import Path
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
BY_FILE = -1  # in place of a signal's number
FILE_NAME = "stop"


class StopSignal:
    """Listens while it is open.

    Attributes:
        received: the signal's number, or 0.
    """

    def __init__(self, run: Path | None = None):
        """Listen for signals, and look for the file in the folder `run`."""
        self.received = 0
        self._file = run and run / FILE_NAME
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignal":
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_raised) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @property
    def asked_by_file(self) -> bool:
        """Whether the file is there."""
        return self._file is not None and self._file.exists()

    def should_stop(self) -> bool:
        """Return whether this process knows of a wish to end; the others may not know yet."""
        return bool(self.received) or self.asked_by_file

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
        for other in SIGNALS:
            signal.signal(other, self._before[other])
