"""Checkpoints: folders that are complete or absent, and from which training resumes bit for bit.

    <run>/checkpoints/step_00000100/adapters.safetensors     the LoRA's matrices, and the pose encoder of SVI-Dance, fp32
                                    optimizer.safetensors    its state
                                    bank_0.safetensors       process 0's error banks (only their index, if on disk)
                                    state.json               step, identity and settings of the training run, the sha256 of
                                                             each file, and a checksum of its own

Random numbers and the position in the data are not saved: both are functions of seed and step (`streams`, `data_order`).
A checkpoint that is damaged is named in the log and renamed, and the one before it is used.
"""

import itertools
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from torch import Tensor

from svi_core.files.atomic_file import STAGING_MARK, publish_folder, remove_stale_staging, staging_folder
from svi_core.files.fingerprint import file_sha256
from svi_core.files.safetensors_file import read_tensors, write_tensors
from svi_core.files.sealed_json import read_sealed, write_sealed
from training.method.optimizers import optimizer_tensors, restore_optimizer
from training.method.trainer import Trainer
from training.model.start_lora import StartRecord
from training.settings.reader import config_table

FOLDER = "checkpoints"
DISK_RESERVE_BYTES = 64 << 20  # kept free beside a checkpoint, for logs and LoRA files
_log = logging.getLogger(__name__)


def checkpoints(run: Path) -> list[Path]:
    """Return the complete checkpoints of `run`, newest first."""
    return sorted((path for path in (run / FOLDER).glob("step_*") if STAGING_MARK not in path.name), reverse=True)


def save_checkpoint(trainer: Trainer, run: Path) -> Path:
    """Write a checkpoint of the current step and remove the oldest ones beyond `loop.keep_checkpoints`.

    All processes call it: each writes its own bank, the first one everything else. The run folder must be shared by all.

    Raises:
        OSError: the disk is too small or cannot be written; earlier checkpoints are untouched.
    """
    final = run / FOLDER / f"step_{trainer.step:08d}"
    staging = staging_folder(final)
    if trainer.group.is_first:
        remove_stale_staging(run / FOLDER)
    require_disk_space(trainer, run)
    if trainer.group.is_first:
        staging.mkdir(parents=True)
    trainer.group.wait()
    write_tensors(staging / f"bank_{trainer.group.rank}.safetensors", trainer.banks.snapshots())
    trainer.group.wait()
    if trainer.group.is_first:
        write_tensors(staging / "adapters.safetensors", trainer.trained_state())
        write_tensors(staging / "optimizer.safetensors", *optimizer_tensors(trainer.optimizer))
        _write_state(staging, trainer)
        publish_folder(final)
        for old in checkpoints(run)[trainer.config.loop.keep_checkpoints :]:
            shutil.rmtree(old)
    trainer.group.wait()
    return final


def restore_newest(trainer: Trainer, run: Path) -> bool:
    """Restore `trainer` from the newest usable checkpoint of `run`; return whether `run` has checkpoints.

    Raises:
        ValueError: no checkpoint is usable, or they belong to another training run; the message names the differences.
    """
    found, problems = checkpoints(run), list[str]()
    for folder in found:
        try:
            state = read_state(folder)
        except (OSError, ValueError) as error:
            state, problem = {}, f"state.json is missing or damaged: {error}"
        else:
            _require_same_training(state, trainer, folder)
            problem = _problem(folder, state, trainer)
        if any(trainer.group.largest(float(problem is not None))):
            _log.warning("SVI: %s cannot be used (%s); taking the one before it.", folder, problem or "in another process")
            problems.append(f"{folder.name}: {problem or 'in another process'}")
            continue
        trainer.load_trained_state(read_tensors(folder / "adapters.safetensors")[0])
        restore_optimizer(trainer.optimizer, *read_tensors(folder / "optimizer.safetensors"))
        trainer.step, trainer.start = state["step"], _start_in(state)
        _set_aside(found[: found.index(folder)], trainer)
        return True
    if found:
        raise ValueError(
            f"none of the {len(found)} checkpoints in {run / FOLDER} can be used (the newest, {problems[0]}): bring one back "
            "from a backup, or begin a new run."
        )
    return False


def _set_aside(damaged: Sequence[Path], trainer: Trainer) -> None:
    """Rename unusable checkpoints, so that they do not count as kept ones; the user may inspect and delete them."""
    trainer.group.wait()
    if trainer.group.is_first:
        for folder in damaged:
            names = (f"damaged_{f'{number}_' if number > 1 else ''}{folder.name}" for number in itertools.count(1))
            folder.rename(next(aside for name in names if not (aside := folder.with_name(name)).exists()))
    trainer.group.wait()


def newest_settings(run: Path) -> dict[str, object] | None:
    """Return the settings in the newest checkpoint of `run` that holds any, as a table; None if none does."""
    found = (state["settings"] for state in _readable_states(run) if isinstance(state.get("settings"), dict))
    return next(found, None)


def newest_start(run: Path) -> StartRecord | None:
    """Return what the run in `run` began from, as its newest readable checkpoint says; None for a fresh LoRA."""
    return next((_start_in(state) for state in _readable_states(run)), None)


def checkpoint_bytes(trainer: Trainer) -> int:
    """Return the approximate size of a checkpoint with its LoRA file and all banks in RAM. All processes call it."""
    trained = 4 * trainer.num_parameters
    moments = sum(
        value.numel() * value.element_size()
        for values in trainer.optimizer.state.values()
        for value in values.values()
        if isinstance(value, Tensor)
    )
    return 2 * trained + (moments or 2 * trained) + int(trainer.group.total(trainer.banks.snapshot_bytes())[0])


def training_identity(trainer: Trainer) -> dict[str, object]:
    """Return what must be equal in a checkpoint and in the training run that resumes from it."""
    speech = trainer.backbone.speech
    return {
        "base model (model.path)": trainer.backbone.fingerprint,
        "examples (cache)": trainer.data.content_hash,
        "number of processes": trainer.group.size,
        "LoRA layers": list(trainer.lora.pairs),
        "lora.rank": trainer.lora.rank,
        "lora.alpha": trainer.lora.alpha,
        "weights": str(next(trainer.backbone.transformer.blocks[0].self_attn.q.parameters()).dtype),
        "compute dtype": str(trainer.backbone.compute_dtype),
        **({"audio layers (model.audio_patch)": speech.fingerprint} if speech else {}),
        **({"image errors (bank.image_errors_from)": trainer.image_errors.content_hash} if trainer.image_errors else {}),
    }


def _write_state(folder: Path, trainer: Trainer) -> None:
    files = {path.name: file_sha256(path) for path in sorted(folder.iterdir())}
    settings = config_table(trainer.config)
    state = {"step": trainer.step, "identity": training_identity(trainer), "settings": settings, "files": files}
    if trainer.start:
        state["start"] = asdict(trainer.start)
    write_sealed(folder / "state.json", state)


def _start_in(state: Mapping) -> StartRecord | None:
    return StartRecord(**state["start"]) if "start" in state else None


def _readable_states(run: Path) -> Iterator[dict]:
    """Yield the state of each checkpoint of `run` that can be read, the newest first."""
    for folder in checkpoints(run):
        try:
            yield read_state(folder)
        except (OSError, ValueError):
            continue


def read_state(folder: Path) -> dict:
    """Return the state.json of the checkpoint `folder`.

    Raises:
        ValueError: it is damaged, or belongs to another folder.
        OSError: it cannot be read.
    """
    state = read_sealed(folder / "state.json")
    if not isinstance(state.get("identity"), dict) or not isinstance(state.get("files"), dict):
        raise ValueError("it lacks identity or files")
    if folder.name != f"step_{state.get('step')!s:0>8}":  # checkpoints of earlier versions have no checksum
        raise ValueError(f"it is that of step {state.get('step')}")
    return state


def _problem(folder: Path, state: Mapping, trainer: Trainer) -> str | None:
    """Restore the banks from the checkpoint `folder`; return why this process cannot use it, or None.

    The first process checks every file, the others what they read.
    """
    own = f"bank_{trainer.group.rank}.safetensors"
    names = state["files"] if trainer.group.is_first else (own, "adapters.safetensors", "optimizer.safetensors")
    try:
        for name in names:
            if file_sha256(folder / name) != state["files"].get(name):
                return f"{name} is damaged"
        trainer.banks.restore(read_tensors(folder / own)[0])
    except (OSError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return None


def _require_same_training(state: Mapping, trainer: Trainer, folder: Path) -> None:
    own = training_identity(trainer)
    differing = [name for name in own if own[name] != state["identity"].get(name)]
    if differing:
        changes = "; ".join(f"{name}: {_short(state['identity'].get(name))} -> {_short(own[name])}" for name in differing)
        raise ValueError(
            f"{folder} belongs to another training run ({changes}): resume with what it was begun with, or begin a new run."
        )


def _short(value: object) -> str:
    return f"{len(value)} items" if isinstance(value, list) else str(value)[:20]


def require_disk_space(trainer: Trainer, run: Path) -> None:
    """Refuse to begin a checkpoint that does not fit on the disk. All processes call it, and all refuse together.

    Raises:
        OSError: the disk is too small; the message names the needed and the free space.
    """
    needed, free = checkpoint_bytes(trainer) + DISK_RESERVE_BYTES, shutil.disk_usage(run).free
    if any(trainer.group.largest(needed > free)):
        raise OSError(
            f"a checkpoint takes about {needed / 2**30:.2f} GiB in {run}, but only {free / 2**30:.2f} GiB are free: free space "
            "and resume. Earlier checkpoints are untouched."
        )
