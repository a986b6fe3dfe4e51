"""One stage in a process of its own, started by benchmarks.gpu: ``python -m benchmarks.gpu.stage_process STAGE OPTIONS``.

It ends when the process that started it ends, however that happens: else a killed benchmark would go on and hold the card.
"""

import importlib
import json
import os
import signal
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.bench import Bench
from benchmarks.gpu.record import Record
from benchmarks.gpu.shapes import SHAPES
from benchmarks.gpu.stages import STAGES
from benchmarks.machine import commit, machine_facts
from training.model.comfy_runtime import find_comfyui

RESULTS = "gpu.json"


@dataclass(frozen=True)
class Options:
    """What every stage is told.

    Attributes:
        shapes: a key of SHAPES.
        device: for PyTorch.
        output: folder of figures, tables and plots.
        work: folder of weights and videos.
    """

    shapes: str
    device: str
    output: str
    work: str

    @property
    def settings(self) -> dict[str, Any]:
        """What figures can only be compared under."""
        return {"shapes": asdict(SHAPES[self.shapes]), "device": self.device}

    @property
    def path(self) -> Path:
        """The file of figures."""
        return Path(self.output) / RESULTS


def end_with_parent() -> None:
    """End this process and those that it started once standard input, whose other end the parent holds, is closed."""

    def watch() -> None:
        while os.read(0, 1):
            pass
        if os.name == "nt":
            os._exit(1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def open_bench(stage: str, options: Options) -> Bench:
    """Return the stage's bench.

    Raises:
        ValueError: there is no such device here.
    """
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("PyTorch sees no CUDA device here: use a machine with one, or try it with --device cpu.")
    if device.type == "cpu":
        torch.set_num_threads(1)
    record = Record.open(options.path, options.settings)
    record.machine = record.machine or {**gpu_facts(device), **machine_facts(find_comfyui())}
    return Bench(stage, SHAPES[options.shapes], device, Path(options.work), record, commit())


def gpu_facts(device: torch.device) -> dict[str, str]:
    """Return the facts about the accelerator."""
    if device.type != "cuda":
        return {"GPU": "none: these figures only show that the benchmark works"}
    facts = torch.cuda.get_device_properties(device)
    versions = f"CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    return {"GPU": f"{facts.name}, {facts.total_memory / 2**30:.0f} GiB, {facts.multi_processor_count} SMs, {versions}"}


def main(arguments: list[str]) -> int:
    """Measure the rows of one stage that are missing."""
    name, options = arguments[0], Options(**json.loads(arguments[1]))
    end_with_parent()
    stage = next(stage for stage in STAGES if stage.name == name)
    bench = open_bench(name, options)
    importlib.import_module(f"benchmarks.gpu.{stage.module}").measure(bench)
    bench.record.set_state(name, "finished")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
