"""Where a run's image errors come from: another run's folder, or a file of its banks (``python -m training.bank``).

A run that names another run's folder copies the banks of its newest checkpoint to its own folder when it begins. So it resumes
bit for bit, whatever the other run does meanwhile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from svi_core.files.fingerprint import file_sha256
from svi_core.files.safetensors_file import read_tensors
from svi_core.recycling.config import StoredSlots
from svi_core.recycling.exported_bank import BankFacts, StoredError, bank_of, fills, read_facts, stored_errors, write_banks
from training.method.banks import by_shape
from training.method.distributed import Group
from training.method.image_errors import ImageErrors, read_image_errors, require_fitting
from training.method.trainer import ExampleSource
from training.run.assembly import bank_folder
from training.run.checkpoint import checkpoints, read_state
from training.settings.reader import config_from
from training.settings.sections import TrainingConfig

COPY = "image_errors.safetensors"  # in the folder of the run that draws them


@dataclass(frozen=True)
class ErrorSource:
    """Banks that image errors can be drawn from.

    Attributes:
        name: the run's folder or the file, for messages.
        facts: what the banks hold.
        fills: entries of each cell, by latent shape.
        errors: the entries of a run's folder, by latent shape, mapped; None for a file.
    """

    name: str
    facts: BankFacts
    fills: Mapping[str, Sequence[int]]
    errors: Mapping[str, Sequence[StoredError]] | None = None

    def open(self) -> ImageErrors:
        """Return the errors, to draw from them without training: those of a run's folder are not copied.

        Raises:
            ValueError: the file is damaged.
        """
        if self.errors is None:
            return read_image_errors(Path(self.name))
        return ImageErrors({shape: bank_of(errors, self.facts) for shape, errors in self.errors.items()})


def find_source(config: TrainingConfig, data: ExampleSource, *, resume: bool = False) -> ErrorSource | None:
    """Return the source of image errors that `config` names; None if they come from the run's own bank.

    Args:
        config: the settings.
        data: the examples.
        resume: a run with a checkpoint has a copy, and the run that it names may be gone.

    Raises:
        ValueError: there is no such run or file, it is damaged, or its errors do not fit `config` or `data`.
    """
    if not _draws_others(config):
        return None
    path = _file_of(config, resume)
    if path.is_dir():
        if path.resolve() == Path(config.run).resolve():
            raise ValueError(
                f"bank.image_errors_from is {str(path)!r}, the run itself: leave it empty for the run's own errors."
            )
        facts, errors = _banks_of(path)
        return _checked(ErrorSource(str(path), facts, _fills(errors, facts), errors), config, data)
    if not path.is_file():
        raise ValueError(
            f"bank.image_errors_from is {str(path)!r}, but there is no such run or file: train that run first (for Wan 2.2 the "
            "low-noise expert, training/configs/pro_low.toml), name its folder, or set bank.image_errors_from='' to draw image "
            "errors from the run's own bank."
        )
    return _checked(ErrorSource(str(path), *read_facts(path)), config, data)


def _draws_others(config: TrainingConfig) -> bool:
    """Whether `config` draws image errors from other banks than the run's own."""
    return bool(config.bank.image_errors_from) and config.recycling.injects and config.recycling.image_prob > 0


def open_image_errors(config: TrainingConfig, data: ExampleSource, group: Group, *, resume: bool) -> ImageErrors | None:
    """Return the image errors that `config` names, copied to the run's folder when it begins; None for the own bank's.

    All processes call it. The first one copies, all map the same file.

    Raises:
        ValueError: see :func:`find_source`.
        OSError: the disk is full.
    """
    if not _draws_others(config):
        return None
    find_source(config, data, resume=resume)
    path, copy = _file_of(config, resume), Path(config.run) / COPY
    if path.is_file():
        return read_image_errors(path)
    group.wait()  # until all have checked
    if group.is_first:
        export_banks(path, copy)
    group.wait()
    return read_image_errors(copy)


def export_banks(run: Path, path: Path) -> BankFacts:
    """Write the banks in the newest checkpoint of `run` to the file `path`, those of all processes as one; return their facts.

    Raises:
        ValueError: `run` has no usable checkpoint, or holds no errors.
        OSError: the disk is full.
    """
    facts, banks = _banks_of(run)
    write_banks(path, banks, facts)
    return facts


def _file_of(config: TrainingConfig, resume: bool) -> Path:
    """Return the run's folder or the file that image errors are read from: of a resumed run, what it began with.

    Raises:
        ValueError: a resumed run has lost it.
    """
    path, run = Path(config.bank.image_errors_from), Path(config.run)
    if path.is_file() or not (resume and checkpoints(run)):
        return path
    if not (run / COPY).is_file():
        raise ValueError(
            f"{run / COPY} is missing, and bank.image_errors_from = {str(path)!r} is no file: one of them holds the image "
            "errors that this run began with. Bring it back from a backup, or begin a new run."
        )
    return run / COPY


def _checked(source: ErrorSource, config: TrainingConfig, data: ExampleSource) -> ErrorSource:
    require_fitting(source.name, source.facts, source.fills, config.recycling, config.data.layout, data.latent_shapes)
    return source


def _fills(banks: Mapping[str, Sequence[StoredError]], facts: BankFacts) -> dict[str, list[int]]:
    return {
        shape: fills(torch.tensor([error.grid for error in errors], dtype=torch.int64), facts)
        for shape, errors in banks.items()
    }


def _banks_of(run: Path) -> tuple[BankFacts, dict[str, list[StoredError]]]:
    """Return the facts and entries of all processes' banks, by latent shape, in the newest checkpoint of `run`."""
    found = checkpoints(run)
    if not found:
        raise ValueError(
            f"bank.image_errors_from: {run} has no checkpoint, and so no errors: train it first, at least to a checkpoint."
        )
    folder = found[0]
    try:
        state = read_state(folder)
        config = config_from(state["settings"])
        banks: dict[str, list[StoredError]] = {}
        for rank in range(state["identity"]["number of processes"]):
            name = f"bank_{rank}.safetensors"
            if file_sha256(folder / name) != state["files"].get(name):
                raise ValueError(f"{name} is damaged")
            for shape, snapshot in by_shape(read_tensors(folder / name)[0]).items():
                values = bank_folder(config, run) / f"process{rank}" / shape
                banks.setdefault(shape, []).extend(stored_errors(snapshot, values))
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(
            f"bank.image_errors_from: {folder} cannot be used ({type(error).__name__}: {error}): resume that run once, which "
            "repairs it where it can be repaired, or name another run."
        ) from error
    banks = {shape: errors for shape, errors in banks.items() if errors}
    if not banks:
        raise ValueError(
            f"bank.image_errors_from: {run} holds no errors, since it trains without error recycling: name another."
        )
    return _facts(config, state), banks


def _facts(config: TrainingConfig, state: Mapping) -> BankFacts:
    """Return what the banks of a run with these settings hold, by the state.json of its checkpoint."""
    recycling = config.recycling
    only_window = recycling.stored_slots is StoredSlots.IMAGE_WINDOW
    return BankFacts(
        num_grids=recycling.num_grids,
        shift=recycling.grid_shift,
        layout=config.data.layout,
        model=state["identity"]["base model (model.path)"],
        expert=config.model.expert,
        step=state["step"],
        window_slots=recycling.num_image_error_slots if only_window else 0,
    )
