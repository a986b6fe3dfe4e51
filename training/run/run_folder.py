"""The folder of a training run: its lock, its settings, and its measurements.

<run>/config.json      all settings
      metrics.jsonl    one JSON object per line: steps, validations, banks, samples; each with a checksum, as config.json
      checkpoints/     see `checkpoint`
      <name>.safetensors   the LoRA, as of the last checkpoint
      loras/           LoRA files that are never removed
      samples/  report.html
      stop             create it to make the training run save and end, see `stop_signal`
      set_aside/       damaged files, never trusted and never deleted
"""

import json
import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from svi_core.files.atomic_file import remove_stale_staging, write_bytes
from svi_core.files.checked_file import set_aside
from svi_core.files.folder_lock import lock_folder
from svi_core.files.sealed_json import read_sealed, sealed, unsealed, write_sealed
from training.method.distributed import Group
from training.run.checkpoint import checkpoints, newest_settings
from training.run.stop_signal import FILE_NAME
from training.settings.reader import config_differences, config_from, config_table, merged_table
from training.settings.sections import Schedule, TrainingConfig

_MAY_CHANGE = ("run:", "name:", "memory.", "validation.", "samples.", "diagnosis.", "optimizer.learning_rate:", "data.exclude:")
_log = logging.getLogger(__name__)
_MAY_CHANGE_IN_LOOP = ("loop.checkpoint_every:", "loop.keep_", "loop.steps:", "loop.epochs:")


class RunFolder:
    """An open run folder. Only the first process locks it and writes."""

    def __init__(self, path: Path, group: Group):
        """Open `path`; create it if it does not exist.

        Raises:
            ValueError: another process uses it.
            OSError: it cannot be created.
        """
        self.path, self._group = path, group
        path.mkdir(parents=True, exist_ok=True)
        if not group.is_first:
            return
        in_use = f"{path} is in use by another training run: stop that one, or choose another run folder."
        self._lock = lock_folder(path, in_use)
        remove_stale_staging(path)
        remove_stale_staging(path / "loras")
        (path / FILE_NAME).unlink(missing_ok=True)  # of an earlier run

    @property
    def metrics(self) -> Path:
        """The file of measurements."""
        return self.path / "metrics.jsonl"

    def begin(self, config: TrainingConfig) -> None:
        """Begin a training run: write its settings, and remove what an attempt without a checkpoint left.

        Raises:
            ValueError: the folder holds a run with checkpoints.
        """
        self.require_empty()
        if not self._group.is_first:
            return
        self.metrics.unlink(missing_ok=True)
        shutil.rmtree(self.path / "bank", ignore_errors=True)  # also banks of sizes that this run does not train on
        self.keep_settings(config)

    def require_empty(self) -> None:
        """Refuse to begin in the folder of another run. Also called before the model is loaded, which takes minutes.

        Raises:
            ValueError: the folder holds a run with checkpoints.
        """
        if checkpoints(self.path):
            raise ValueError(f"{self.path} holds a run already: go on with --resume {self.path}, or choose another run folder.")

    def go_on(self, config: TrainingConfig, step: int) -> None:
        """Write the settings that the run resumes with after `step`, and record which of them changed."""
        if not self._group.is_first:
            return
        self.go_back_to(step)
        changes = config_differences(begun_config(self.path), config)
        if changes:
            self.record("changed", step, settings=changes)
        self.keep_settings(config)

    def keep_settings(self, config: TrainingConfig) -> None:
        """Write the settings of the run; a damaged file of them is set aside."""
        if not self._group.is_first:
            return
        path = self.path / "config.json"
        try:
            _read_config(path)
        except FileNotFoundError:
            pass
        except ValueError as error:
            set_aside(path, error)
        write_sealed(path, config_table(config))

    def record(self, kind: str, step: int, **values: object) -> None:
        """Append one measurement."""
        if self._group.is_first:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps(sealed({"kind": kind, "step": step, **values})) + "\n")

    def go_back_to(self, step: int) -> None:
        """Remove measurements of later steps, which will be repeated, and the line that a killed process left incomplete.

        If other lines are damaged, or the file is cut off before `step`, it is set aside as it was, and the sound lines stay.
        """
        if not self._group.is_first or not self.metrics.exists():
            return
        *lines, last = self.metrics.read_bytes().split(b"\n")
        found = [(line, entry) for line in (*lines, last) if (entry := parsed_line(line))]
        steps = {entry["step"] for _, entry in found if entry["kind"] == "step"}
        is_cut_off = (
            bool(last) and max(steps, default=0) < step
        )  # a kill leaves a line incomplete behind those of its checkpoint
        num_damaged = sum(parsed_line(line) is None for line in lines) + is_cut_off
        if num_damaged:
            num_lost = len(set(range(1, step + 1)) - steps)
            set_aside(self.metrics, f"{num_damaged} damaged lines, measurements of {num_lost} of {step} steps are lost")
        write_bytes(self.metrics, b"".join(line + b"\n" for line, entry in found if entry["step"] <= step))

    def measurements(self) -> list[dict]:
        """Return all measurements."""
        return list(read_measurements(self.metrics)) if self.metrics.exists() else []

    def close(self) -> None:
        """Release the lock."""
        if self._group.is_first:
            self._lock.release()


def resumed_config(run: Path, paths: Sequence[Path] = (), overrides: Sequence[str] = ()) -> TrainingConfig:
    """Return the settings with which the run in `run` resumes.

    Args:
        run: its folder.
        paths: files of --config, which override settings of the run.
        overrides: ``section.key=value``, for settings that may change: duration, intervals, samples, memory, and what helps a
            run that diverged: the learning rate, and excluded clips.

    Raises:
        ValueError: there is no run, or settings differ that must not change; the message names each.
    """
    begun = begun_config(run)
    table = merged_table(config_table(begun), paths, overrides)
    if table["preset"] != begun.preset:  # the settings already contain the preset's values
        raise ValueError(
            f"--resume {run}: the run has preset {begun.preset!r}, not {table['preset']!r}. Begin a new run for it."
        )
    wanted = replace(config_from(table), run=str(run))
    if wanted.lora.rank == 0:  # those of the LoRA that it began from
        wanted = replace(wanted, lora=replace(wanted.lora, rank=begun.lora.rank, alpha=begun.lora.alpha))
    allowed = _MAY_CHANGE + (_MAY_CHANGE_IN_LOOP if begun.optimizer.schedule is Schedule.CONSTANT else _MAY_CHANGE_IN_LOOP[:2])
    refused = [line for line in config_differences(begun, wanted) if not line.startswith(allowed)]
    if refused:
        raise ValueError(
            f"--resume {run}: these settings differ from what the run was begun with, and would make it another training run: "
            f"{'; '.join(refused)}. Leave them, or begin a new run."
        )
    return wanted


def begun_config(run: Path) -> TrainingConfig:
    """Return the latest settings of the run in `run`.

    Raises:
        ValueError: there is no run, or its settings cannot be read.
    """
    path = run / "config.json"
    try:
        return _read_config(path)
    except OSError as error:
        problem, refusal = error, f"{run} holds no run ({path.name}: {error.strerror}): begin one with --config."
    except ValueError as error:
        problem, refusal = (
            error,
            f"{path} cannot be read as settings ({error}): bring it back from a backup, or begin a new run.",
        )
    kept = newest_settings(run)
    if kept is None:
        raise ValueError(refusal) from problem
    _log.warning(
        "SVI: %s cannot be trusted (%s); taking the settings of the newest checkpoint. To change settings, resume with "
        "section.key=value on the command line.",
        path,
        problem,
    )
    return config_from(kept)


def read_measurements(path: Path) -> Iterator[dict]:
    """Yield the measurements in the file `path`, without damaged lines."""
    yield from (entry for line in path.read_bytes().split(b"\n") if (entry := parsed_line(line)) is not None)


def parsed_line(line: bytes) -> dict | None:
    """Return the measurement in a line of metrics.jsonl, or None for an incomplete or damaged one."""
    try:
        entry = unsealed(line)
    except ValueError:
        return None
    return entry if isinstance(entry.get("step"), int) and isinstance(entry.get("kind"), str) else None


def _read_config(path: Path) -> TrainingConfig:
    """Return the settings in the file `path`; raise ValueError if it is damaged."""
    return config_from(read_sealed(path))
