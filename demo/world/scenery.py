"""Backgrounds of the tiny world: five landscapes, periodic in x, that differ by seed.

A landscape is two images `[3, H, W]` in [0, 1]: how it looks by day, and the light it gives off at night. Places and sizes
are in units of the world, of which a picture is WIDTH wide, whatever its pixels: H and W are in `demo.world.picture`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import numpy as np
import torch
from torch import Tensor

from demo.world.picture import FRAME_HEIGHT, FRAME_WIDTH, WIDTH, columns, rows


@dataclass(frozen=True)
class Scenery:
    """`day` and `glow`, both `[3, H, W]`; the right edge continues on the left one."""

    day: Tensor
    glow: Tensor


def paint_scenery(background: str, seed: int) -> Scenery:
    """Paint the landscape of this name and seed.

    Raises:
        ValueError: the name is not one of the five landscapes.
    """
    painters = {"meadow": _meadow, "sea": _sea, "desert": _desert, "snow": _snow, "city": _city}
    if background not in painters:
        raise ValueError(f"unknown background {background!r}; choose one of {', '.join(painters)}")
    return painters[background](np.random.default_rng([seed, 77]))


def _grid() -> tuple[Tensor, Tensor]:
    """Return the world's coordinates x `[1, W]` and y `[H, 1]` of every pixel."""
    return columns()[None, :], rows()[:, None]


def _colour(red: float, green: float, blue: float) -> Tensor:
    return torch.tensor((red, green, blue)).view(3, 1, 1)


def _jitter(rng: np.random.Generator, colour: Tensor, amount: float = 0.05) -> Tensor:
    """Move a colour a little, all channels independently."""
    return colour + torch.from_numpy(rng.uniform(-amount, amount, size=3)).float().view(3, 1, 1)


def _gradient(top: Tensor, bottom: Tensor, end: float) -> Tensor:
    """Blend from `top` at y = 0 to `bottom` at y = `end`."""
    _, y = _grid()
    weight = (y / end).clamp(0.0, 1.0)[None]
    return (top * (1.0 - weight) + bottom * weight).expand(3, FRAME_HEIGHT, FRAME_WIDTH).clone()


def _wave(rng: np.random.Generator, amplitude: float, harmonics: tuple[int, ...]) -> Tensor:
    """Return a random periodic curve `[1, W]` of about this amplitude, from whole harmonics of the width."""
    x, _ = _grid()
    curve = torch.zeros_like(x)
    for harmonic in harmonics:
        strength, phase = rng.uniform(0.5, 1.0) / harmonic**0.5, rng.uniform(0.0, 2.0 * pi)
        curve = curve + float(strength) * torch.cos(2.0 * pi * harmonic * x / WIDTH + float(phase))
    return amplitude * curve / len(harmonics) ** 0.5


def _over(image: Tensor, coverage: Tensor, colour: Tensor) -> Tensor:
    """Lay a colour over the image where `coverage` `[H, W]` is 1."""
    return image * (1.0 - coverage[None]) + colour * coverage[None]


def _below(ridge: Tensor, softness: float = 0.8) -> Tensor:
    """Return the coverage `[H, W]` of everything under a ridge line `[1, W]`."""
    _, y = _grid()
    return torch.sigmoid((y - ridge) / softness * 2.0)


def _disc(centre_x: float, centre_y: float, radius_x: float, radius_y: float, softness: float) -> Tensor:
    """Return the coverage `[H, W]` of a soft ellipse, wrapped around the sides."""
    x, y = _grid()
    dx = (x - centre_x + WIDTH / 2) % WIDTH - WIDTH / 2
    distance = ((dx / radius_x) ** 2 + ((y - centre_y) / radius_y) ** 2).sqrt()
    return torch.sigmoid((1.0 - distance) / softness)


def _clouds(image: Tensor, rng: np.random.Generator, colour: Tensor, count: int) -> Tensor:
    """Lay `count` soft clouds over the sky."""
    for _ in range(count):
        centre_x, centre_y = float(rng.uniform(0, WIDTH)), float(rng.uniform(7, 18))
        for shift, size in ((-6.0, 0.8), (0.0, 1.2), (6.0, 0.9)):
            puff = _disc(centre_x + shift, centre_y - size, 7.0 * size, 3.2 * size, 0.18)
            image = _over(image, 0.8 * puff, colour)
    return image


def _finish(day: Tensor, glow: Tensor | None = None) -> Scenery:
    return Scenery(day.clamp(0.0, 1.0), torch.zeros_like(day) if glow is None else glow)


def _meadow(rng: np.random.Generator) -> Scenery:
    """Blue sky, clouds, two rows of green hills."""
    image = _gradient(_jitter(rng, _colour(0.36, 0.62, 0.93)), _colour(0.80, 0.91, 0.98), 38.0)
    image = _clouds(image, rng, _colour(0.98, 0.98, 0.98), 2)
    far = 33.0 + _wave(rng, 4.0, (1, 2, 3))
    image = _over(image, _below(far), _jitter(rng, _colour(0.43, 0.68, 0.42)))
    near = 43.0 + _wave(rng, 2.5, (1, 2))
    grass = _jitter(rng, _colour(0.33, 0.62, 0.22)) * (1.0 + 0.06 * _wave(rng, 1.0, (3, 5))[None])
    return _finish(_over(image, _below(near), grass))


def _sea(rng: np.random.Generator) -> Scenery:
    """Pale sky with a sun, blue water with bands of waves."""
    image = _gradient(_jitter(rng, _colour(0.45, 0.72, 0.95)), _colour(0.96, 0.89, 0.78), 36.0)
    image = _over(image, _disc(float(rng.uniform(0, WIDTH)), 14.0, 7.0, 7.0, 0.10), _colour(1.0, 0.93, 0.60))
    image = _clouds(image, rng, _colour(0.99, 0.97, 0.95), 1)
    _, y = _grid()
    depth = ((y - 36.0) / 28.0).clamp(0.0, 1.0)[None]
    water = _jitter(rng, _colour(0.22, 0.58, 0.78)) * (1.0 - depth) + _colour(0.06, 0.26, 0.52) * depth
    for row in (42.0, 50.0, 58.0):
        crest = row + _wave(rng, 1.2, (3, 4))
        band = torch.exp(-(((y - crest) / 1.3) ** 2))
        water = water + 0.16 * band[None]
    return _finish(_over(image, _below(torch.full((1, FRAME_WIDTH), 36.0), 0.7), water))


def _desert(rng: np.random.Generator) -> Scenery:
    """Warm sky, a low sun, far and near dunes."""
    image = _gradient(_jitter(rng, _colour(0.55, 0.76, 0.90)), _colour(0.99, 0.86, 0.66), 36.0)
    image = _over(image, _disc(float(rng.uniform(0, WIDTH)), 13.0, 6.0, 6.0, 0.10), _colour(1.0, 0.97, 0.80))
    far = 33.0 + _wave(rng, 4.5, (1, 2))
    image = _over(image, _below(far), _jitter(rng, _colour(0.86, 0.62, 0.38)))
    near = 43.0 + _wave(rng, 3.0, (1, 3))
    sand = _jitter(rng, _colour(0.94, 0.77, 0.47)) * (1.0 + 0.05 * _wave(rng, 1.0, (2, 5))[None])
    return _finish(_over(image, _below(near), sand))


def _snow(rng: np.random.Generator) -> Scenery:
    """Cold sky, grey peaks with white caps, a white field."""
    image = _gradient(_jitter(rng, _colour(0.50, 0.66, 0.86)), _colour(0.88, 0.92, 0.97), 34.0)
    x, y = _grid()
    period = WIDTH / 3
    phase = float(rng.uniform(0, WIDTH))
    zigzag = ((x + phase + _wave(rng, 2.5, (1, 2))) % period - period / 2).abs()
    peaks = 13.0 + zigzag * 1.5 + _wave(rng, 3.0, (1, 2))
    image = _over(image, _below(peaks, 1.2), _jitter(rng, _colour(0.46, 0.52, 0.62)))
    caps = _below(peaks, 1.2) * torch.sigmoid((peaks + 8.0 + 1.5 * torch.cos(0.9 * x) - y) / 0.8)
    image = _over(image, caps, _colour(0.95, 0.97, 1.0))
    field = 41.0 + _wave(rng, 2.0, (1, 2))
    return _finish(_over(image, _below(field), _jitter(rng, _colour(0.90, 0.93, 0.97), 0.03)))


def _city(rng: np.random.Generator) -> Scenery:
    """Towers under an evening sky, a street in front; their windows shine at night."""
    image = _gradient(_jitter(rng, _colour(0.56, 0.60, 0.86)), _colour(0.98, 0.78, 0.66), 44.0)
    glow = torch.zeros(3, FRAME_HEIGHT, FRAME_WIDTH)
    left = float(rng.uniform(0, WIDTH))
    shift = 0.0
    for width in rng.permutation([11.0, 12.0, 13.0, 14.0, 14.0, 16.0, 16.0]):
        top, shade = float(rng.uniform(12.0, 30.0)), float(rng.uniform(0.30, 0.52))
        tower = _box(left + shift + width / 2, float(width) / 2 - 0.8, top, 46.0)
        image = _over(image, tower, _colour(shade, shade * 1.02, shade * 1.18))
        windows = _windows(left + shift + width / 2, top)
        image = _over(image, 0.35 * windows, _colour(0.94, 0.86, 0.62))
        glow = glow + _colour(0.42, 0.34, 0.15) * windows[None]
        shift += float(width)
    image = _over(image, _below(torch.full((1, FRAME_WIDTH), 44.0)), _jitter(rng, _colour(0.47, 0.47, 0.50), 0.03))
    _, y = _grid()
    kerb = torch.exp(-(((y - 60.0) / 1.2) ** 2)).expand(FRAME_HEIGHT, FRAME_WIDTH)
    return _finish(_over(image, 0.6 * kerb, _colour(0.92, 0.92, 0.88)), glow)


def _box(centre_x: float, half_width: float, top: float, bottom: float) -> Tensor:
    """Return the coverage `[H, W]` of an upright box, wrapped around the sides."""
    x, y = _grid()
    dx = ((x - centre_x + WIDTH / 2) % WIDTH - WIDTH / 2).abs()
    return torch.sigmoid((half_width - dx) * 2.5) * torch.sigmoid((y - top) * 2.5) * torch.sigmoid((bottom - y) * 2.5)


def _windows(centre_x: float, top: float) -> Tensor:
    """Return two columns of windows under the roof of a tower."""
    coverage = torch.zeros(FRAME_HEIGHT, FRAME_WIDTH)
    for column in (-2.6, 2.6):
        for row in np.arange(top + 4.0, 40.0, 6.0):
            coverage = coverage + _box(centre_x + column, 1.3, float(row), float(row) + 2.8)
    return coverage.clamp(0.0, 1.0)
