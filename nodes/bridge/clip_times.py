"""Clip times of earlier runs, kept in ComfyUI's user folder for estimates."""

import logging
from collections.abc import Iterable
from pathlib import Path

import folder_paths

from ...svi_core.store.clip_times import ClipTime, ClipWork, estimate_time, measured_time, read_times, remember_times
from ...svi_core.store.records import ShownClip
from ...svi_core.store.run_store import RunStore
from .queued_graph import QueuedGraph, checkpoint_names


def earlier_times() -> list[ClipTime]:
    """Return the clip times of earlier runs."""
    return read_times(_times_file())


def earlier_seconds(hidden, work: ClipWork) -> float | None:
    """Return how long a clip of `work` took in earlier runs with the models of the queued graph; None if none is known."""
    names = checkpoint_names(QueuedGraph(hidden.prompt or {}), hidden.unique_id)
    estimate = estimate_time(work, [], [time for time in earlier_times() if time.models and time.models == names])
    return estimate and estimate.seconds


def note_run(hidden, store: RunStore, clips: Iterable[ShownClip]) -> None:
    """Save the clip times of a finished run with its model names; a failure is only logged."""
    names = checkpoint_names(QueuedGraph(hidden.prompt or {}), hidden.unique_id)
    if not names or None in names:
        return
    records = (store.record(clip.key) for clip in clips)
    times = [measured_time(record.measures, names) for record in records if record is not None]
    try:
        remember_times(_times_file(), [time for time in times if time is not None])
    except OSError as error:
        logging.warning("SVI: the clip times of this run could not be saved (%s), so later estimates cannot use them.", error)


def _times_file() -> Path:
    return Path(folder_paths.get_system_user_directory("svi")) / "run_times.json"
