"""Colour, detail and thumbnails of single frames, from which drift is measured.

Shapes: T frames [T, H, W, 3].
"""

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
    return measure_pixels(frames.astype(np.float32) / 255.0)


def measure_pixels(pixels: np.ndarray) -> FrameMeasures:
    """Measure frames `pixels` [T, H, W, 3] float32 in [0, 1]."""
    luma = pixels @ _LUMA
    inner = luma[:, 1:-1, 1:-1]
    laplacian = 4 * inner - luma[:, :-2, 1:-1] - luma[:, 2:, 1:-1] - luma[:, 1:-1, :-2] - luma[:, 1:-1, 2:]
    mean = pixels.mean(axis=(1, 2))
    brightness = luma.mean(axis=(1, 2))
    saturation = (pixels.max(axis=3) - pixels.min(axis=3)).mean(axis=(1, 2))
    columns = (
        brightness,
        luma.std(axis=(1, 2)),
        saturation,
        _log_energy(laplacian),
        mean[:, 0] - brightness,
        mean[:, 2] - brightness,
        *spectrum(luma),
    )
    return FrameMeasures(box_average(pixels), np.stack(columns, axis=1))


def spectrum(luma: np.ndarray) -> list[np.ndarray]:
    """Return log10 of the energy of `luma` [T, H, W] at details of 1-2, 2-4, 4-8 and 8-16 pixels, [T] each.

    An octave is the detail that averaging over 2 x 2 boxes removes; sides are cropped to whole boxes.
    """
    size = 2**NUM_BANDS
    level = luma[:, : luma.shape[1] // size * size, : luma.shape[2] // size * size]
    bands = []
    for _ in range(NUM_BANDS):
        coarse = (level[:, ::2, ::2] + level[:, 1::2, ::2] + level[:, ::2, 1::2] + level[:, 1::2, 1::2]) / 4
        bands.append(_log_energy(level - coarse.repeat(2, axis=1).repeat(2, axis=2)))
        level = coarse
    return bands


def box_average(pixels: np.ndarray) -> np.ndarray:
    """Return `pixels` [T, H, W, 3] averaged over a grid of 16 x 16 boxes."""
    height, width = pixels.shape[1:3]
    rows = np.linspace(0, height, THUMBNAIL + 1).astype(int)[:-1]
    columns = np.linspace(0, width, THUMBNAIL + 1).astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(pixels, rows, axis=1), columns, axis=2)
    counts = np.diff([*rows, height])[:, None] * np.diff([*columns, width])[None]
    return sums / counts[..., None]


def _log_energy(values: np.ndarray) -> np.ndarray:
    """Return log10 of the mean square of `values` [T, H, W]; [T]. Energy 0 counts as 1e-10."""
    if values.size == 0:
        return np.full(len(values), np.log10(_LEAST_ENERGY), np.float32)
    return np.log10((values.astype(np.float32) ** 2).mean(axis=(1, 2)) + _LEAST_ENERGY)
