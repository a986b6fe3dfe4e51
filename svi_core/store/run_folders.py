"""Find the folder of a run whose name holds the time: a run that began yesterday goes on in yesterday's folder."""

import time
from pathlib import Path

from ..files.name_pattern import at_time, folders_at_any_time, names_time
from ..files.output_folder import run_folder
from .records import MANIFEST


def choose_run_folder(output_root: Path, prefix: str, plan_key: str, now: time.struct_time) -> Path:
    """Return the folder of a run, without creating it.

    If `prefix` names the time, it is the folder of an earlier time that holds the run's first clip (the one in which a video
    was made last, if there are several), or else the folder of `now`.

    Args:
        prefix: with patterns for the time only.
        plan_key: of the run's first clip, see ClipPlan.plan_key; empty: begin a folder.

    Raises:
        ValueError: see :func:`run_folder`.
    """
    folder = run_folder(output_root, at_time(prefix, now))
    if not plan_key or not names_time(prefix):
        return folder
    newest_first = sorted(_run_folders(output_root, prefix), key=_last_use, reverse=True)
    return next((found for found in newest_first if _holds(found, plan_key)), folder)


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


def _last_use(folder: Path) -> int:
    """Return when a run last wrote its manifest in `folder`, or, if none got so far, its last clip; 0 without either."""
    for path in (folder / MANIFEST, folder / "clips"):
        try:
            return path.stat().st_mtime_ns
        except OSError:
            continue
    return 0


def _holds(folder: Path, plan_key: str) -> bool:
    """Whether the clip of `plan_key` is stored in a run folder."""
    for path in (folder / "clips").glob("*.safetensors"):
        try:
            if plan_key.encode() in path.with_suffix(".json").read_bytes():
                return True
        except OSError:  # no record, or just removed
            continue
    return False
