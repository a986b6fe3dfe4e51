"""How one clip looks beside others: its drift from the first clip and the jump at its seam, by the measures of `drift`."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from .drift import FROZEN_DIFFERENCE, SEAM_JUMP, SEAM_NEIGHBOURS
from .frame_measures import measure_frames

MAX_WIDTH = 256  # px: thumbnails and mean colours need no more
COLOUR_LIMIT, COLOUR_SHOWN = 0.1, 0.05  # distance from the first clip's colours
SEAM_SHOWN = 1.5  # in multiples of the motion around; real clips stay below 1.2
STILL_LIMIT = 0.9  # share of equal neighbouring frames
_CHUNK = 16  # frames that are measured at once
_CHANGES = (("brighter", "darker"), ("more saturated", "less saturated"), ("redder", "less red"), ("bluer", "less blue"))


@dataclass(frozen=True)
class ClipLook:
    """The measures of one clip.

    Attributes:
        colour: [4], medians of brightness, saturation, and of red and blue minus luma, as in drift.ClipMeasure.
        frozen: share of equal neighbouring frames.
        first: [n, 16, 16, 3], thumbnails of its first frames.
        last: [n, 16, 16, 3], of its last frames.
    """

    colour: np.ndarray
    frozen: float
    first: np.ndarray
    last: np.ndarray


@dataclass(frozen=True)
class Badge:
    """One finding about a clip.

    Attributes:
        kind: "colour", "seam" or "still".
        value: of the measure.
        text: in two words.
        title: as a sentence.
        severe: beyond its limit.
    """

    kind: str
    value: float
    text: str
    title: str
    severe: bool


def look_of(frames: Iterable[np.ndarray]) -> ClipLook:
    """Return the measures of a clip of `frames` [H, W, 3] uint8.

    Raises:
        ValueError: no frame.
    """
    rows, thumbnails = list[np.ndarray](), list[np.ndarray]()
    frames = iter(frames)
    while chunk := list(islice(frames, _CHUNK)):
        step = max(1, -(-chunk[0].shape[1] // MAX_WIDTH))
        measures = measure_frames(np.stack([frame[::step, ::step] for frame in chunk]))
        rows.append(measures.rows)
        thumbnails.append(measures.thumbnails)
    if not rows:
        raise ValueError("the clip has no frame.")
    brightness, _, saturation, _, red, blue, *_ = np.median(np.concatenate(rows), axis=0)
    boxes = np.concatenate(thumbnails)
    changes = _changes(boxes)
    frozen = float(np.mean(changes < FROZEN_DIFFERENCE)) if len(changes) else 0.0
    near = SEAM_NEIGHBOURS + 1
    return ClipLook(np.array([brightness, saturation, red, blue]), frozen, boxes[:near], boxes[-near:])


def badges(clip: ClipLook, first: ClipLook | None = None, before: ClipLook | None = None) -> Iterator[Badge]:
    """Yield what is worth a look in a clip.

    Args:
        first: the first clip of the video, if this is another.
        before: the clip before, if this clip continues it.
    """
    if first is not None:
        distance = float(np.linalg.norm(clip.colour - first.colour))
        if distance > COLOUR_SHOWN:
            title = (
                f"Its colours are {distance:.2f} away from the first clip's; above all it is {_largest_change(clip, first)}."
            )
            yield Badge("colour", distance, f"colour {distance:.2f}", title, distance > COLOUR_LIMIT)
    if before is not None and (jump := seam_jump(before, clip)) > SEAM_SHOWN:
        title = f"It begins with a change of {jump:.1f} times the motion around it."
        yield Badge("seam", jump, f"seam {jump:.1f}", title, jump > SEAM_JUMP)
    if clip.frozen > STILL_LIMIT:
        yield Badge("still", clip.frozen, "stands still", "Nearly all its frames are equal.", True)


def seam_jump(before: ClipLook, clip: ClipLook) -> float:
    """Return the change from the clip before, in multiples of the changes around it, as drift.ClipMeasure.seam."""
    around = [*_changes(before.last), *_changes(clip.first)]
    change = float(np.abs(clip.first[0] - before.last[-1]).mean())
    return change / max(float(np.median(around)), 1e-6) if around else 0.0


def _changes(boxes: np.ndarray) -> np.ndarray:
    return np.abs(np.diff(boxes, axis=0)).mean(axis=(1, 2, 3))


def _largest_change(clip: ClipLook, first: ClipLook) -> str:
    """Return the word for what of a clip's colours differs most from the first clip's."""
    change = clip.colour - first.colour
    part = int(np.abs(change).argmax())
    return _CHANGES[part][int(change[part] < 0)]
