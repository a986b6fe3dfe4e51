"""One training run from its settings to its last file: open, assemble, train, report, close."""

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import psutil

from svi_core.files.fingerprint import large_file_fingerprint
from svi_core.files.output_folder import is_file_name
from svi_core.out_of_memory import explain_out_of_memory
from svi_core.recycling.presets import PRESETS
from svi_core.systems.base_model import require_text_width
from svi_core.systems.layouts import Condition
from training.data.dataset import CachedDataset
from training.method.distributed import Group, join_group
from training.method.trainer import ExampleSource, Trainer
from training.model.comfy_runtime import find_model
from training.model.encoder_files import ENCODER_FOLDERS, find_encoder, width_read_by
from training.run.assembly import open_trainer, read_configured_start
from training.run.chains import Chains, examples_to_chain
from training.run.checkpoint import newest_start, require_disk_space, restore_newest
from training.run.diagnosis import diagnose, diagnosis_text, make_diagnoser
from training.run.dry_run import dry_run_text
from training.run.error_source import find_source, open_image_errors
from training.run.loop import complete_lora_files, train
from training.run.progress import MakeDiagnosis, MakeSample, Progress, no_diagnosis, no_sample
from training.run.report import write_report
from training.run.run_folder import RunFolder, resumed_config
from training.run.samples import make_sampler, require_sampling_files
from training.run.stop_signal import BY_FILE, StopSignal
from training.settings.reader import load_config
from training.settings.sections import BankStorageKind, TrainingConfig

MORE_MEMORY = (
    "Add --config training/configs/memory_24gb.toml (or 48gb): fp8 weights, block inputs and weights in host memory. "
    "Or lower loop.batch_size, data.width and data.height."
)
MORE_MEMORY_RESUMED = "Add memory.swapped_blocks=40 memory.offload_block_inputs=true; a resumed run may change both."
_log = logging.getLogger(__name__)


def run_command(
    paths: Sequence[Path], overrides: Sequence[str], resume: Path | None, dry_run: bool, with_diagnosis: bool = False
) -> int:
    """Run what `python -m training.erft` was asked for; return the exit status: 0, or 128 + the signal that ended it early.

    Raises:
        ValueError, OSError, TrainingStopped: see :func:`run_training`.
        RuntimeError: memory ran out; the message says what helps.
    """
    if resume is None:
        config = load_config(paths, overrides)
    else:
        config = resumed_config(resume, paths, overrides)
    require_trainable(config)
    group = join_group()
    try:
        if dry_run:
            print_dry_run(config, group, with_diagnosis, resume=resume is not None)
            return 0
        if config.samples.every:
            require_sampling_files(config)
        with explain_out_of_memory("training", MORE_MEMORY if resume is None else MORE_MEMORY_RESUMED):
            sees = {"sampler": make_sampler, "diagnoser": make_diagnoser}
            number = run_training(config, group, open_cache, resume=resume is not None, **sees)
    finally:
        group.close()
    if number:
        _log.warning("SVI: stopped and saved. Resume with: python -m training.erft --resume %s", config.run)
        return 0 if number == BY_FILE else 128 + number
    if group.is_first:
        _log.info("SVI: done. %s", write_report(Path(config.run)))
    return 0


def require_trainable(config: TrainingConfig) -> None:
    """Refuse settings without a run folder, and settings that contradict each other.

    Raises:
        ValueError: the message names the setting.
    """
    if not config.run:
        raise ValueError("run is not set: give a folder for checkpoints and results, such as run=runs/mine.")
    if not is_file_name(config.run_name):
        raise ValueError(
            f"name is {config.run_name!r}, but LoRA files get that name: leave out slashes, colons and the like. "
            "If name is not set, it is the last part of run."
        )
    chosen, layout = PRESETS.get(config.preset), config.data.svi_layout
    if chosen and chosen.layout.condition is not None and layout.condition is not chosen.layout.condition:
        raise ValueError(
            f"preset {config.preset!r} trains with {chosen.layout.condition.value}, but data.layout = {layout.name!r} does "
            f"not: leave data.layout to the preset, or use another preset for {layout.name!r}."
        )
    if layout.condition is Condition.SOUND and not config.model.audio_patch:
        raise ValueError(
            f"layout {layout.name!r} is trained with MultiTalk's audio layers: set model.audio_patch to multitalk.safetensors."
        )


def open_cache(config: TrainingConfig, per_step: int) -> CachedDataset:
    """Return the examples that `python -m training.cache` encoded.

    Raises:
        ValueError: there is no cache for these settings, or it was encoded with other models or for another one.
    """
    data = CachedDataset(config.data.cache_folder, config.data, per_step)
    _require_same_encoders(config, data.models)
    model = find_model("diffusion_models", config.model.path, "model.path")
    if width := width_read_by(model, "text_encoder"):
        found = data.example(config.seed, 0).text.shape[-1]
        require_text_width(f"the text in the cache {config.data.cache_folder}", found, str(model), width)
    return data


def _require_same_encoders(config: TrainingConfig, cached_with: Mapping[str, str]) -> None:
    """Refuse a cache of other encoders. Warn of an encoder whose file is not on this machine and cannot be compared."""
    for role in ENCODER_FOLDERS:
        name = getattr(config.model, role)
        if not name or not cached_with.get(role):
            continue
        try:
            path = find_encoder(config.model, role)
        except ValueError as error:
            _log.warning("SVI: cannot check whether the cache was made with model.%s: %s", role, error)
            continue
        if large_file_fingerprint(path) != cached_with[role]:
            raise ValueError(
                f"the cache in {config.data.cache_folder} was made with another file than model.{role} = {name!r}: run "
                f"python -m training.cache with these settings, or set model.{role} to the file that it was made with."
            )


def diagnose_base(paths: Sequence[Path], overrides: Sequence[str], output: Path | None) -> None:
    """Diagnose the base that the settings name, and print what was found. Nothing is trained.

    Args:
        paths: files of --config.
        overrides: ``section.key=value``.
        output: folder for diagnosis.json and report.html; None: the run's.

    Raises:
        ValueError: a setting or file is unusable.
        RuntimeError: memory ran out; the message says what helps.
    """
    config = load_config(paths, overrides)
    if output is not None:
        config = replace(config, run=str(output))
    require_trainable(config)
    start, data = read_configured_start(config), _open_examples(config, Group())
    source = find_source(config, data)
    examples_to_chain(config, data)
    with explain_out_of_memory("the diagnosis", MORE_MEMORY):
        trainer = open_trainer(config, Group(), data, start, source.open() if source else None)
        with closing(trainer.banks):
            sys.stdout.write(_diagnosed(trainer) + "\n")


def _diagnosed(trainer: Trainer) -> str:
    """Diagnose the model and write the result into the run's folder; return it as text."""
    found = diagnose(trainer, Chains(trainer))
    return f"{diagnosis_text(found)}\nreport        {found.save(Path(trainer.config.run))}"


def _open_examples(config: TrainingConfig, group: Group) -> ExampleSource:
    return open_cache(config, config.loop.examples_per_step(group.size))


def print_dry_run(config: TrainingConfig, group: Group, with_diagnosis: bool, *, resume: bool = False) -> None:
    """Print what the run would train, measure one step, draw the first batch, and diagnose the base if asked.

    Nothing is trained or saved.

    Raises:
        ValueError: a setting or file is unusable.
    """
    run = Path(config.run)
    start, data = read_configured_start(config, resume=resume), _open_examples(config, group)
    source = find_source(config, data, resume=resume)
    if with_diagnosis:
        examples_to_chain(config, data)
    image_errors = source.open() if source and with_diagnosis else None
    trainer = open_trainer(config, group, data, start, image_errors)
    if resume:
        trainer.start = trainer.start or newest_start(run)
    with closing(trainer.banks), explain_out_of_memory("one training step", MORE_MEMORY):
        text = dry_run_text(trainer, run, source)
        if group.is_first:
            sys.stdout.write(text + "\n")
            if with_diagnosis:
                sys.stdout.write(_diagnosed(trainer) + "\n")


def run_training(
    config: TrainingConfig,
    group: Group,
    open_data: Callable[[TrainingConfig, int], ExampleSource],
    *,
    resume: bool = False,
    sampler: Callable[[Trainer, RunFolder], MakeSample] | None = None,
    diagnoser: Callable[[Trainer, RunFolder], MakeDiagnosis] | None = None,
) -> int:
    """Train as `config` says. Return what ended the run early: a signal's number, `stop_signal.BY_FILE`, or 0.

    Args:
        config: the settings; `config.run` is the run's folder.
        group: the processes.
        open_data: returns the examples, given the settings and the number of examples in a step.
        resume: start from the newest checkpoint, or from step 0 if there is none.
        sampler: returns the function that makes a run's sample videos; None: no sample videos.
        diagnoser: returns the function that diagnoses the model of a run; None: no diagnoses.

    Raises:
        ValueError: a setting, a file or the run's folder is unusable.
        OSError: the disk is full.
        TrainingStopped: a loss or the gradient is not finite.
    """
    with StopSignal(Path(config.run)) as stop, closing(RunFolder(Path(config.run), group)) as run:
        if not resume:
            run.require_empty()
        start = read_configured_start(config, resume=resume)
        data = open_data(config, config.loop.examples_per_step(group.size))
        if diagnoser and config.diagnosis.every:
            examples_to_chain(config, data)
        image_errors = open_image_errors(config, data, group, resume=resume)  # the last check, since it may copy
        trainer = open_trainer(config, group, data, start, image_errors)
        del start  # about a gigabyte for a 14B model
        with closing(trainer.banks):
            require_room_for_banks(trainer)
            _begin(trainer, run, resume)
            make_sample = sampler(trainer, run) if sampler else no_sample
            make_diagnosis = diagnoser(trainer, run) if diagnoser else no_diagnosis
            with closing(Progress(trainer, run, make_sample, make_diagnosis)) as progress:
                progress.begin(stop.should_stop)
                return train(trainer, run, stop, progress.on_step, progress.evaluate)


def require_room_for_banks(trainer: Trainer) -> None:
    """Refuse banks in RAM that will outgrow the free RAM.

    Only the bank of the largest examples is counted; data.more_sizes adds further banks.

    Raises:
        ValueError: the message says how much is needed and how much is free.
    """
    config = trainer.config
    if config.bank.storage is not BankStorageKind.RAM or not config.recycling.injects:
        return
    own = trainer.banks.memory_bytes(trainer.data.example(config.seed, 0, 0).latent.shape)
    (needed,), free = trainer.group.total(own), psutil.virtual_memory().available
    if any(trainer.group.largest(needed > free)):
        raise ValueError(
            f"the error banks of {trainer.group.size} processes grow to {needed / 2**30:.1f} GiB of RAM, but "
            f'{free / 2**30:.1f} GiB are free: use bank.storage = "file", or a smaller recycling.capacity.'
        )


def _begin(trainer: Trainer, run: RunFolder, resume: bool) -> None:
    """Restore the newest checkpoint, or start a new run at step 0."""
    if resume and restore_newest(trainer, run.path):
        run.go_on(trainer.config, trainer.step)
        complete_lora_files(trainer, run)
        _log.info("SVI: resuming after step %d of %d", trainer.step, trainer.num_steps)
        return
    if resume:
        _log.warning("SVI: %s has no checkpoint yet; starting at step 1", run.path)
    run.begin(trainer.config)
    if trainer.start:
        _log.info("SVI: the LoRA begins from %s", trainer.start)
        run.record("start", 0, text=str(trainer.start), **asdict(trainer.start))
    require_disk_space(trainer, run.path)
