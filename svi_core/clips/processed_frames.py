"""Finished clips pass a stage (upscale, interpolate, correct), and its frames become a video of their own, clip by clip.

    <run>/clips/<key>-processed-<hash>.mp4   what the stage made of the frames that clip <key> adds to the video
    <run>/processed.mp4                      the join of these so far; processed-<name>.mp4 once it is finished

The hash names all that determines the frames: the clip's own, the stage, the coding. So a stopped run goes on after its last
processed clip, and a changed stage never mixes old frames with new ones.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from ..files.checked_file import is_unchanged, write_hash
from ..files.fingerprint import fingerprint
from ..store.run_store import RunStore
from ..video.stage_frames import ProcessedPart, StageFrames, place_frames
from ..video.video_file import Sound, VideoCoding, join_videos, read_frames, to_uint8, write_video
from .growing_file import is_due, removing, timed_join
from .growing_video import has_rest
from .step_by_step import RunState
from .video_settings import LastClip

_GROWING = "processed.mp4"
_CHUNK = 8  # frames that are converted at once


@dataclass(frozen=True)
class Stage:
    """What makes processed frames of a clip's frames.

    Attributes:
        key: a hash of its nodes and their settings.
        coding: of the processed video; the frame rate is that of the run times the frames for each frame.
    """

    key: str
    coding: VideoCoding


def frames_of_clip(state: RunState, num_context: int) -> tuple[RunState, torch.Tensor]:
    """Return the frames [T, H, W, 3] in [0, 1] that the last clip of `state` adds to the video, after some before them.

    Args:
        num_context: frames of the clip before that come first; fewer if it has fewer, none after a cut. The new state
            remembers how many they are.

    Raises:
        ValueError: no clip yet.
        OSError: a file cannot be read.
    """
    _require_clip(state)
    before = _segment_before(state) if num_context else None
    context = [] if before is None else _last_frames(before, num_context, state.settings.coding.frame_rate)
    own = read_frames(state.segments[-1])
    first = next(own)
    frames = torch.empty(len(context) + state.clips[-1].num_frames, *first.shape)
    for place, frame in zip(frames, itertools.chain(context, [first], own), strict=True):
        place.copy_(torch.tensor(frame)).div_(255.0)
    return replace(state, num_context=len(context)), frames


def is_processed(state: RunState, stage: Stage) -> bool:
    """Whether the frames that `stage` makes of the last clip of `state` are on disk, whole and recorded.

    Raises:
        ValueError: as :func:`add_processed`.
    """
    last = _require_clip(state)
    if _was_written(state, stage):
        return True
    with RunStore(state.folder) as store:
        return store.segment(last.clip.key, _part_name(state, stage)) is not None


def add_processed(
    state: RunState, stage: Stage, images: torch.Tensor | None, check: Callable[[], object] = lambda: None
) -> RunState:
    """Write what `stage` made of the last clip of `state`, unless it is on disk, and refresh the processed video.

    A state whose clip was written already is returned as it is, as is one of a video of final length.

    Args:
        images: [T, H, W, C] in [0, 1]; None if :func:`is_processed`.
        check: called now and then while frames are written; may raise.

    Raises:
        ValueError: no clip yet; a clip before was not processed, or this one by another stage; frames that do not fit.
        OSError: a file cannot be written; nothing half-written stays.
    """
    last = _require_clip(state)
    if _was_written(state, stage):
        return state
    with RunStore(state.folder) as store:
        key, name = last.clip.key, _part_name(state, stage)
        facts, path = store.segment(key, name), store.segment_path(key, name)
        if facts is not None:
            part = ProcessedPart(
                path, facts["num_frames"], facts["multiple"], facts["width"], facts["height"], stage.coding.tag
            )
            _require_joins(state, part)
            return replace(state, processed=(*state.processed, part))
        assert images is not None, name
        part = _write_part(store, state, stage, path, images, check)
        return _refreshed(store, replace(state, processed=(*state.processed, part)))


def finish_processed(state: RunState) -> Path:
    """Join what a stage made of all clips of `state` into a finished video and return its path.

    Raises:
        ValueError: no frames, or not those of all clips, or not all of the last one.
        OSError: the video could not be written.
    """
    last = _require_clip(state)
    if len(state.processed) < state.num_clips:
        raise ValueError(
            f"{len(state.processed)} of {state.num_clips} clips passed SVI Write Frames: link its state to the next node, for "
            "every clip."
        )
    if not state.is_full and has_rest(state.clips[-1], last):
        raise ValueError(
            f"the end of clip {state.num_clips} was not processed, since another clip could have followed: switch is_last on "
            "for the last SVI Next Clip, or link is_last of Start Loop to it."
        )
    final = state.folder / state.settings.finished_name("processed", [part.path for part in state.processed])
    with RunStore(state.folder) as store:
        if not is_unchanged(final):
            _join(store, state, final)
            write_hash(final)
        growing = store.folder / _GROWING
        with removing(growing, final):
            growing.unlink(missing_ok=True)
    return final


def _require_clip(state: RunState) -> LastClip:
    if state.last is None:
        raise ValueError("the run has no clip yet: put SVI Next Clip before this node.")
    return state.last


def _was_written(state: RunState, stage: Stage) -> bool:
    """Return whether the last clip is among the processed ones: the video has its final length, or a node works a second time.

    Raises:
        ValueError: a clip before was not processed, or this one by another stage; another coding than that of the clips before.
    """
    num_missing = state.num_clips - len(state.processed)
    if num_missing > 1:
        raise ValueError(
            f"clip {state.num_clips - 1} did not pass SVI Write Frames, but clip {state.num_clips} does: every clip must."
        )
    if num_missing == 0 and not state.is_full and not state.processed[-1].path.stem.endswith(_part_name(state, stage)):
        raise ValueError(
            f"clip {state.num_clips} passed SVI Write Frames twice, with two stages: use one of these nodes, after all stages."
        )
    before = state.processed[-1].coding if state.processed else stage.coding.tag
    if num_missing == 1 and before != stage.coding.tag:
        raise ValueError(
            f"output of SVI Write Frames is {stage.coding.tag} for clip {state.num_clips}, but {before} for the clips before: "
            "link the same SVI Output to every SVI Write Frames."
        )
    return num_missing == 0


def _part_name(state: RunState, stage: Stage) -> str:
    """Return the name of a segment: a hash of the frames that the stage gets, of the stage, and of the coding."""
    given = state.segments[-1].name, state.num_context, state.segments[-2].name if state.num_context else ""
    return f"processed-{fingerprint(given, stage.key, stage.coding.tag)[:24]}"


def _segment_before(state: RunState) -> Path | None:
    """Return the file whose end the last clip continues; None if there is none, and after a cut."""
    starts_anew = state.last is None or state.last.clip.request.starts_anew
    return state.segments[-2] if len(state.segments) > 1 and not starts_anew else None


def _last_frames(path: Path, num_frames: int, frame_rate: float) -> list[np.ndarray]:
    return list(deque(read_frames(path, last_seconds=num_frames / frame_rate + 1.0), num_frames))


def _write_part(
    store: RunStore, state: RunState, stage: Stage, path: Path, images: torch.Tensor, check: Callable[[], object]
) -> ProcessedPart:
    last = _require_clip(state)
    if images.ndim != 4 or images.shape[3] not in (3, 4):
        raise ValueError(f"images has shape {list(images.shape)}: pass on colour frames [frames, height, width, 3].")
    height, width = images.shape[1:3]
    if (height % 2 or width % 2) and stage.coding.pixel_format != "yuv444p":
        raise ValueError(
            f"images has {width} x {height} pixels, but {stage.coding.pixel_format} takes even sizes only: scale to an even "
            "size, or choose yuv444p in SVI Output."
        )
    before = state.processed[-1].multiple if state.processed else None
    num_new, after_cut = state.clips[-1].num_frames, last.clip.request.starts_anew
    placed = place_frames(len(images), num_new, state.num_context, before, after_cut)
    num_frames = placed.num_repeated + len(images) - placed.num_dropped
    part = ProcessedPart(path, num_frames, placed.multiple, width, height, stage.coding.tag)
    _require_joins(state, part)
    coding = replace(stage.coding, frame_rate=state.settings.coding.frame_rate * placed.multiple)
    written = write_video(path, _chunks(images, placed, check), coding)
    facts = {"multiple": placed.multiple, "width": width, "height": height}
    name = path.stem.removeprefix(f"{last.clip.key}-")
    store.add_segment(last.clip.key, name, written.num_frames, written.sha256, {}, facts)
    return part


def _require_joins(state: RunState, part: ProcessedPart) -> None:
    if state.processed:
        part.require_joins(state.processed[-1])


def _chunks(images: torch.Tensor, placed: StageFrames, check: Callable[[], object]) -> Iterator[np.ndarray]:
    """Yield the frames of a part in chunks [t, H, W, 3] uint8."""
    own = images[placed.num_dropped :, ..., :3]
    for _ in range(placed.num_repeated):
        yield to_uint8(own[:1])
    for start in range(0, len(own), _CHUNK):
        check()
        yield to_uint8(own[start : start + _CHUNK])


def _refreshed(store: RunStore, state: RunState) -> RunState:
    """Join the parts so far into the growing file, unless that takes too much of the time."""
    if not is_due(state.processed_join_seconds, state.started):
        return state
    seconds = timed_join(lambda: _join(store, state, store.folder / _GROWING), "the growing processed video")
    return replace(state, processed_join_seconds=state.processed_join_seconds + seconds)


def _join(store: RunStore, state: RunState, path: Path) -> None:
    num_frames = sum(part.num_frames for part in state.processed)
    sound: Sound | None = None
    if state.settings.sound is not None:
        seconds = num_frames / (state.settings.coding.frame_rate * state.processed[0].multiple)
        sound = state.settings.sound.kept_in(store.folder)
        sound = replace(sound, seconds=min(sound.seconds, seconds))
    join_videos(path, [part.path for part in state.processed], num_frames, state.settings.metadata, sound)
