"""Crop a picture to the size of the examples: keep the aspect ratio, and cut a random part of the edges.

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
    """A box in a picture, and the size that it is resized to. All in pixels.

    Attributes:
        left: first column of the box.
        top: first row of the box.
        box_width: columns of the box.
        box_height: rows of the box.
        width: columns after resizing.
        height: rows after resizing.
        flip: whether the box is mirrored.
    """

    left: int
    top: int
    box_width: int
    box_height: int
    width: int
    height: int
    flip: bool


def nearest_size(width: int, height: int, sizes: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the size of `sizes` whose aspect ratio is nearest to that of `width` x `height`; the first in a tie."""
    return min(sizes, key=lambda size: abs(log(size[0] / size[1]) - log(width / height)))


def draw_crop(picture: tuple[int, int], size: tuple[int, int], min_crop: float, flip_probability: float, draw: Random) -> Crop:
    """Draw a box with the aspect ratio of `size` in a picture. It always draws four numbers.

    Args:
        picture: (width, height) of the picture.
        size: (width, height) of the result.
        min_crop: minimum share of the sides of the largest such box.
        flip_probability: how often the box is mirrored.
        draw: random generator.
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
