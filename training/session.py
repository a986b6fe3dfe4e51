"""One training from its settings to its last file: open, put together, train, report, close."""

import logging
from collections.abc import Callable
from pathlib import Path

from training.assembly import assemble, load_configured_backbone
from training.checkpoint import require_disk_space, restore_newest
from training.distributed import Group
from training.loop import train
from training.progress import Progress
from training.run_folder import RunFolder
from training.settings import TrainingConfig
from training.stop_signal import StopSignal
from training.trainer import ExampleSource, Trainer

_log = logging.getLogger(__name__)


def run_training(
    config: TrainingConfig,
    group: Group,
    open_data: Callable[[TrainingConfig, int], ExampleSource],
    *,
    resume: bool = False,
    sampler: Callable[[Trainer, RunFolder], Callable[[], Path | None]] | None = None,
) -> int:
    """Train as `config` says and return the number of the signal that ended it early, or 0.

    Args:
        config: the settings; `config.run` is the folder.
        group: the processes.
        open_data: returns the examples, given the settings and how many examples a step takes.
        resume: go on from the newest checkpoint; without any, begin again.
        sampler: returns what makes a sample video of a run.

    Raises:
        ValueError: settings, files or a run folder that cannot be trained with.
        OSError: the disk is full.
        TrainingStopped: a loss or gradient that is not finite.
    """
    run = RunFolder(Path(config.run), group)
    try:
        with StopSignal() as stop:
            per_step = group.size * config.loop.accumulation * config.loop.batch_size
            data = open_data(config, per_step)
            trainer = assemble(config, load_configured_backbone(config), data, group, run.path)
            try:
                _begin(trainer, run, resume)
                progress = Progress(trainer, run, sampler(trainer, run) if sampler else lambda: None)
                try:
                    return train(trainer, run, stop, progress.on_step, progress.look)
                finally:
                    progress.close()
            finally:
                trainer.banks.close()
    finally:
        run.close()


def _begin(trainer: Trainer, run: RunFolder, resume: bool) -> None:
    """Bring the trainer to where it goes on, or to an empty beginning."""
    if resume and restore_newest(trainer, run.path):
        run.go_back_to(trainer.step)
        run.keep_settings(trainer.config)
        _log.info("SVI: going on after step %d of %d", trainer.step, trainer.num_steps)
        return
    if resume:
        _log.warning("SVI: %s has no checkpoint yet; beginning at the first step", run.path)
    run.begin(trainer.config)
    if trainer.group.is_first:
        require_disk_space(trainer, run.path)
