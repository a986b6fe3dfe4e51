"""Measure on its frames whether a long video drifts, jumps at its seams, or stands still; no network needed.

Numbers are per clip and relative to the first clip, so they need no reference. A video that is static, repeated, reversed or
has doubled frames at its seams is INVALID, because it would win on most quality measures (paper, Table 5: a copied frame beats
SVI on five of six).
"""

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from .frame_measures import NUM_BANDS, measure_frames
from .near_pairs import near_pairs

SAMPLES_PER_CLIP = 16  # thumbnails kept per clip to compare clips with each other
FROZEN_DIFFERENCE = 0.35 / 255  # mean absolute change below which two frames count as equal, at BASE_RATE
BASE_RATE = 16.0  # frames per second of the limits for changes between frames; those of faster videos are smaller
SEAM_NEIGHBOURS = 6  # changes on each side with which a seam's change is compared
STATIC_MOTION = 0.35 / 255  # median change of a video that does not move; real clips have 0.49 / 255 and more
SEAM_JUMP = 3.0  # a seam's change, in multiples of its neighbours'; real clips stay below 1.2
COLOUR_LIMIT = 0.1  # distance from the first clip that is visible
BLUR = -0.5  # change of sharpness (log10) that is visible
FROZEN_SHARE = 0.9  # of equal frames, above which a clip stands still
STILL_SECONDS = 0.5  # of equal frames in a row, worth a look; cartoons repeat each frame two or three times
_CHUNK_VALUES = 2**22  # of the frames that are measured at once


@dataclass(frozen=True)
class ClipMeasure:
    """Medians over the frames of one clip; brightness, contrast, saturation and colour in [0, 1].

    Attributes:
        brightness: mean BT.709 luma.
        contrast: standard deviation of luma.
        saturation: mean of max(R, G, B) - min(R, G, B).
        sharpness: log10 of the mean squared Laplacian of luma.
        red, blue: mean of R and B minus luma.
        spectrum: log10 of luma's energy at details of 1-2, 2-4, 4-8 and 8-16 pixels.
        motion: median change between neighbouring frames, mean absolute RGB difference of box averages; None for one frame.
        frozen: share of equal neighbouring frames; None for one frame.
        seam: change from the clip before, in multiples of the changes around it; None for the first clip.
        still: the most equal frames in a row, at least 1; medians say nothing of fewer than half of the frames.
    """

    brightness: float
    contrast: float
    saturation: float
    sharpness: float
    red: float
    blue: float
    spectrum: tuple[float, ...]
    motion: float | None
    frozen: float | None
    seam: float | None
    still: int = 1


@dataclass(frozen=True)
class DriftReport:
    """The measures of a video.

    Attributes:
        clips: one entry per clip.
        colour_distance: per clip, the distance of (brightness, saturation, red, blue) from the first clip's.
        verdict: "valid", or "INVALID" with the reasons.
        notes: findings worth a look.
        reasons: why it is invalid, if it is.
    """

    clips: tuple[ClipMeasure, ...]
    colour_distance: tuple[float, ...]
    verdict: str
    notes: tuple[str, ...]
    reasons: tuple[str, ...] = ()

    def table(self) -> str:
        """Return the verdict, the notes and a table of clips as Markdown."""
        head = "| clip | brightness | contrast | saturation | sharpness | colour distance | motion x255 | frozen | seam |"
        rows = [f"**{self.verdict}**", *(f"- {note}" for note in self.notes), "", head, "|-" * 9 + "|"]
        for index, (clip, distance) in enumerate(zip(self.clips, self.colour_distance, strict=True), start=1):
            motion, frozen, seam = map(_shown, (clip.motion and clip.motion * 255, clip.frozen, clip.seam))
            rows.append(
                f"| {index} | {clip.brightness:.3f} | {clip.contrast:.3f} | {clip.saturation:.3f} | {clip.sharpness:.2f} "
                f"| {distance:.3f} | {motion} | {frozen} | {seam} |"
            )
        return "\n".join(rows)

    def as_dict(self) -> dict[str, object]:
        """Return the report as plain data."""
        return asdict(self)


def measure_drift(frames: Iterable[np.ndarray], clip_lengths: Sequence[int], frame_rate: float = BASE_RATE) -> DriftReport:
    """Measure a video of `frames` [H, W, 3] uint8, `frame_rate` per second, whose clips are `clip_lengths` frames long.

    Raises:
        ValueError: the video has fewer or more frames than the clips together.
    """
    meter = DriftMeter(clip_lengths, frame_rate)
    for chunk in _chunks(frames):
        meter.add(chunk)
    return meter.report()


class DriftMeter:
    """Measures a video whose frames come in pieces of any size; keeps 25 KB per clip, not its frames."""

    def __init__(self, clip_lengths: Sequence[int], frame_rate: float = BASE_RATE):
        self._frame_rate = frame_rate
        self._starts = np.cumsum([0, *clip_lengths])
        self._rows: list[np.ndarray] = []
        self._changes: list[float] = []
        self._samples: list[np.ndarray] = []  # thumbnails spread over each finished clip
        self._thumbnails: list[np.ndarray] = []  # of the current clip
        self._last: np.ndarray | None = None

    def add(self, frames: np.ndarray) -> None:
        """Measure the next `frames` [T, H, W, 3] uint8."""
        measures = measure_frames(frames)
        for thumbnail, row in zip(measures.thumbnails, measures.rows, strict=True):
            self._changes.append(float(np.abs(thumbnail - self._last).mean()) if self._last is not None else 0.0)
            self._rows.append(row)
            self._thumbnails.append(thumbnail)
            self._last = thumbnail
            finished = len(self._samples)
            if finished + 1 < len(self._starts) and len(self._rows) == self._starts[finished + 1]:
                self._samples.append(_samples(self._thumbnails))
                self._thumbnails = []

    def report(self) -> DriftReport:
        """Return the measures; raise ValueError if the number of frames is not that of the clips together."""
        starts = self._starts
        if len(self._rows) != starts[-1]:
            raise ValueError(
                f"the video has {len(self._rows)} frames, but its clips have {starts[-1]}: give clip lengths that fit."
            )
        slower = min(1.0, BASE_RATE / self._frame_rate)
        frozen = slower * FROZEN_DIFFERENCE
        clips = tuple(_measure(self._rows, self._changes, *ends, frozen) for ends in itertools.pairwise(starts))
        colours = np.array([[clip.brightness, clip.saturation, clip.red, clip.blue] for clip in clips])
        distance = tuple(float(d) for d in np.linalg.norm(colours - colours[0], axis=1))
        repeated, reversed_ = (_has_equal_clips(self._samples, reverse) for reverse in (False, True))
        reasons = _reasons_invalid(
            clips, slower * STATIC_MOTION, repeated, reversed_, [self._changes[start] for start in starts[1:-1]]
        )
        verdict = f"INVALID ({', '.join(reasons)}): no quality number below means anything" if reasons else "valid"
        return DriftReport(
            clips, distance, verdict, tuple(_notes(clips, distance, np.diff(starts).tolist(), self._frame_rate)), tuple(reasons)
        )

    def clip_differences(self, reverse: bool) -> np.ndarray:
        """Return the mean absolute differences [K, K] of the finished clips in [0, 1], the second optionally reversed.

        Infinite on the diagonal and below it.
        """
        differences = np.full((len(self._samples), len(self._samples)), math.inf)
        for pair in itertools.combinations(range(len(self._samples)), 2):
            differences[pair] = _difference(self._samples, *pair, reverse)
        return differences


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _chunks(frames: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """Yield `frames` in pieces [T, H, W, 3] of bounded size."""
    chunk: list[np.ndarray] = []
    for frame in frames:
        chunk.append(frame)
        if (len(chunk) + 1) * frame.size > _CHUNK_VALUES:
            yield np.stack(chunk)
            chunk = []
    if chunk:
        yield np.stack(chunk)


def _measure(rows: list, changes: list[float], start: int, end: int, equal: float) -> ClipMeasure:
    """Return the measures of the clip from `start` to `end`; frames that change less than `equal` count as equal."""
    inner = changes[start + 1 : end]
    medians = np.median(np.array(rows[start:end]), axis=0)
    seam = None
    if start > 0:
        around = changes[max(1, start - SEAM_NEIGHBOURS) : start] + changes[start + 1 : start + 1 + SEAM_NEIGHBOURS]
        seam = changes[start] / max(float(np.median(around)), 1e-6) if around else None
    motion = float(np.median(inner)) if inner else None
    frozen = float(np.mean(np.array(inner) < equal)) if inner else None
    still = max(
        (len(list(run)) for is_equal, run in itertools.groupby(inner, lambda change: change < equal) if is_equal), default=0
    )
    bands = tuple(float(m) for m in medians[-NUM_BANDS:])
    return ClipMeasure(
        *map(float, medians[:-NUM_BANDS]), spectrum=bands, motion=motion, frozen=frozen, seam=seam, still=still + 1
    )


def _reasons_invalid(
    clips: Sequence[ClipMeasure], static: float, repeated: bool, reversed_: bool, seams: list[float]
) -> list[str]:
    """Return why the video is invalid: it stands still, repeats itself, or doubles frames at its seams.

    Args:
        static: median change of a video that does not move.
        repeated: two clips are equal.
        reversed_: two clips are equal if one of them is played backwards.
        seams: change at each seam.
    """
    if np.median([clip.motion for clip in clips if clip.motion is not None] or [0.0]) < static:
        return ["static"]
    reasons = []
    if len(clips) > 1:
        reasons += ["repeated"] if repeated else []
        reasons += ["reversed"] if reversed_ else []
        reasons += ["doubled frames at every seam"] if max(seams) < 1e-4 else []
    return reasons


def _samples(thumbnails: list[np.ndarray]) -> np.ndarray:
    """Return thumbnails spread over a clip; the choice is the same for the reversed clip."""
    half = np.linspace(0, (len(thumbnails) - 1) / 2, SAMPLES_PER_CLIP // 2).astype(int)
    indices = [*half, *(len(thumbnails) - 1 - half[::-1])]
    return np.stack([thumbnails[int(index)] for index in indices]).astype(np.float16)


def _has_equal_clips(samples: Sequence[np.ndarray], reverse: bool) -> bool:
    """Whether two clips count as equal, the second optionally reversed; not every clip is compared with every other."""
    if len(samples) < 2:
        return False
    boxes, shown = _boxes(samples), _boxes([clip[::-1] if reverse else clip for clip in samples])
    reach = 1.01 * FROZEN_DIFFERENCE + 1e-6  # above what rounding to float16 in _difference can hide
    for pairs in near_pairs(_projections(boxes), _projections(shown), reach):
        ours, theirs = pairs[pairs[:, 0] < pairs[:, 1]].T
        near = np.abs(boxes[ours] - shown[theirs]).mean(axis=(1, 2, 3, 4)) < reach
        pairs_left = zip(ours[near].tolist(), theirs[near].tolist(), strict=True)
        if any(_difference(samples, *pair, reverse) < FROZEN_DIFFERENCE for pair in pairs_left):
            return True
    return False


def _difference(samples: Sequence[np.ndarray], index: int, other: int, reverse: bool) -> np.float32:
    """Return the mean absolute difference of two clips in [0, 1], the second optionally reversed."""
    shown = samples[other][::-1] if reverse else samples[other]
    return np.abs(samples[index] - shown).mean(dtype=np.float32)


def _boxes(samples: Sequence[np.ndarray]) -> np.ndarray:
    """Return averages [K, 8, 4, 4, 3] over boxes of each clip's samples; two clips differ at least as much as these do."""
    return np.stack([clip.reshape(8, 2, 4, 4, 4, 4, 3).mean(axis=(1, 3, 5), dtype=np.float32) for clip in samples])


def _projections(boxes: np.ndarray) -> np.ndarray:
    """Return means [K, 48] of `boxes` with coarse patterns of signs over time, place and colour.

    The means of two clips never differ by more than the clips do on average, whatever the signs.
    """
    coarse = boxes.reshape(-1, 4, 2, 2, 2, 2, 2, 3).mean(axis=(2, 4, 6), dtype=np.float64)
    signs = np.ones((1, 1))
    for _ in range(4):  # Walsh patterns of the 4 x 2 x 2 boxes
        signs = np.block([[signs, signs], [signs, -signs]])
    colours = np.array([[1, 1, 1], [1, 1, -1], [1, -1, -1]])
    return np.einsum("kbc,pb,qc->kpq", coarse.reshape(len(boxes), 16, 3), signs, colours).reshape(len(boxes), -1) / 48


def _notes(clips: Sequence[ClipMeasure], distance: Sequence[float], lengths: Sequence[int], frame_rate: float) -> list[str]:
    notes = []
    for index, (clip, num_frames) in enumerate(zip(clips, lengths, strict=True), start=1):
        if clip.seam is not None and clip.seam > SEAM_JUMP:
            notes.append(f"clip {index} begins with a jump: {clip.seam:.1f} times the motion around it")
        if clip.frozen is not None and clip.frozen > FROZEN_SHARE:
            notes.append(f"clip {index} stands still")
        elif clip.still >= STILL_SECONDS * frame_rate:
            notes.append(f"clip {index} stands still for {clip.still} of its {num_frames} frames")
    if max(distance) > COLOUR_LIMIT:
        notes.append(f"colours of clip {int(np.argmax(distance)) + 1} are {max(distance):.2f} away from the first clip's")
    if clips[-1].sharpness - clips[0].sharpness < BLUR:
        notes.append(f"the last clip is blurred: sharpness {clips[-1].sharpness - clips[0].sharpness:+.2f} (log10)")
    return notes
