"""A process that runs stages, started by benchmarks.gpu: ``python -m benchmarks.gpu.stage_process OPTIONS``.

It reads names of stages from standard input, one a line, and runs each. It ends when that is closed, and so when the process
that started it ends, however that happens: else a killed benchmark would go on and hold the card.
"""

import gc
import importlib
import json
import os
import queue
import signal
import sys
import threading
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.bench import Bench, forget_kept
from benchmarks.gpu.record import Record
from benchmarks.gpu.shapes import SHAPES
from benchmarks.gpu.stages import STAGES
from benchmarks.machine import commit, machine_facts
from training.model.comfy_runtime import find_comfyui

RESULTS = "gpu.json"
CROWDED = 71  # exit code of a process that could not free what an earlier stage loaded
_LEFT = 2**30  # bytes that may stay on the device between two stages


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


def stages_to_run() -> "queue.Queue[str]":
    """Return the names that come by standard input; end this process and those that it started once that is closed."""
    names: queue.Queue[str] = queue.Queue()

    def read() -> None:
        text = b""
        while more := os.read(0, 4096):
            *lines, text = (text + more).split(b"\n")
            for line in lines:
                names.put(line.decode())
        if os.name == "nt":
            os._exit(1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=read, daemon=True).start()
    return names


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


def free_memory(device: torch.device) -> None:
    """Free what the stages before loaded.

    Raises:
        SystemExit: something still holds it; the next stage needs another process, or its peak would be too high.
    """
    forget_kept()
    if comfy := sys.modules.get("comfy.model_management"):  # there unless all rows were known
        comfy.unload_all_models()
    if "torch._dynamo" in sys.modules:  # compiled code holds its model
        torch.compiler.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        if torch.cuda.memory_allocated(device) > _LEFT:
            sys.exit(CROWDED)


def main(arguments: list[str]) -> int:
    """Measure the missing rows of each stage that is asked for."""
    options, loaded = Options(**json.loads(arguments[0])), None
    names = stages_to_run()
    while True:
        name = names.get()
        stage = next(stage for stage in STAGES if stage.name == name)
        bench = open_bench(stage.name, options)
        if loaded is not None and not (loaded and loaded == stage.loads):
            free_memory(bench.device)
        loaded = stage.loads
        importlib.import_module(f"benchmarks.gpu.{stage.module}").measure(bench)
        bench.record.set_state(stage.name, "finished")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
