"""What runs took, kept in ComfyUI's user folder for the plans of later runs."""

import logging
from collections.abc import Iterable
from pathlib import Path

import folder_paths

from ...svi_core.store.clip_times import ClipTime, measured_time, read_times, remember_times
from ...svi_core.store.records import ShownClip
from ...svi_core.store.run_store import RunStore
from .queued_graph import QueuedGraph, checkpoint_names


def earlier_times() -> list[ClipTime]:
    """Return what earlier runs took."""
    return read_times(_book())


def note_run(hidden, store: RunStore, clips: Iterable[ShownClip]) -> None:
    """Remember what the clips of a finished run took, for the models that its graph names.

    A file that cannot be written is told in the log: the run itself has succeeded.
    """
    names = checkpoint_names(QueuedGraph(hidden.prompt or {}), hidden.unique_id)
    if not names or None in names:
        return
    records = (store.record(clip.key) for clip in clips)
    times = [measured_time(record.measures, names) for record in records if record is not None]
    try:
        remember_times(_book(), [time for time in times if time is not None])
    except OSError as error:
        logging.warning("SVI: what this run took could not be noted (%s); the next plan knows less.", error)


def _book() -> Path:
    return Path(folder_paths.get_system_user_directory("svi")) / "run_times.json"
