"""Shared by the three training scripts: a folder with log and checkpoint, a clock, a moving average."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from demo.models.comfy_import import REPOSITORY

RUNS = REPOSITORY / ".runtime" / "demo_training"


class TrainingRun:
    """A folder with `log.jsonl` and `checkpoint.pt`; training lasts a given wall-clock time, over all resumptions."""

    def __init__(self, name: str, minutes: float, folder: Path = RUNS) -> None:
        self.folder = folder / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.seconds = 60.0 * minutes
        self.step = 0
        self._earlier, self._started = 0.0, time.monotonic()
        self._saved = time.monotonic()
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
        self._logger = logging.getLogger(name)

    @property
    def elapsed(self) -> float:
        """Seconds trained so far."""
        return self._earlier + time.monotonic() - self._started

    @property
    def progress(self) -> float:
        """Share of the training time used, 0 to 1."""
        return min(1.0, self.elapsed / self.seconds)

    def log(self, **values: float) -> None:
        """Append one line to the log of this run."""
        record = {"step": self.step, "seconds": round(self.elapsed, 1)}
        record |= {name: round(float(value), 5) for name, value in values.items()}
        with (self.folder / "log.jsonl").open("a") as file:
            file.write(json.dumps(record) + "\n")
        self._logger.info("%s", record)

    def save(self, state: dict, every_seconds: float = 0.0) -> bool:
        """Write the checkpoint, unless the last one is younger than `every_seconds`; return whether it was written."""
        if time.monotonic() - self._saved < every_seconds:
            return False
        draft = self.folder / "checkpoint.pt.tmp"
        torch.save({"step": self.step, "elapsed": self.elapsed, **state}, draft)
        os.replace(draft, self.folder / "checkpoint.pt")
        self._saved = time.monotonic()
        return True

    def resume(self) -> dict | None:
        """Return the checkpoint, if there is one, and resume its step and time."""
        path = self.folder / "checkpoint.pt"
        if not path.exists():
            return None
        state = torch.load(path, weights_only=True)
        self.step, self._earlier = state["step"], state["elapsed"]
        return state


def learning_rate(peak: float, progress: float, step: int, warmup_steps: int) -> float:
    """Rise linearly for some steps, then fall to 2 % as a half cosine of the training time used."""
    warm = min(1.0, (step + 1) / warmup_steps)
    return peak * warm * (0.02 + 0.98 * 0.5 * (1.0 + math.cos(math.pi * progress)))


class MovingAverage:
    """Exponential moving average of a module's parameters, with a short memory at the start."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0
        self.values = {name: p.detach().clone() for name, p in module.named_parameters()}

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Move towards the current parameters."""
        self.num_updates += 1
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates))
        names, parameters = zip(*module.named_parameters(), strict=True)
        torch._foreach_lerp_([self.values[name] for name in names], list(parameters), 1.0 - decay)

    def state_dict(self) -> dict[str, Tensor | int]:
        """Return the averages and their count, for a checkpoint."""
        return {"num_updates": self.num_updates, **self.values}

    def load_state_dict(self, state: dict) -> None:
        """Restore what `state_dict` returned."""
        self.num_updates = state["num_updates"]
        self.values = {name: state[name].clone() for name in self.values}

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Replace the parameters by the averages."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self.values[name])
