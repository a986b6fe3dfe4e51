"""Colour, detail and thumbnails of single frames, from which drift is measured.

Shapes: T frames [T, H, W, 3].
"""

import functools
import math
from dataclasses import dataclass

import numpy as np

THUMBNAIL = 16  # boxes per side of the grid of averages on which motion is measured
NUM_BANDS = 4  # octaves of detail
_LUMA = np.array([0.2126, 0.7152, 0.0722], np.float32)  # BT.709
_LEAST_ENERGY = 1e-10


@dataclass(frozen=True)
class FrameMeasures:
    """The measures of T frames.

    Attributes:
        thumbnails: [T, 16, 16, 3], box averages in [0, 1].
        rows: [T, 10]: brightness, contrast, saturation, sharpness, red, blue and four octaves of spectrum, as in
            drift.ClipMeasure.
    """

    thumbnails: np.ndarray
    rows: np.ndarray


def measure_frames(frames: np.ndarray) -> FrameMeasures:
    """Measure `frames` [T, H, W, 3] uint8."""
    return _each_measured(frames, 1.0 / 255.0)


def measure_pixels(pixels: np.ndarray) -> FrameMeasures:
    """Measure frames `pixels` [T, H, W, 3] float32 in [0, 1]."""
    return _each_measured(pixels, 1.0)


def _each_measured(frames: np.ndarray, unit: float) -> FrameMeasures:
    """Measure frames one by one: the planes of one stay in the processor's cache, which is much faster than all at once."""
    measured = [_measured(np.multiply(np.moveaxis(frame, 2, 0), np.float32(unit), order="C")) for frame in frames]
    if not measured:
        return FrameMeasures(np.empty((0, THUMBNAIL, THUMBNAIL, 3), np.float32), np.empty((0, 6 + NUM_BANDS), np.float32))
    thumbnails, rows = zip(*measured, strict=True)
    return FrameMeasures(np.stack(thumbnails), np.stack(rows))


def _measured(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the thumbnail [16, 16, 3] and the row [10] of one frame [3, H, W] float32 in [0, 1]."""
    red, green, blue = planes
    luma = _LUMA[0] * red
    luma += _LUMA[1] * green
    luma += _LUMA[2] * blue
    spread = np.maximum(np.maximum(red, green), blue)
    spread -= np.minimum(np.minimum(red, green), blue)
    mean = planes.mean(axis=(1, 2))
    brightness = luma.mean()
    contrast = math.sqrt(_mean_square(luma - brightness))
    colours = (mean[0] - brightness, mean[2] - brightness)
    row = (brightness, contrast, spread.mean(), _log(_mean_square(_laplacian(luma))), *colours, *_octaves(luma))
    return np.moveaxis(_box_averages(planes), 0, 2), np.array(row, np.float32)


def _laplacian(luma: np.ndarray) -> np.ndarray:
    inner = 4.0 * luma[1:-1, 1:-1]
    for neighbours in (luma[:-2, 1:-1], luma[2:, 1:-1], luma[1:-1, :-2], luma[1:-1, 2:]):
        inner -= neighbours
    return inner


def _octaves(luma: np.ndarray) -> list[float]:
    """Return log10 of the energy of `luma` [H, W] at details of 1-2, 2-4, 4-8 and 8-16 pixels.

    An octave is the detail that averaging over 2 x 2 boxes removes; sides are cropped to whole boxes.
    """
    size = 2**NUM_BANDS
    level = luma[: luma.shape[0] // size * size, : luma.shape[1] // size * size]
    bands = []
    for _ in range(NUM_BANDS):
        above, below = level[::2], level[1::2]
        sums, differences = above + below, above - below
        left, right = sums[:, ::2], sums[:, 1::2]
        across = left - right
        # the squares of a box: half of its rows' squared differences, and a quarter of that between its columns
        energy = 4.0 * _mean_square(differences) + _mean_square(across)
        bands.append(_log(energy / 16.0))
        level = (left + right) / 4.0
    return bands


def _box_averages(planes: np.ndarray) -> np.ndarray:
    """Return `planes` [3, H, W] averaged over a grid of 16 x 16 boxes."""
    height, width = planes.shape[1:]
    return _averaging(height) @ (planes @ _averaging(width).T)


@functools.lru_cache(maxsize=8)
def _averaging(length: int) -> np.ndarray:
    """Return the matrix [16, length] that averages over 16 boxes side by side."""
    starts = np.linspace(0, length, THUMBNAIL + 1).astype(int)
    places = np.arange(length)
    inside = (places >= starts[:-1, None]) & (places < starts[1:, None])
    return (inside / np.maximum(1, inside.sum(axis=1, keepdims=True))).astype(np.float32)


def _mean_square(values: np.ndarray) -> float:
    """Return the mean square of `values`; 0 of none."""
    flat = values.ravel()
    return float(np.dot(flat, flat)) / flat.size if flat.size else 0.0


def _log(energy: float) -> float:
    """Return log10 of an energy; 0 counts as 1e-10."""
    return math.log10(energy + _LEAST_ENERGY)
