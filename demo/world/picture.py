"""The size of a picture of the tiny world, in pixels and in the world's own units.

The world is drawn from formulas, so it can be painted at any size: a picture is always WIDTH units wide, and shows of its
HEIGHT units those in the middle. The models in `demo/models` know the size that stands here.
"""

from __future__ import annotations

import torch
from torch import Tensor

FRAME_WIDTH, FRAME_HEIGHT = 96, 64
"""Pixels."""
WIDTH, HEIGHT = 96.0, 64.0
"""Units: x goes to the right and y down, (0, 0) at the centre of the top left square of one unit."""
SCALE = FRAME_WIDTH / WIDTH
"""Pixels a unit."""
TOP = (HEIGHT - FRAME_HEIGHT / SCALE) / 2.0
"""Units that the picture leaves out above, as many as below."""


def columns(first: int = 0, count: int = FRAME_WIDTH) -> Tensor:
    """Return x of the centres of `count` columns of pixels from `first` on, `[count]`."""
    return (torch.arange(first, first + count) + 0.5) / SCALE - 0.5


def rows(first: int = 0, count: int = FRAME_HEIGHT) -> Tensor:
    """Return y of the centres of `count` rows of pixels from `first` on, `[count]`."""
    return columns(first, count) + TOP


def to_pixels(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the place of a point of the world in pixels, (0, 0) at the centre of the top left one."""
    return (x + 0.5) * SCALE - 0.5, (y - TOP + 0.5) * SCALE - 0.5
