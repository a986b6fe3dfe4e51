"""Ctrl-C and SIGTERM as a wish: the training finishes its step, saves, and ends. A second Ctrl-C ends it at once."""

import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class StopSignal:
    """Listens while it is open.

    Attributes:
        received: the signal's number, or 0.
    """

    def __init__(self):
        self.received = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> "StopSignal":
        for number in SIGNALS:
            self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(self, *_raised) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self.received = number
        for other in SIGNALS:
            signal.signal(other, self._before[other])
