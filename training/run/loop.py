"""The training loop: step, save, evaluate, until the last step or a signal."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import torch

from svi_core.files.atomic_file import STAGING_MARK, sync_folder
from svi_core.files.checked_file import set_aside
from svi_core.files.safetensors_file import read_header, read_tensors
from training.method.erft_step import StepResult, training_step
from training.method.trainer import Trainer
from training.model.lora_file import LoraDescription, RoundingError, save_lora
from training.run.checkpoint import save_checkpoint
from training.run.run_folder import RunFolder
from training.run.stop_signal import BY_FILE, StopSignal

_log = logging.getLogger(__name__)


def train(
    trainer: Trainer,
    run: RunFolder,
    stop: StopSignal,
    on_step: Callable[[StepResult], None] = lambda result: None,
    evaluate: Callable[[Callable[[], bool]], None] = lambda should_stop: None,
) -> int:
    """Train from the trainer's step to its last one. Return what ended it early: a signal's number, BY_FILE, or 0.

    A checkpoint is saved before the evaluation, so that a failed validation or sample video costs no steps.

    Args:
        trainer: the run's parts.
        run: the folder for checkpoints and LoRA files.
        stop: checked after each step and each evaluation; all processes stop together.
        on_step: called with the result of each step.
        evaluate: called after each step for the validation, bank statistics or sample video that are due. It gets a function
            that says whether to stop, and abandons the rest once that returns True.

    Raises:
        TrainingStopped: a loss or the gradient is not finite.
        OSError: a checkpoint could not be written.
        ValueError: ComfyUI would read a LoRA file differently from what was trained.
    """
    while trainer.step < trainer.num_steps:
        on_step(training_step(trainer))
        due = trainer.is_due(trainer.config.loop.checkpoint_every)
        ended_by = _ended_by(trainer, stop)
        if due or ended_by:
            save(trainer, run)
        if not ended_by:
            evaluate(stop.should_stop)
            ended_by = _ended_by(trainer, stop)
            if ended_by and not due:
                save(trainer, run)
        if ended_by:
            return ended_by
    return 0


def _ended_by(trainer: Trainer, stop: StopSignal) -> int:
    """Return what told any process to stop: a signal's number, BY_FILE, or 0 for nothing."""
    number, by_file = trainer.group.largest(stop.received, stop.asked_by_file)
    return int(number) or (BY_FILE if by_file else 0)


def save(trainer: Trainer, run: RunFolder) -> None:
    """Write a checkpoint and the LoRA file of the current step, and a LoRA file to keep if one is due.

    Raises:
        OSError: the disk is full.
        ValueError: see :func:`training.model.lora_file.save_lora`.
    """
    save_checkpoint(trainer, run.path)
    if trainer.group.is_first:
        for path in _lora_paths(trainer, run):
            _save_lora(path, trainer)
    trainer.group.wait()


def complete_lora_files(trainer: Trainer, run: RunFolder) -> None:
    """Write the LoRA files of the current step that are missing because the process was killed after the checkpoint.

    A damaged one is set aside. A file of a later step stays: its checkpoint is damaged or was removed. All processes call this.

    Raises:
        OSError: the disk is full.
        ValueError: see :func:`training.model.lora_file.save_lora`.
    """
    if trainer.group.is_first:
        for path in _lora_paths(trainer, run):
            if not trainer.step < _step_of(path) <= trainer.num_steps:
                _renew_lora(path, trainer)
    trainer.group.wait()


def _lora_paths(trainer: Trainer, run: RunFolder) -> list[Path]:
    """Return the LoRA files of the current step: the newest one, and one to keep if it is due."""
    every, name = trainer.config.loop.keep_loras_every, trainer.config.run_name
    kept = [run.path / "loras" / f"{name}-step{trainer.step:06d}.safetensors"] if every and trainer.step % every == 0 else []
    return [run.path / f"{name}.safetensors", *kept]


def _step_of(path: Path) -> int:
    """Return the step that a LoRA file's header names, or -1 if there is no readable file."""
    try:
        return int(read_header(path)["__metadata__"]["svi.step"])
    except (OSError, ValueError, KeyError):
        return -1


def _renew_lora(path: Path, trainer: Trainer) -> None:
    """Write the LoRA file of the current step again; set one aside that holds something else for this step."""
    renewed = path.with_name(f"{path.stem}{STAGING_MARK}{path.suffix}")
    _save_lora(renewed, trainer)
    if path.exists() and not 0 <= _step_of(path) < trainer.step and not _has_equal_tensors(path, renewed):
        set_aside(path, "its values are not those of its checkpoint")
    os.replace(renewed, path)
    sync_folder(path.parent)


def _has_equal_tensors(path: Path, other: Path) -> bool:
    try:
        found, wanted = read_tensors(path)[0], read_tensors(other)[0]
    except ValueError:
        return False
    return found.keys() == wanted.keys() and all(torch.equal(found[key], wanted[key]) for key in wanted)


def _save_lora(path: Path, trainer: Trainer) -> None:
    """Write the LoRA file, in fp32 with a warning while its values are too small for the dtype that was asked for."""
    path.parent.mkdir(exist_ok=True)
    description = describe_lora(trainer)
    try:
        save_lora(path, trainer.lora, trainer.backbone, description, trainer.config.lora.file_dtype, trainer.poses)
    except RoundingError as error:  # as after the first steps of a warm-up
        if trainer.config.lora.file_dtype == "fp32":
            raise
        _log.warning("SVI: %s is saved in fp32 this time, since %s", path.name, error)
        save_lora(path, trainer.lora, trainer.backbone, description, "fp32", trainer.poses)


def describe_lora(trainer: Trainer) -> LoraDescription:
    """Return what the LoRA file's header says of the current step."""
    return LoraDescription(trainer.config, trainer.step, float(trainer.optimizer.param_groups[0]["lr"]), trainer.start)
