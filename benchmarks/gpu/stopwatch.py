"""Time the stages of a job on a device."""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch


@dataclass
class Stopwatch:
    """Seconds by stage of a job, and when its clips began; the device is waited for at both ends of a stage."""

    device: torch.device
    seconds: dict[str, float] = field(default_factory=dict)
    began: list[float] = field(default_factory=list)

    def note(self) -> None:
        """Note that a clip begins."""
        self.began.append(time.perf_counter())

    def noted(self, real: Callable) -> Callable:
        """Return `real`, each of whose calls begins a clip."""

        @functools.wraps(real)
        def call(*arguments, **options):
            self.note()
            return real(*arguments, **options)

        return call

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to `name`."""
        self._synchronize()
        began = time.perf_counter()
        try:
            yield
        finally:
            self._synchronize()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def timed(self, name: str, real: Callable) -> Callable:
        """Return `real`, whose calls are a stage."""

        @functools.wraps(real)
        def call(*arguments, **options):
            with self.stage(name):
                return real(*arguments, **options)

        return call

    def timed_items(self, name: str, real: Callable) -> Callable:
        """Return the generator function `real`; making each of its items is a stage."""

        @functools.wraps(real)
        def items(*arguments, **options):
            iterator = real(*arguments, **options)
            while True:
                with self.stage(name):
                    item = next(iterator, None)
                if item is None:
                    return
                yield item

        return items

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
