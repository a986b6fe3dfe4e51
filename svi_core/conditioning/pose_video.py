"""Pose videos for SVI-Dance: which frames a clip shows, fitted to the size of the video.

A video of varying rate gives what is on screen at each tick of its average rate, so that the dance keeps its speed. A file is
decoded again for each clip, so it is never in memory as a whole. Every frame has a digest, which enters the clip's key and
identifies the frame after a seek.

Source: docs/METHOD.md, 8.1 and 8.4. Departs from the released code at the first seam, where that shows pose frame 80 twice.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch

from ..video.shown_frames import ShownFrames, require_all_decoded, shown_frames
from ..video.video_file import read_frames, to_uint8

_MARGIN_SECONDS = 2.0  # by which a seek lands before the first frame to read


class WhenPosesEnd(StrEnum):
    """What a clip shows after the end of the pose video."""

    LOOP = "loop"
    STOP = "stop"
    HOLD = "hold last"


class PoseVideo(Protocol):
    """The frames of a pose video.

    Attributes:
        digests: one per frame; equal frames have equal digests.
        frame_rate: frames per second, or None if unknown.
    """

    digests: Sequence[str]
    frame_rate: float | None

    def read(self, indices: Sequence[int], width: int, height: int) -> torch.Tensor:
        """Return the frames `indices` [n, height, width, 3] uint8, fitted by :func:`fit_pose`."""
        ...


def pose_indices(start_frame: int, num_frames: int, num_poses: int, when_poses_end: WhenPosesEnd) -> list[int]:
    """Return the index of the pose for each frame of a clip that begins at `start_frame` of the video.

    Frames before frame 0 (the shared frame of a continued video) get the first pose. STOP repeats the last pose as HOLD
    does; the video ends there, so those frames are never shown.
    """
    frames = [max(0, frame) for frame in range(start_frame, start_frame + num_frames)]
    if when_poses_end is WhenPosesEnd.LOOP:
        return [frame % num_poses for frame in frames]
    return [min(frame, num_poses - 1) for frame in frames]


def num_clips_for(num_poses: int, num_frames: int, overlap: int) -> int:
    """Return how many clips of `num_frames` that share `overlap` frames show `num_poses` poses; at least 1."""
    return max(1, -(-(num_poses - overlap) // (num_frames - overlap)))


def fit_pose(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return `frame` [h, w, 3] scaled by nearest neighbours to fit [height, width, 3], centred on black.

    As in the released code, sizes and sample positions are rounded down, and an odd pixel of padding goes to the right or
    bottom.
    """
    rows, columns = frame.shape[:2]
    if height * columns <= width * rows:
        fitted_height, fitted_width = height, max(1, columns * height // rows)
    else:
        fitted_height, fitted_width = max(1, rows * width // columns), width
    from_rows = np.arange(fitted_height) * rows // fitted_height
    from_columns = np.arange(fitted_width) * columns // fitted_width
    from_bytes = (3 * from_columns[:, None] + np.arange(3)).ravel()  # faster than pixels of three bytes
    top, left = (height - fitted_height) // 2, (width - fitted_width) // 2
    fitted = np.zeros((height, width, 3), np.uint8)
    taken = frame.reshape(rows, -1).take(from_rows, 0).take(from_bytes, 1)
    fitted[top : top + fitted_height, left : left + fitted_width] = taken.reshape(fitted_height, fitted_width, 3)
    return fitted


class ReadAhead:
    """Reads of a pose video, of which the next is made in a thread while the clip before is sampled.

    Args:
        poses: the video.
    """

    def __init__(self, poses: PoseVideo):
        self._poses = poses
        self._thread = ThreadPoolExecutor(1, "svi-poses")
        self._asked: tuple = ()
        self._read: Future[torch.Tensor] = Future()

    def read(self, indices: Sequence[int], following: Sequence[int], width: int, height: int) -> torch.Tensor:
        """Return what `PoseVideo.read` returns for `indices`, and begin to read `following`, probably asked for next."""
        wanted, expected = ((tuple(chosen), width, height) for chosen in (indices, following))
        is_there = self._asked == wanted and self._read.exception() is None  # which waits for it
        poses = self._read.result() if is_there else self._poses.read(indices, width, height)
        if self._asked != expected:  # a model of two experts asks twice for each clip
            self._asked, self._read = expected, self._thread.submit(self._poses.read, following, width, height)
        return poses


@dataclass(frozen=True, eq=False)
class PoseImages:
    """Pose frames in memory.

    Attributes:
        frames: [N, h, w, 3] uint8.
    """

    frames: np.ndarray = field(repr=False)
    digests: tuple[str, ...] = field(repr=False)
    frame_rate: float | None = None

    def read(self, indices: Sequence[int], width: int, height: int) -> torch.Tensor:
        fitted = {index: fit_pose(self.frames[index], width, height) for index in set(indices)}
        return torch.from_numpy(np.stack([fitted[index] for index in indices]))


def pose_images(images: torch.Tensor, frame_rate: float | None = None) -> PoseImages:
    """Return `images` [N, H, W, 3] in [0, 1] as a pose video.

    Raises:
        ValueError: there is no image.
    """
    if len(images) == 0:
        raise ValueError("poses holds no image: connect the frames of a pose video, one pose for each frame.")
    frames = np.concatenate([to_uint8(image[None, ..., :3].clone()) for image in images])
    return PoseImages(frames, tuple(map(_digest, frames)), frame_rate)


@dataclass(frozen=True)
class PoseFile:
    """Pose frames in a video file.

    Attributes:
        path: the file.
        frames: one digest for each frame of the file.
        indices: the frame of the file that each pose is.
        frame_rate: poses per second.
        shown: when the file's frames are shown.
    """

    path: Path
    frames: tuple[str, ...] = field(repr=False)
    indices: Sequence[int] = field(repr=False)
    frame_rate: float
    shown: ShownFrames = field(repr=False)

    @cached_property
    def digests(self) -> Sequence[str]:
        return tuple(self.frames[index] for index in self.indices)

    def read(self, indices: Sequence[int], width: int, height: int) -> torch.Tensor:
        """Return the poses `indices`, decoding each range of the file once; raise OSError if the file has changed."""
        wanted, fitted = [self.indices[index] for index in indices], dict[int, np.ndarray]()
        for part in _ranges(wanted):
            fitted.update(zip(part, self._read_range(part, width, height), strict=True))
        return torch.from_numpy(np.stack([fitted[index] for index in wanted]))

    def _read_range(self, indices: range, width: int, height: int) -> list[np.ndarray]:
        """Return the frames `indices` of the file, after a seek or, failing that, from its beginning."""
        wanted = self.frames[indices.start : indices.stop]
        for last_seconds in (self.shown.end - self.shown.times[indices.start] + _MARGIN_SECONDS, None):
            recent: deque[tuple[str, np.ndarray]] = deque(maxlen=len(wanted))
            with closing(read_frames(self.path, last_seconds)) as frames:
                for frame in frames:
                    recent.append((_digest(frame), fit_pose(frame, width, height)))
                    if recent[-1][0] == wanted[-1] and tuple(digest for digest, _ in recent) == wanted:
                        return [fitted for _, fitted in recent]
        raise OSError(f"{self.path} is not the pose video that it was when the run began: leave it as it is, and run again.")


def pose_file(
    path: Path,
    frame_rate: float,
    start_seconds: float = 0.0,
    seconds: float = 0.0,
    on_frame: Callable[[], object] = lambda: None,
) -> PoseFile:
    """Read the video file `path` once and return it as a pose video.

    Args:
        frame_rate: average frames per second that the file states; poses come at it, unless its frames show that it is wrong.
        start_seconds: start of the part to use.
        seconds: length of that part; 0 for the rest of the file.
        on_frame: called for each frame; may raise to stop.

    Raises:
        OSError: it is not a video that can be read.
        ValueError: the part to use has no frame.
    """
    shown, digests = shown_frames(path), list[str]()
    for frame in read_frames(path):
        on_frame()
        digests.append(_digest(frame))
    require_all_decoded(path, len(digests))
    frame_rate = shown.rate_near(frame_rate)
    indices = shown.at_rate(frame_rate)
    start = _frames_before(start_seconds, frame_rate)
    stop = _frames_before(start_seconds + seconds, frame_rate) if seconds else len(indices)
    if not indices[start:stop]:
        raise ValueError(
            f"poses: {path.name} has {len(indices)} frames, none of them in the part that begins at {start_seconds:g} s: "
            "begin earlier, or use all of it."
        )
    return PoseFile(path, tuple(digests), indices[start:stop], frame_rate, shown)


def _digest(frame: np.ndarray) -> str:
    """Hash a frame's pixels and size."""
    return hashlib.sha256(repr(frame.shape).encode() + np.ascontiguousarray(frame).tobytes()).hexdigest()[:32]


def _frames_before(seconds: float, frame_rate: float) -> int:
    """Return how many frames begin before `seconds`, with a tolerance for rounded decimals."""
    return int(np.ceil(seconds * frame_rate - 1e-3))


def _ranges(indices: Sequence[int]) -> list[range]:
    """Return the ranges of consecutive numbers in `indices`."""
    known = set(indices)
    starts = sorted(index for index in known if index - 1 not in known)
    stops = sorted(index + 1 for index in known if index + 1 not in known)
    return [range(start, stop) for start, stop in zip(starts, stops, strict=True)]
