"""The folder of a training run: its lock, its settings, and its measurements.

<run>/config.json      all settings
      metrics.jsonl    one JSON object per line: steps, validations, banks, samples
      checkpoints/     see `checkpoint`
      <name>.safetensors   the LoRA, as of the last checkpoint
      loras/           LoRA files that are never removed
      samples/  report.html
      stop             create it to make the training run save and end, see `stop_signal`
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from svi_core.files.atomic_file import remove_stale_staging, write_bytes
from svi_core.files.folder_lock import lock_folder
from svi_core.files.text_file import decode_text
from training.method.distributed import Group
from training.run.checkpoint import checkpoints
from training.run.stop_signal import FILE_NAME
from training.settings.reader import config_differences, config_from, config_table, merged_table
from training.settings.sections import Schedule, TrainingConfig

_MAY_CHANGE = ("run:", "name:", "memory.", "validation.", "samples.", "optimizer.learning_rate:", "data.exclude:")
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
        """Write the settings of the run."""
        if self._group.is_first:
            write_bytes(self.path / "config.json", json.dumps(config_table(config), indent=1).encode())

    def record(self, kind: str, step: int, **values: object) -> None:
        """Append one measurement."""
        if self._group.is_first:
            with self.metrics.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"kind": kind, "step": step, **values}) + "\n")

    def go_back_to(self, step: int) -> None:
        """Remove measurements of later steps, which will be repeated, and an incomplete line."""
        if not self._group.is_first or not self.metrics.exists():
            return
        lines = self.metrics.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if (entry := parsed_line(line)) is not None and entry["step"] <= step]
        write_bytes(self.metrics, "".join(line + "\n" for line in kept).encode())

    def measurements(self) -> list[dict]:
        """Return all measurements."""
        if not self.metrics.exists():
            return []
        lines = self.metrics.read_text(encoding="utf-8").splitlines()
        return [entry for entry in map(parsed_line, lines) if entry is not None]

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
        return config_from(json.loads(decode_text(path.read_bytes(), "it")))
    except OSError as error:
        raise ValueError(
            f"--resume {run}: there is no run ({path.name}: {error.strerror}). Begin one with --config."
        ) from error
    except ValueError as error:
        raise ValueError(f"{path} cannot be read as settings ({error}): fix it, or begin a new run.") from error


def parsed_line(line: str) -> dict | None:
    """Return the measurement in a line of metrics.jsonl, or None for an incomplete one."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return None
    return entry if isinstance(entry, dict) and "step" in entry else None
