"""Scan a clip once: its length, and the frames that must not become anchors.

Stock footage often begins with black frames or a still title. A model that is conditioned on them learns to begin clips in
black. So the scan finds plain frames (of one colour) and frozen starts, and examples are not conditioned on them.
Source: docs/METHOD.md, 9.3: two of the four clips that the project measures with begin with a black frame.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from training.data.video_reading import read_ticks

SCAN_VERSION = 1  # part of the name of a stored scan: increase it when a scan's values change
_THUMBNAIL_SIDE = 32
_PLAIN_SPREAD = 4.0  # grey levels: standard deviation of a thumbnail below which a frame is plain
_FROZEN_CHANGE = 0.02  # grey levels: mean change below which two thumbnails are the same; slow real shots have 0.1
_FROZEN_RUN = 8  # minimum frames of a still start; shorter runs come from resampling clips of a low rate
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class ClipScan:
    """The scan of a clip at the frame rate of the examples.

    Attributes:
        num_frames: frames of the whole clip.
        width: width of the picture as shown, in pixels.
        height: height of the picture as shown, in pixels.
        lead_in: number of plain or frozen frames at the start, which are not used.
        plain: numbers of all frames of one colour, ascending.
    """

    num_frames: int
    width: int
    height: int
    lead_in: int
    plain: tuple[int, ...]


def scan_clip(path: Path, rate: float) -> ClipScan:
    """Scan the clip at `rate` frames per second.

    Raises:
        ValueError: the video cannot be read to its end, or nothing moves in it; the message is the reason.
    """
    spreads, changes = [], []
    size, before, seen = (0, 0), None, None
    for _, frame in read_ticks(path, rate):
        if frame is not seen:
            luma = frame.to_thumbnail(_THUMBNAIL_SIDE).astype(np.float32) @ _LUMA
        spreads.append(float(luma.std()))
        changes.append(float("inf") if before is None else float(np.abs(luma - before).mean()))
        size, before, seen = frame.size, luma, frame
    plain = [spread < _PLAIN_SPREAD for spread in spreads]
    frozen = [change < _FROZEN_CHANGE for change in changes]
    if len(spreads) < 2:
        raise ValueError("holds a single picture, not a video")
    if all(plain):
        raise ValueError("shows nothing but plain frames of one colour")
    if all(frozen[1:]):
        raise ValueError("does not move: all its frames show the same picture")
    ticks = tuple(tick for tick, is_plain in enumerate(plain) if is_plain)
    return ClipScan(len(spreads), *size, count_lead_in(plain, frozen), ticks)


def count_lead_in(plain: Sequence[bool], frozen: Sequence[bool]) -> int:
    """Return the number of frames at the start that are plain, or that precede the last frame of a still picture.

    Args:
        plain: whether each frame has one colour.
        frozen: whether each frame shows the same as the frame before.
    """
    start, length = 0, len(plain)
    while start < length:
        last = start
        while last + 1 < length and frozen[last + 1]:
            last += 1
        was_still = last + 1 - start >= _FROZEN_RUN
        if was_still:
            start = last
        if not plain[start] and not (was_still and start + 1 < length and plain[start + 1]):
            return start
        start += 1
    return length
