"""What the rows of a stage share: the device, the folders, the record, and the check that every result is finite."""

import functools
import gc
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.gpu.record import FAILED, MEASURED, RUNNING, Record, Row
from benchmarks.gpu.report import one_line, write_report
from benchmarks.gpu.shapes import Shapes
from benchmarks.watch import looking

BROKEN = 70  # exit code of a process whose device answers no more; its other rows need another one
_LOOK = 0.1  # seconds between two looks at the card's memory
_kept: list[Callable[[], None]] = []


def kept(load: Callable[..., Any]) -> Callable[..., Any]:
    """Return `load`, whose results stay until :func:`forget_kept`."""
    cached = functools.cache(load)
    _kept.append(cached.cache_clear)
    return cached


def forget_kept() -> None:
    """Forget what the stages before loaded."""
    for forget in _kept:
        forget()


@dataclass(frozen=True)
class Measured:
    """What one row measured.

    Attributes:
        values: figures and words by column.
        results: what the work gave; a row without any is refused.
    """

    values: Row
    results: Sequence[torch.Tensor]

    def require_finite(self) -> None:
        """Raise ValueError unless there are results, all of finite numbers."""
        if not self.results or any(result.numel() == 0 for result in self.results):
            raise ValueError("there is no result to check")
        for place, result in enumerate(self.results):
            if not (bad := ~result.isfinite()).any():
                continue
            raise ValueError(f"result {place + 1}: {int(bad.sum())} of {bad.numel()} numbers are not finite")


@dataclass(frozen=True)
class Bench:
    """A running stage.

    Attributes:
        stage: its name.
        shapes: of model and clip.
        device: where it runs.
        work: folder of weights and videos.
        record: measurements so far.
        commit: of the code that measures.
    """

    stage: str
    shapes: Shapes
    device: torch.device
    work: Path
    record: Record
    commit: str

    @property
    def device_name(self) -> str:
        """The driver's name for it."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"

    def measure(self, row: str, measure: Callable[[], Measured]) -> None:
        """Measure `row` unless it is known, and store it, or why it failed: whatever goes wrong, the next row has its turn.

        Raises:
            SystemExit: the device answers no more.
        """
        if self.record.is_known(self.stage, row):
            return
        self.record.put(self.stage, row, RUNNING)
        try:
            found = measure()
            found.require_finite()
        except Exception as error:
            traceback.print_exc()
            self.record.put(self.stage, row, FAILED, why=_reason(error), commit=self.commit)
        else:
            self.record.put(self.stage, row, MEASURED, found.values, commit=self.commit)
        sys.stdout.write(f"{self.stage}: {one_line(row, self.record.rows(self.stage)[row])}\n")
        sys.stdout.flush()
        write_report(self.record)
        self._free_memory()

    def _free_memory(self) -> None:
        gc.collect()
        if self.device.type == "cuda":
            try:
                torch.cuda.synchronize(self.device)
                torch.cuda.empty_cache()
            except RuntimeError:
                traceback.print_exc()
                sys.exit(BROKEN)

    def synchronize(self) -> None:
        """Wait until the device has finished its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def reset_peak(self) -> None:
        """Begin to measure the most memory that PyTorch holds."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak_gib(self) -> float | str:
        """Return the most memory that PyTorch held on the device since :meth:`reset_peak`."""
        return torch.cuda.max_memory_allocated(self.device) / 2**30 if self.device.type == "cuda" else ""

    @contextmanager
    def card_memory(self) -> Iterator[list[float]]:
        """Look at the card ten times a second within the block; give the GiB that are in use, whoever took them.

        PyTorch's own count misses what comfy-aimdo holds.
        """
        seen: list[float] = []
        if self.device.type != "cuda":
            yield seen
            return

        def look() -> None:
            free, total = torch.cuda.mem_get_info(self.device)
            seen.append((total - free) / 2**30)

        with looking(look, _LOOK):
            yield seen

    def seconds(self, run: Callable[[], Any], runs: int, warm_up: bool = True) -> list[float]:
        """Return the seconds of each of `runs` calls, after one that is not counted."""
        if warm_up:
            run()
        taken = []
        for _ in range(runs):
            self.synchronize()
            began = time.perf_counter()
            run()
            self.synchronize()
            taken.append(time.perf_counter() - began)
        return taken

    def milliseconds(self, run: Callable[[], Any], runs: int = 5) -> Row:
        """Return the median, least and most milliseconds of `run`."""
        taken = [1e3 * seconds for seconds in self.seconds(run, runs)]
        return {"ms": median(taken), "least": min(taken), "most": max(taken)}


def _reason(error: Exception) -> str:
    """Return the kind of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:160]}" if lines else type(error).__name__
