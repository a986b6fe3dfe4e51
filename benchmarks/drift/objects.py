"""Find the object in a clip of the tiny world and measure its place, colour and shape.

Its true appearance is known, and so is the scenery without it. The whole picture is searched, and the match is compared with
the truth. Shapes: N scenes, frames [N, 3, H, W] in [0, 1].
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

REACH = 16  # pixels around its centre that hold the whole object, with its shadow
DIFFERS = 0.05  # from the scenery's pixel, in any channel, of a pixel of the object


@dataclass(frozen=True)
class ObjectReading:
    """How far the found objects are from the true ones, each [N].

    Attributes:
        lost: whether the scenery alone explains the picture as well: the object has faded by half or more. Colour and shape
            are then read where it should be.
        place: distance in pixels; the picture's diagonal for a lost object.
        colour: distance of mean RGB, each in [0, 1].
        shape: mean squared difference without the difference of mean colours, in multiples of that between the true
            object and the scenery behind it: 0 for the same shape, 1 for none.
    """

    lost: Tensor
    place: Tensor
    colour: Tensor
    shape: Tensor


def read_objects(frames: Tensor, truth: Tensor, scenery: Tensor, x: Tensor, y: Tensor) -> ObjectReading:
    """Find the object in each of `frames`: where painting it over the scenery explains the picture best.

    Args:
        frames: to search.
        truth: what they should show.
        scenery: the truth without the object.
        x, y: the object's true centre in pixels, [N].
    """
    centre = torch.stack([y.round().long(), x.round().long()], dim=1)
    looks = _cut(truth, centre)
    mask = ((looks - _cut(scenery, centre)).abs().amax(dim=1, keepdim=True) > DIFFERS).float()
    gain = _match(scenery.square() - 2 * frames * scenery, mask.expand_as(looks)) + 2 * _match(frames, looks * mask)
    gain = gain - (looks.square() * mask).sum(dim=(1, 2, 3)).view(-1, 1, 1)
    most, best = gain.flatten(1).max(dim=1)
    lost = most <= 0
    found = torch.stack([best // frames.shape[-1], best % frames.shape[-1]], dim=1).where(~lost[:, None], centre)
    seen, behind = _cut(frames, found), _cut(scenery, found)
    return ObjectReading(
        lost=lost,
        place=torch.where(lost, math.hypot(*frames.shape[-2:]), (found - centre).float().norm(dim=1)),
        colour=_mean(seen - looks, mask).norm(dim=1),
        shape=_variance(seen - looks, mask) / _variance(behind - looks, mask),
    )


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean [N, 3] of `values` [N, 3, k, k] over `mask` [N, 1, k, k]."""
    return (values * mask).sum(dim=(2, 3)) / mask.sum(dim=(2, 3))


def _variance(values: Tensor, mask: Tensor) -> Tensor:
    """Return the mean square [N] of `values` [N, 3, k, k] over `mask`, without their mean colour."""
    rest = values - _mean(values, mask)[..., None, None]
    return _mean(rest.square(), mask).sum(dim=1)


def _match(pictures: Tensor, patterns: Tensor) -> Tensor:
    """Return the sum of products [N, H, W] of each picture and its pattern [N, 3, k, k], laid around every pixel."""
    height, width = pictures.shape[-2:]
    size = height + 2 * REACH, width + 2 * REACH  # so that nothing wraps around the border
    spectrum = (torch.fft.rfft2(pictures, s=size) * torch.fft.rfft2(patterns, s=size).conj()).sum(dim=1)
    return torch.fft.irfft2(spectrum, s=size).roll((REACH, REACH), dims=(-2, -1))[:, :height, :width]


def _cut(pictures: Tensor, centres: Tensor) -> Tensor:
    """Return the patches around `centres` [N, 2] (row, column), [N, 3, k, k], k = 2 REACH + 1; black beyond the border."""
    padded, size = F.pad(pictures, (REACH,) * 4), 2 * REACH + 1
    places = zip(padded, centres.tolist(), strict=True)
    return torch.stack([own[:, row : row + size, column : column + size] for own, (row, column) in places])
