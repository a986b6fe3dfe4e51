"""Find the folder of a run whose name holds the time: a run that began yesterday goes on in yesterday's folder."""

import time
from pathlib import Path

from ..files.name_pattern import at_time, folders_at_any_time, names_time
from ..files.output_folder import run_folder
from .records import MANIFEST


def choose_run_folder(output_root: Path, prefix: str, plan_key: str, now: time.struct_time) -> Path:
    """Return the folder of a run, without creating it.

    If `prefix` names the time, it is the folder of an earlier time that holds the run's first clip (the one used last, if there
    are several), or else the folder of `now`.

    Args:
        prefix: with patterns for the time only.
        plan_key: of the run's first clip, see ClipPlan.plan_key; empty: begin a folder.

    Raises:
        ValueError: see :func:`run_folder`.
    """
    folder = run_folder(output_root, at_time(prefix, now))
    if not plan_key or not names_time(prefix):
        return folder
    used = {found: _last_use(found, plan_key) for found in _run_folders(output_root, prefix)}
    began = {found: moment for found, moment in used.items() if moment is not None}
    return max(began, key=lambda found: began[found]) if began else folder


def newest_run_folder(output_root: Path, prefix: str, now: time.struct_time) -> Path:
    """Return the folder in which a video was last made under `prefix`; that of `now` if there is none.

    Raises:
        ValueError: see :func:`run_folder`.
    """
    folder = run_folder(output_root, at_time(prefix, now))
    made = [found for found in _run_folders(output_root, prefix) if (found / MANIFEST).is_file()] if names_time(prefix) else []
    return max(made, key=lambda found: (found / MANIFEST).stat().st_mtime_ns, default=folder)


def _run_folders(output_root: Path, prefix: str) -> list[Path]:
    """Return the folders that `prefix` has meant and that lie inside `output_root`."""
    root = output_root.resolve()
    return [found for found in folders_at_any_time(output_root, prefix) if found.resolve().is_relative_to(root)]


def _last_use(folder: Path, plan_key: str) -> int | None:
    """Return when the clip of `plan_key` was last used in a run folder; None if it is not stored there."""
    moments = []
    for path in (folder / "clips").glob("*.safetensors"):
        try:
            if plan_key.encode() in path.with_suffix(".json").read_bytes():
                moments.append(path.stat().st_mtime_ns)
        except OSError:  # no record, or just removed
            continue
    return max(moments, default=None)
