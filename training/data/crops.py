"""Cut a picture to the shape of the examples: aspect ratio kept, a little of the edge left out at random.

Source: docs/METHOD.md, 9.3 (the limiting side is cut to 13/14 or more of its length, at a random place; then the picture is
resized).
The released code resizes bilinearly without antialiasing, we resize as SVI's nodes resize a reference image.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log
from random import Random

import numpy as np
import torch

from svi_core.conditioning.images import ResizeMode, resize_images


@dataclass(frozen=True)
class Crop:
    """A box of a picture, in its pixels, and what becomes of it.

    Attributes:
        left: first column.
        top: first row.
        box_width: columns.
        box_height: rows.
        width: columns after resizing.
        height: rows after resizing.
        flip: whether left and right change places.
    """

    left: int
    top: int
    box_width: int
    box_height: int
    width: int
    height: int
    flip: bool


def nearest_size(width: int, height: int, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return which of `sizes` has the aspect ratio nearest to that of `width` x `height`; of equal ones the first."""
    return min(sizes, key=lambda size: abs(log(size[0] / size[1]) - log(width / height)))


def draw_crop(picture: tuple[int, int], size: tuple[int, int], min_crop: float, flip_probability: float, draw: Random) -> Crop:
    """Draw a box with the aspect ratio of `size` in a picture; four numbers are drawn whatever the settings.

    Args:
        picture: (width, height) of the picture.
        size: (width, height) of the result.
        min_crop: share of the largest such box that is kept at least.
        flip_probability: how often left and right change places.
        draw: source of the randomness.
    """
    share, across, down, mirror = (draw.random() for _ in range(4))
    scale = min(picture[0] / size[0], picture[1] / size[1]) * (min_crop + (1.0 - min_crop) * share)
    box_width = min(picture[0], max(1, round(size[0] * scale)))
    box_height = min(picture[1], max(1, round(size[1] * scale)))
    left = int(across * (picture[0] - box_width + 1))
    top = int(down * (picture[1] - box_height + 1))
    return Crop(left, top, box_width, box_height, *size, mirror < flip_probability)


def cut(picture: np.ndarray, crop: Crop) -> torch.Tensor:
    """Return the box of `picture` [H, W, 3] uint8 at its new size, [height, width, 3] fp32 in [0, 1]."""
    box = picture[crop.top : crop.top + crop.box_height, crop.left : crop.left + crop.box_width]
    pixels = torch.from_numpy(np.ascontiguousarray(box[:, ::-1] if crop.flip else box)).float() / 255.0
    return resize_images(pixels[None], crop.width, crop.height, ResizeMode.STRETCH)[0]
