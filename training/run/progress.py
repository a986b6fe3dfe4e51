"""Show and record a run while it trains: a progress bar, measurements as JSON lines, TensorBoard where installed."""

import importlib.util
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import psutil
import torch
from tqdm import tqdm

from training.data.dataset import TrainingExample
from training.method.banks import error_to_signal
from training.method.erft_step import StepResult
from training.method.trainer import Trainer
from training.run.run_folder import RunFolder
from training.run.validation import held_out_examples, validate

MakeSample = Callable[[Callable[[], bool]], Path | None]  # gets a function that says whether to stop
MakeDiagnosis = Callable[[Callable[[], bool]], dict[str, object] | None]  # the same; returns what is recorded
_log = logging.getLogger(__name__)


def no_sample(should_stop: Callable[[], bool]) -> None:
    """Make no sample video."""


def no_diagnosis(should_stop: Callable[[], bool]) -> None:
    """Diagnose nothing."""


class Progress:
    """Shows and records one run. Only the first process shows and writes; all processes take part in validation."""

    def __init__(
        self,
        trainer: Trainer,
        run: RunFolder,
        make_sample: MakeSample = no_sample,
        make_diagnosis: MakeDiagnosis = no_diagnosis,
    ):
        """Open the progress bar and TensorBoard.

        Args:
            trainer: the run's parts.
            run: the folder for measurements.
            make_sample: makes a sample video and returns its path; the first process calls it every `samples.every` steps.
            make_diagnosis: diagnoses the model; the first process calls it every `diagnosis.every` steps.
        """
        self._trainer, self._run = trainer, run
        self._make_sample, self._make_diagnosis = make_sample, make_diagnosis
        self._held_out: Sequence[TrainingExample] = held_out_examples(trainer) if trainer.config.validation.every else ()
        self._bar = tqdm(
            total=trainer.num_steps, initial=trainer.step, unit="step", disable=not trainer.group.is_first, smoothing=0.1
        )
        self._board = _tensorboard(run.path, trainer.step) if trainer.group.is_first else None
        self._signal_rms = _rms([example.latent for example in self._held_out] or [trainer.data.example(0, 0, 0).latent])
        self._latest = time.monotonic()

    def begin(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Log how the model runs. Before the first step, also validate the untrained model, where the curves start."""
        trainer = self._trainer
        execution = trainer.execution
        if trainer.group.is_first:
            _log.info(
                "SVI: %s: %s, computed in %s; matmul %s; attention %s; %d LoRA layers, %d trained parameters",
                trainer.backbone.name, execution.weights, execution.compute, execution.matmul, execution.attention,
                len(trainer.lora.pairs), trainer.lora.num_parameters,
            )  # fmt: skip
        if trainer.config.validation.every and not self._held_out:
            _log.warning("SVI: no clip is held out (data.held_out), so nothing is validated.")
        if trainer.step == 0:
            self._run.record("model", 0, **asdict(execution))
            self._validate(should_stop)
        self._latest = time.monotonic()

    def on_step(self, result: StepResult) -> None:
        """Show and record the result of a step."""
        now = time.monotonic()
        seconds, self._latest = now - self._latest, now
        values = {
            "loss": result.loss,
            "gradient_norm": result.gradient_norm,
            "learning_rate": result.learning_rate,
            **{f"injected_{name}": share for name, share in result.injected.items()},
            "bank_entries": len(self._trainer.banks),
            "seconds": round(seconds, 4),
            "examples_per_second": round(self._trainer.examples_per_step / max(seconds, 1e-9), 4),
            "peak_memory_gib": round(peak_memory_bytes() / 2**30, 3),
        }
        self._write("step", values)
        self._bar.update()
        self._bar.set_postfix(loss=f"{result.loss:.4f}", bank=values["bank_entries"], refresh=False)

    def evaluate(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Validate, record the banks' statistics, make a sample video and diagnose, whichever are due after this step.

        Args:
            should_stop: whether to stop and abandon what is not finished.
        """
        trainer, config = self._trainer, self._trainer.config
        if trainer.is_due(config.validation.every):
            self._validate(should_stop)
        if trainer.is_due(config.validation.every or config.loop.checkpoint_every):
            self._write_banks()
        if trainer.is_due(config.samples.every):
            sample = self._make_sample(should_stop) if trainer.group.is_first else None
            if sample is not None:
                self._write("sample", {"path": sample.relative_to(self._run.path).as_posix()})
            trainer.group.wait()
        if trainer.is_due(config.diagnosis.every):
            diagnosis = self._make_diagnosis(should_stop) if trainer.group.is_first else None
            if diagnosis is not None:
                self._write("diagnosis", diagnosis)
            trainer.group.wait()
        self._latest = time.monotonic()

    def close(self) -> None:
        """Close the progress bar and TensorBoard."""
        self._bar.close()
        if self._board is not None:
            self._board.close()

    def _validate(self, should_stop: Callable[[], bool]) -> None:
        """Record the held-out losses, unless there are no held-out clips or the run should stop."""
        losses = validate(self._trainer, self._held_out, should_stop) if self._held_out else None
        if losses is not None:
            self._write("validation", losses)

    def _write_banks(self) -> None:
        """Record, for each bank of this process and each grid value, the number of errors and the error-to-signal ratio."""
        for shape, cells in self._trainer.banks.statistics().items():
            ratios = error_to_signal(cells, self._signal_rms)
            values = {
                "shape": "x".join(map(str, shape)),
                "sigma": [round(cell.sigma, 4) for cell in cells],
                "fill": [cell.fill for cell in cells],
                "error_to_signal": [None if ratio is None else round(ratio, 5) for ratio in ratios],
            }
            self._write("bank", values)

    def _write(self, kind: str, values: dict[str, object]) -> None:
        step = self._trainer.step
        self._run.record(kind, step, **values)
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float) and math.isfinite(value):
                    self._board.add_scalar(f"{kind}/{name}", value, step)


def _rms(latents: Sequence[torch.Tensor]) -> float:
    """Return the root mean square over all values of `latents`."""
    squares = sum(float(latent.square().sum()) for latent in latents)
    return math.sqrt(squares / sum(latent.numel() for latent in latents))


def peak_memory_bytes() -> int:
    """Return the peak memory in use: that of the GPU, or of this process without a GPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    if os.name == "nt":
        return psutil.Process().memory_info().peak_wset
    import resource  # Windows has no such module

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _tensorboard(run: Path, step: int):
    """Return a TensorBoard writer that continues after `step`, or None if TensorBoard is not installed."""
    if importlib.util.find_spec("tensorboard") is None:
        return None
    from torch.utils.tensorboard import SummaryWriter  # fails where TensorBoard is not installed

    return SummaryWriter(run / "tensorboard", purge_step=step + 1)
