"""Does a long video drift, jump at its seams, or merely stand still? Measured on its frames, without any network.

Numbers are per clip and relative to the video's own first clip, so they need no reference. A video that is static, repeated,
played backwards or has doubled frames at its seams is called INVALID before any other number is shown, because on most
quality measures such a video would win (paper, Table 5: a copied frame beats SVI on five of six).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

import numpy as np

THUMBNAIL = 16  # boxes per side of the grid of averages on which motion is measured
SAMPLES_PER_CLIP = 16  # thumbnails kept per clip to compare clips with each other
FROZEN_DIFFERENCE = 0.35 / 255  # mean absolute change below which two frames count as the same
SEAM_NEIGHBOURS = 6  # in-clip changes on each side that a seam's change is compared with
STATIC_MOTION = 0.35 / 255  # median change of a video that does not move; real clips have 0.49 / 255 and more
SEAM_JUMP = 3.0  # a seam's change, in multiples of its neighbours'; real clips stay below 1.2
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)  # BT.709


@dataclass(frozen=True)
class ClipMeasure:
    """Medians over the frames of one clip; brightness, contrast, saturation and colour in [0, 1].

    Attributes:
        brightness: mean BT.709 luma.
        contrast: standard deviation of luma.
        saturation: mean of max(R, G, B) - min(R, G, B).
        sharpness: log10 of the mean squared Laplacian of luma.
        red, blue: mean of R and B minus luma.
        motion: median change between neighbouring frames, mean absolute RGB difference of box averages.
        frozen: share of neighbouring frames that do not differ.
        seam: change from the last frame of the clip before, in multiples of the change around it; None for the first clip.
    """

    brightness: float
    contrast: float
    saturation: float
    sharpness: float
    red: float
    blue: float
    motion: float
    frozen: float
    seam: float | None


@dataclass(frozen=True)
class DriftReport:
    """What was measured on a video.

    Attributes:
        clips: one entry per clip.
        colour_distance: per clip, the distance of (brightness, saturation, red, blue) from the first clip's.
        verdict: "valid", or "INVALID" with the reasons.
        notes: what a person should look at.
    """

    clips: tuple[ClipMeasure, ...]
    colour_distance: tuple[float, ...]
    verdict: str
    notes: tuple[str, ...]

    def table(self) -> str:
        """Return the report as a Markdown table, the verdict first."""
        head = "| clip | brightness | contrast | saturation | sharpness | colour distance | motion x255 | frozen | seam |"
        rows = [f"**{self.verdict}**", *(f"- {note}" for note in self.notes), "", head, "|-" * 9 + "|"]
        for index, (clip, distance) in enumerate(zip(self.clips, self.colour_distance, strict=True), start=1):
            seam = "" if clip.seam is None else f"{clip.seam:.2f}"
            rows.append(
                f"| {index} | {clip.brightness:.3f} | {clip.contrast:.3f} | {clip.saturation:.3f} | {clip.sharpness:.2f} "
                f"| {distance:.3f} | {clip.motion * 255:.2f} | {clip.frozen:.2f} | {seam} |"
            )
        return "\n".join(rows)

    def as_dict(self) -> dict:
        """Return the report as plain data."""
        return asdict(self)


def measure_drift(frames: Iterable[np.ndarray], clip_lengths: Sequence[int]) -> DriftReport:
    """Measure a video whose `frames` [H, W, 3] uint8 come one by one, clip after clip.

    Args:
        clip_lengths: how many frames of the video each clip gave.

    Raises:
        ValueError: the video has fewer or more frames than the clips together.
    """
    features: list[tuple[float, ...]] = []
    changes: list[float] = []
    samples: list[np.ndarray] = []
    starts = np.cumsum([0, *clip_lengths])
    thumbnails: list[np.ndarray] = []  # of the clip in work only
    last = None
    for frame in frames:
        thumbnail, row = _features(frame)
        changes.append(float(np.abs(thumbnail - last).mean()) if last is not None else 0.0)
        features.append(row)
        thumbnails.append(thumbnail)
        last = thumbnail
        if len(samples) < len(clip_lengths) and len(features) == starts[len(samples) + 1]:
            samples.append(_samples(thumbnails))
            thumbnails = []
    if len(features) != starts[-1]:
        raise ValueError(f"the video has {len(features)} frames, but its clips have {starts[-1]}: give clip lengths that fit.")
    clips = tuple(_measure(features, changes, start, end) for start, end in zip(starts, starts[1:], strict=False))
    colours = np.array([[clip.brightness, clip.saturation, clip.red, clip.blue] for clip in clips])
    distance = tuple(float(d) for d in np.linalg.norm(colours - colours[0], axis=1))
    reasons = _reasons_invalid(clips, samples, [changes[start] for start in starts[1:-1]])
    verdict = f"INVALID ({', '.join(reasons)}): no quality number below means anything" if reasons else "valid"
    return DriftReport(clips, distance, verdict, tuple(_notes(clips, distance)))


def _features(frame: np.ndarray) -> tuple[np.ndarray, tuple[float, ...]]:
    """Return a frame's thumbnail [16, 16, 3] of box averages and its measures in the order of ClipMeasure."""
    pixels = frame.astype(np.float32) / 255.0
    luma = pixels @ _LUMA
    laplacian = 4 * luma[1:-1, 1:-1] - luma[:-2, 1:-1] - luma[2:, 1:-1] - luma[1:-1, :-2] - luma[1:-1, 2:]
    mean = pixels.mean(axis=(0, 1))
    brightness = float(luma.mean())
    saturation = float((pixels.max(axis=2) - pixels.min(axis=2)).mean())
    sharpness = math.log10(float((laplacian**2).mean()) + 1e-10)
    row = (brightness, float(luma.std()), saturation, sharpness, float(mean[0]) - brightness, float(mean[2]) - brightness)
    return _box_average(pixels), row


def _box_average(pixels: np.ndarray) -> np.ndarray:
    """Return `pixels` [H, W, 3] averaged over a grid of 16 x 16 boxes."""
    rows = np.linspace(0, pixels.shape[0], THUMBNAIL + 1).astype(int)[:-1]
    columns = np.linspace(0, pixels.shape[1], THUMBNAIL + 1).astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(pixels, rows, axis=0), columns, axis=1)
    counts = np.diff([*rows, pixels.shape[0]])[:, None] * np.diff([*columns, pixels.shape[1]])[None]
    return sums / counts[..., None]


def _measure(features: list, changes: list[float], start: int, end: int) -> ClipMeasure:
    inner = changes[start + 1 : end]
    medians = np.median(np.array(features[start:end]), axis=0)
    seam = None
    if start > 0:
        around = changes[max(1, start - SEAM_NEIGHBOURS) : start] + changes[start + 1 : start + 1 + SEAM_NEIGHBOURS]
        seam = changes[start] / max(float(np.median(around)), 1e-6) if around else None
    motion = float(np.median(inner)) if inner else 0.0
    frozen = float(np.mean(np.array(inner) < FROZEN_DIFFERENCE)) if inner else 1.0
    return ClipMeasure(*(float(m) for m in medians), motion, frozen, seam)


def _reasons_invalid(clips: Sequence[ClipMeasure], samples: list[np.ndarray], seams: list[float]) -> list[str]:
    """Return why the video is no video: it stands still, repeats itself, or doubles frames at its seams."""
    if np.median([clip.motion for clip in clips]) < STATIC_MOTION:
        return ["static"]
    reasons = []
    if len(clips) > 1:
        reasons += ["repeated"] if _nearest_clips(samples, reverse=False) < FROZEN_DIFFERENCE else []
        reasons += ["reversed"] if _nearest_clips(samples, reverse=True) < FROZEN_DIFFERENCE else []
        reasons += ["doubled frames at every seam"] if max(seams) < 1e-4 else []
    return reasons


def _samples(thumbnails: list[np.ndarray]) -> np.ndarray:
    """Return thumbnails spread over a clip, the same ones (in reverse order) when the clip is played backwards."""
    half = np.linspace(0, (len(thumbnails) - 1) / 2, SAMPLES_PER_CLIP // 2).astype(int)
    indices = [*half, *(len(thumbnails) - 1 - half[::-1])]
    return np.stack([thumbnails[int(index)] for index in indices]).astype(np.float16)


def _nearest_clips(samples: list[np.ndarray], reverse: bool) -> float:
    """Return the smallest mean absolute difference between two clips, the second one optionally played backwards."""
    nearest = math.inf
    for index, clip in enumerate(samples):
        for other in samples[index + 1 :]:
            nearest = min(nearest, float(np.abs(clip - (other[::-1] if reverse else other)).mean(dtype=np.float32)))
    return nearest


def _notes(clips: Sequence[ClipMeasure], distance: Sequence[float]) -> list[str]:
    notes = []
    for index, clip in enumerate(clips[1:], start=2):
        if clip.seam is not None and clip.seam > SEAM_JUMP:
            notes.append(f"clip {index} begins with a jump: {clip.seam:.1f} times the motion around it")
        if clip.frozen > 0.9:
            notes.append(f"clip {index} stands still")
    if max(distance) > 0.1:
        notes.append(f"colours of clip {int(np.argmax(distance)) + 1} are {max(distance):.2f} away from the first clip's")
    if clips[-1].sharpness - clips[0].sharpness < -0.5:
        notes.append(f"the last clip is blurred: sharpness {clips[-1].sharpness - clips[0].sharpness:+.2f} (log10)")
    return notes
