"""A video that is scored, and where its clips begin."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from svi_core.schedule.text import parse_schedule
from svi_core.store.records import read_manifest
from svi_core.systems.layouts import TRAINED_NUM_FRAMES
from svi_core.video.frame_times import count_frames

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".mov", ".avi")


@dataclass(frozen=True)
class Sample:
    """One video.

    Attributes:
        name: of its story.
        video: the file.
        sha256: of the file.
        prompts: one for each clip, or fewer.
        clip_lengths: frames of each clip.
    """

    name: str
    video: Path
    sha256: str
    prompts: tuple[str, ...]
    clip_lengths: tuple[int, ...]


def clip_lengths(video: Path, wanted: int, num_clips: int, graph: Mapping[str, Any]) -> tuple[int, ...]:
    """Return the frames that each clip adds to a video.

    Args:
        video: the file.
        wanted: frames that each clip adds, as the user says; 0 if not said. The first clip is longer: it has the rest.
        num_clips: as the record of its story says; 0 if unknown.
        graph: that made it, in API format; empty if unknown.

    Raises:
        ValueError: nothing tells them.
        OSError: the video cannot be read.
    """
    if wanted == 0:
        clips = read_manifest(video)
        if clips is not None:
            return tuple(clip.num_frames for clip in clips)
    total = count_frames(video)
    if wanted:
        return _split(total, wanted, num_clips)
    if num_clips == 1:
        return (total,)
    if num_clips > 1 and (frames := _frames_of_a_clip(graph)):
        own, remainder = divmod(total - frames, num_clips - 1)  # what each further clip adds
        if remainder == 0 and 0 < own <= frames:
            return (frames, *(own for _ in range(num_clips - 1)))
    raise ValueError("where its clips begin is not known: give --clip-length, the frames that each clip adds")


def _split(total: int, added: int, num_clips: int) -> tuple[int, ...]:
    """Return the lengths of clips of which all but the first add `added` frames; `num_clips` counts if so many fit."""
    if not total:
        return ()
    further = (num_clips or total // added) - 1
    if further < 0 or total - further * added < added:
        further = max(1, total // added) - 1
    return (total - further * added, *(added for _ in range(further)))


def _frames_of_a_clip(graph: Mapping[str, Any]) -> int:
    """Return the frames of a clip by the graph's one SVI Layout, or its default; 0 if clips may differ."""
    layouts = [node["inputs"].get("num_frames") for node in graph.values() if node.get("class_type") == "SVILayout"]
    texts = [node["inputs"].get("text") for node in graph.values() if node.get("class_type") == "SVIPromptStream"]
    if len(layouts) > 1 or any(_changes_lengths(text) for text in texts):
        return 0
    frames = layouts[0] if layouts else TRAINED_NUM_FRAMES
    return frames if isinstance(frames, int) else 0


def _changes_lengths(text: object) -> bool:
    """Whether a prompt stream sets the frames of a clip, or how two join, by an option."""
    if not isinstance(text, str):
        return True
    try:
        specs = [paragraph.spec for paragraph in parse_schedule(text).paragraphs]
    except ValueError:
        return True
    return any(spec.num_frames is not None or spec.num_motion_frames is not None or spec.cut or spec.hold for spec in specs)


def link_or_copy(video: Path, link: Path) -> None:
    """Make `link` a link to `video`, or a copy where links are not allowed: tools of others get names that they can bear."""
    try:
        link.symlink_to(video.absolute())
    except OSError:  # Windows lets not every user make links
        shutil.copyfile(video, link)
