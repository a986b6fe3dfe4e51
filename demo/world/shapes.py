"""Objects of the tiny world, drawn from signed distances with soft edges.

Each painter takes local coordinates `[T, S, S]` in units of the world (origin at the object's centre, y down) and returns
layers of (coverage, colour) from back to front. Distances are negative inside a shape.
"""

from __future__ import annotations

from math import pi

import torch
from torch import Tensor

from demo.world.picture import SCALE, TOP, columns, rows, to_pixels

PALETTE = {
    "red": (0.90, 0.18, 0.16),
    "yellow": (0.98, 0.82, 0.14),
    "green": (0.14, 0.66, 0.30),
    "blue": (0.16, 0.36, 0.90),
    "purple": (0.60, 0.24, 0.76),
    "white": (0.96, 0.96, 0.96),
}
OBJECT_REACH = {"ball": 9.0, "car": 9.0, "boat": 9.0, "star": 11.0, "balloon": 11.0}
"""Units from the centre of an object down to its lowest point."""

PATCH = round(40 * SCALE)
"""Pixels of the square that an object is painted in."""
EDGE = 0.9
OUTLINE = (0.13, 0.12, 0.18)
Layer = tuple[Tensor, tuple[float, float, float]]


def paint_object(
    frames: Tensor,
    kind: str,
    colour: str,
    x: Tensor,
    y: Tensor,
    spin: Tensor,
    light: Tensor,
    ground: float | None,
) -> None:
    """Draw the object into `frames` `[T, 3, H, W]`, in place.

    Args:
        x, y: centre of the object in units, `[T]`.
        spin: angle by which a ball or wheels have rolled, in radians, `[T]`.
        light: factor on the object's colours, `[T, 3, 1, 1]`.
        ground: y of the ground in units, for a shadow; None for things that fly.
    """
    if ground is not None:
        _cast_shadow(frames, x, y, ground)
    corner_x, corner_y = (centre.round().long() - PATCH // 2 for centre in to_pixels(x, y))
    step = torch.arange(PATCH)
    column, row = corner_x[:, None] + step, corner_y[:, None] + step
    local_x = ((column + 0.5) / SCALE - 0.5 - x[:, None])[:, None, :].expand(-1, PATCH, -1)
    local_y = ((row + 0.5) / SCALE - 0.5 + TOP - y[:, None])[:, :, None].expand(-1, -1, PATCH)
    layers = _PAINTERS[kind](local_x, local_y, spin.view(-1, 1, 1), PALETTE[colour])
    _composite(frames, layers, row, column, light)


def _composite(frames: Tensor, layers: list[Layer], row: Tensor, column: Tensor, light: Tensor) -> None:
    """Lay the layers over the patch of each frame, dropping what falls outside the picture."""
    num_frames, _, height, width = frames.shape
    inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None, :]
    index = row.clamp(0, height - 1)[:, :, None] * width + column.clamp(0, width - 1)[:, None, :]
    flat = frames.reshape(num_frames, 3, height * width)
    patch_index = index.reshape(num_frames, 1, -1).expand(-1, 3, -1)
    patch = flat.gather(2, patch_index).reshape(num_frames, 3, PATCH, PATCH)
    for coverage, colour in layers:
        visible = (coverage * inside)[:, None]
        patch = patch * (1.0 - visible) + torch.tensor(colour).view(1, 3, 1, 1) * light * visible
    change = (patch - flat.gather(2, patch_index).reshape_as(patch)) * inside[:, None]
    frames.copy_(flat.scatter_add(2, patch_index, change.reshape(num_frames, 3, -1)).reshape_as(frames))


def _cast_shadow(frames: Tensor, x: Tensor, y: Tensor, ground: float) -> None:
    """Darken the ground under the object, less the higher it is."""
    dx = columns()[None, None, :] - x[:, None, None]
    dy = rows()[None, :, None] - ground
    lift = ((ground - 9.0 - y) / 20.0).clamp(0.0, 1.0)[:, None, None]
    strength = (0.38 - 0.2 * lift) * torch.exp(-((dx / 9.0) ** 2) - (dy / 2.2) ** 2)
    frames.mul_(1.0 - strength[:, None])


def _cover(distance: Tensor) -> Tensor:
    """Turn a signed distance in units into coverage with an edge about two units wide."""
    return torch.sigmoid(-distance * (2.0 / EDGE))


def _circle(x: Tensor, y: Tensor, radius: float) -> Tensor:
    return (x * x + y * y + 1e-6).sqrt() - radius


def _ellipse(x: Tensor, y: Tensor, radius_x: float, radius_y: float) -> Tensor:
    return (((x / radius_x) ** 2 + (y / radius_y) ** 2 + 1e-6).sqrt() - 1.0) * min(radius_x, radius_y)


def _rounded_box(x: Tensor, y: Tensor, half_width: float, half_height: float, radius: float) -> Tensor:
    outside_x, outside_y = x.abs() - half_width + radius, y.abs() - half_height + radius
    outer = (outside_x.clamp(min=0.0) ** 2 + outside_y.clamp(min=0.0) ** 2 + 1e-6).sqrt()
    return outer + torch.maximum(outside_x, outside_y).clamp(max=0.0) - radius


def _tint(colour: tuple[float, float, float], amount: float) -> tuple[float, float, float]:
    """Move a colour towards white (amount > 0) or black (amount < 0)."""
    target = 1.0 if amount > 0 else 0.0
    red, green, blue = (channel + (target - channel) * abs(amount) for channel in colour)
    return red, green, blue


def _ball(x: Tensor, y: Tensor, spin: Tensor, colour: tuple[float, float, float]) -> list[Layer]:
    """A ball with one pale stripe that turns as it rolls, and a highlight that does not."""
    disc = _circle(x, y, 8.0)
    across = -x * torch.sin(spin) + y * torch.cos(spin)
    stripe = _cover(across.abs() - 2.0) * _cover(disc)
    band = _tint(colour, -0.55) if min(colour) > 0.9 else (0.97, 0.95, 0.90)
    shine = 0.5 * torch.exp(-((x + 2.8) ** 2 + (y + 3.2) ** 2) / 5.0)
    return [(_cover(disc - 1.2), OUTLINE), (_cover(disc), colour), (stripe, band), (shine, (1.0, 1.0, 1.0))]


def _car(x: Tensor, y: Tensor, spin: Tensor, colour: tuple[float, float, float]) -> list[Layer]:
    """A car seen from the side, the same to the left and to the right."""
    body, cabin = _rounded_box(x, y - 1.5, 13.0, 4.2, 2.5), _rounded_box(x, y + 4.5, 7.0, 4.5, 3.0)
    shell = torch.minimum(body, cabin)
    glass = torch.minimum(_rounded_box(x - 3.0, y + 4.2, 2.3, 2.3, 1.0), _rounded_box(x + 3.0, y + 4.2, 2.3, 2.3, 1.0))
    wheels = torch.minimum(_circle(x - 7.0, y - 5.5, 3.4), _circle(x + 7.0, y - 5.5, 3.4))
    hubs = torch.minimum(_circle(x - 7.0, y - 5.5, 1.3), _circle(x + 7.0, y - 5.5, 1.3))
    return [
        (_cover(shell - 1.2), OUTLINE),
        (_cover(shell), colour),
        (_cover(glass), (0.72, 0.86, 0.94)),
        (_cover(wheels), OUTLINE),
        (_cover(hubs), (0.80, 0.80, 0.80)),
    ]


def _boat(x: Tensor, y: Tensor, spin: Tensor, colour: tuple[float, float, float]) -> list[Layer]:
    """A sailing boat: a brown hull and a sail in the object's colour."""
    hull = torch.maximum(torch.maximum(4.0 - y, y - 9.0), x.abs() - 13.5 + 0.8 * (y - 4.0))
    mast = _rounded_box(x, y + 4.0, 0.8, 9.5, 0.5)
    right = torch.maximum(torch.maximum(1.2 - x, y - 2.5), (x - 1.2) * 0.82 - (y + 13.0) * 0.57)
    left = torch.maximum(torch.maximum(x + 1.2, y - 2.5), (-x - 1.2) * 0.87 - (y + 8.0) * 0.50)
    sail = torch.minimum(right, left)
    return [
        (_cover(torch.minimum(hull, sail) - 1.0), OUTLINE),
        (_cover(mast), (0.36, 0.24, 0.16)),
        (_cover(sail), colour),
        (_cover(hull), (0.55, 0.34, 0.20)),
    ]


def _star(x: Tensor, y: Tensor, spin: Tensor, colour: tuple[float, float, float]) -> list[Layer]:
    """A five-pointed star."""
    angle = torch.atan2(x, -y)
    sector = 2.0 * pi / 5.0
    folded = (((angle + sector / 2) % sector) - sector / 2).abs()
    radius = (x * x + y * y + 1e-6).sqrt()
    px, py = radius * torch.cos(folded), radius * torch.sin(folded)
    outer, inner = 11.0, 5.6
    edge_x, edge_y = inner * torch.cos(torch.tensor(sector / 2)) - outer, inner * torch.sin(torch.tensor(sector / 2))
    length = (edge_x**2 + edge_y**2).sqrt()
    distance = (px - outer) * edge_y / length - py * edge_x / length
    heart = 0.45 * torch.exp(-(x * x + y * y) / 14.0)
    return [(_cover(distance - 1.2), OUTLINE), (_cover(distance), colour), (heart, (1.0, 1.0, 1.0))]


def _balloon(x: Tensor, y: Tensor, spin: Tensor, colour: tuple[float, float, float]) -> list[Layer]:
    """A hot-air balloon: a striped envelope over a small basket."""
    envelope = _ellipse(x, y + 3.0, 8.8, 9.6)
    basket = _rounded_box(x, y - 10.0, 2.8, 2.2, 0.8)
    ropes = torch.maximum(x.abs() - 3.0, (y - 7.0).abs() - 2.0)
    stripe = _cover(_ellipse(x, y + 3.0, 3.2, 9.6)) * _cover(envelope)
    band = _tint(colour, -0.35) if min(colour) > 0.9 else _tint(colour, 0.5)
    return [
        (0.55 * _cover(ropes), OUTLINE),
        (_cover(torch.minimum(envelope, basket) - 1.1), OUTLINE),
        (_cover(envelope), colour),
        (stripe, band),
        (_cover(basket), (0.60, 0.42, 0.24)),
    ]


_PAINTERS = {"ball": _ball, "car": _car, "boat": _boat, "star": _star, "balloon": _balloon}
