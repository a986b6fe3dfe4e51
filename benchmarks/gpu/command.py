"""Shared by the GPU benchmarks: arguments, results that survive a stop, timing, and the report."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.chart import draw_bars
from benchmarks.gpu.shapes import SHAPES, Shapes
from benchmarks.loop.report import table
from benchmarks.machine import machine_facts
from benchmarks.results import Results
from dev.environment import REPOSITORY, say
from training.model.comfy_runtime import find_comfyui

COMPARED_WITH = ("diffusers", "peft")  # measured where they are installed
OUTPUT = REPOSITORY / ".runtime" / "benchmarks" / "gpu"
Row = dict[str, Any]


@dataclass(frozen=True)
class Bench:
    """A running benchmark.

    Attributes:
        name: of its files.
        shapes: of model and clip.
        device: where it runs.
        folder: of its files.
        results: measurements so far.
        chosen: further options.
    """

    name: str
    shapes: Shapes
    device: torch.device
    folder: Path
    results: Results
    chosen: dict[str, str] = field(default_factory=dict)

    @property
    def device_name(self) -> str:
        """The driver's name for it."""
        return torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"

    def measure(self, row: str, measure: Callable[[], Row]) -> Row:
        """Return the measurement of `row`, from an earlier run if there is one, or the reason why it cannot run here.

        Only what the machine lacks (a kernel, memory, diffusers) is a reason; other errors stop the benchmark.
        """

        def measured() -> Row:
            say(f"{self.name}: {row}")
            try:
                return measure()
            except (RuntimeError, ModuleNotFoundError) as error:
                if isinstance(error, ModuleNotFoundError) and error.name not in COMPARED_WITH:
                    raise
                return {"unavailable": f"{type(error).__name__}: {error}".split("\n")[0][:100]}
            finally:
                if self.device.type == "cuda":
                    torch.cuda.empty_cache()

        return self.results.get(row, measured)

    def report(self, columns: Sequence[str], bars: str, notes: Sequence[str] = ()) -> str:
        """Write <name>.md and <name>.png and return the former's text; `bars` is the column that is drawn."""
        rows = self.results.measured
        lines = [(row, *(shown(found, column, column == columns[0]) for column in columns)) for row, found in rows.items()]
        parts = [table(("", *columns), lines), *notes, table(("measured on", ""), self.results.content["machine"].items())]
        text = "\n\n".join(parts) + "\n"
        (self.folder / f"{self.name}.md").write_text(text, encoding="utf-8")
        drawn = {row: found[bars] for row, found in rows.items() if isinstance(found.get(bars), int | float)}
        if drawn:
            draw_bars(f"{self.name}, {self.shapes.name} shapes, {self.device_name}: {bars}", drawn).save(
                self.folder / f"{self.name}.png"
            )
        return text


def shown(found: Row, column: str, is_first: bool) -> str:
    """Return a cell of a table: a number to three digits; without one, the reason in the first column."""
    if "unavailable" in found:
        return f"not available: {found['unavailable']}" if is_first else ""
    value = found.get(column, "")
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def open_bench(name: str, purpose: str, arguments: Sequence[str] | None = None, **choices: Sequence[str]) -> Bench:
    """Return the benchmark of the command line.

    `choices` are further options of this benchmark, each with its values, the default first; they end up in its settings.
    """
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.gpu.{name}", description=purpose)
    parser.add_argument("--shapes", choices=SHAPES, default="14b", help="sizes of model and clip (default: 14b)")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu to see that it works")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"folder of its files (default: {OUTPUT})")
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    for option, values in choices.items():
        parser.add_argument(f"--{option}", choices=values, default=values[0], help=f"default: {values[0]}")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch sees no CUDA device here: use a machine with one, or try it with --device cpu.")
    if device.type == "cpu":
        torch.set_num_threads(1)
    folder = options.output.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    shapes = SHAPES[options.shapes]
    facts = gpu_facts(device) | machine_facts(find_comfyui())
    chosen = {option: getattr(options, option) for option in choices}
    settings = {"shapes": asdict(shapes), "device": str(device), **chosen}
    file_name = "-".join((name, *chosen.values()))
    return Bench(
        file_name, shapes, device, folder, Results(folder / f"{file_name}.json", settings, facts, options.fresh), chosen
    )


def gpu_facts(device: torch.device) -> dict[str, str]:
    """Return the facts about the accelerator."""
    if device.type != "cuda":
        return {"GPU": "none: these figures only show that the benchmark works"}
    facts = torch.cuda.get_device_properties(device)
    versions = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return {"GPU": f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, {facts.multi_processor_count} SMs, {versions}"}


def synchronize(device: torch.device) -> None:
    """Wait until `device` has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def milliseconds(run: Callable[[], Any], device: torch.device, runs: int = 5) -> Row:
    """Return the median, least and most milliseconds of `run`, after a warm-up."""
    run()
    taken = []
    for _ in range(runs):
        synchronize(device)
        began = time.perf_counter()
        run()
        synchronize(device)
        taken.append(1e3 * (time.perf_counter() - began))
    return {"ms": median(taken), "least": min(taken), "most": max(taken)}


def print_report(text: str) -> None:
    """Print the tables."""
    sys.stdout.write(text)
