"""Strong augmentation of the frames that a later clip continues from, so that the model restores them by the anchor.

A draw changes the known frames of one example all alike, before the VAE; anchor, target and first clips stay as they are. Draws
are encoded when the cache is built, each under a key of its own; a training step takes one of them or the frames as they are.
Source: https://github.com/vita-epfl/Stable-Video-Infinity/tree/svi_wan22, README.md, "Re-implementation Tips" (strong image
augmentation of the first frame, for restoration guided by the anchor); docs/METHOD.md, 9.9. Its strengths are unpublished:
these are those of version 1.0's unused option, https://github.com/vita-epfl/Stable-Video-Infinity,
diffsynth/pipelines/base.py, without its mistake (docs/METHOD.md, 9.11).
"""

from dataclasses import dataclass
from math import ceil, cos, pi, sin
from random import Random

import torch
from torch import Tensor
from torch.nn import functional

from svi_core.files.fingerprint import fingerprint
from training.settings.data import DataConfig

_VERSION = 1  # part of every key: increase it when the same draw gives other frames
_GREY = (0.299, 0.587, 0.114)
_CHROMA = torch.tensor([_GREY, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])  # RGB to YIQ


@dataclass(frozen=True)
class Augmentation:
    """One change of a picture; the defaults change nothing.

    Attributes:
        brightness: factor of all values.
        contrast: factor of the distance from the mean grey.
        saturation: factor of the distance from each pixel's grey.
        hue: turn of the hues, 1: all the way round.
        blur: standard deviation of the Gaussian blur in pixels; 0: none.
        sharpness: share of the difference from a slightly blurred picture that is added.
    """

    brightness: float = 1.0
    contrast: float = 1.0
    saturation: float = 1.0
    hue: float = 0.0
    blur: float = 0.0
    sharpness: float = 0.0


def draw_keys(key: str, later_clip: bool, config: DataConfig) -> tuple[str, ...]:
    """Return the cache keys of the draws of the example `key`; none for a first clip, whose picture is the user's own."""
    numbers = range(config.first_frame_draws if later_clip else 0)
    return tuple(fingerprint("svi first frame", _VERSION, key, number, config.first_frame_strength) for number in numbers)


def augmentation_of(draw_key: str, strength: float) -> Augmentation:
    """Return the change that the key of a draw stands for. It always is one.

    Args:
        draw_key: one of :func:`draw_keys`.
        strength: factor of all ranges; 1 as in version 1.0.
    """
    draw = Random(draw_key)
    brightness, contrast, saturation = (1.0 + 0.3 * strength * draw.uniform(-1, 1) for _ in range(3))
    hue, blur = 0.1 * strength * draw.uniform(-1, 1), strength * draw.uniform(0.1, 2.0)
    while not any(chosen := (draw.random() < 0.7, draw.random() < 0.5, draw.random() < 0.5)):
        pass
    colours = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue} if chosen[0] else {}
    return Augmentation(**colours, blur=blur if chosen[1] else 0.0, sharpness=strength if chosen[2] else 0.0)


def augmented(frames: Tensor, change: Augmentation) -> Tensor:
    """Return `frames` [T, H, W, 3] in [0, 1] after the same `change` of all of them."""
    frames = (frames * change.brightness).clamp(0, 1)
    mean = (frames @ frames.new_tensor(_GREY)).mean()
    frames = (mean + (frames - mean) * change.contrast).clamp(0, 1)
    grey = (frames @ frames.new_tensor(_GREY))[..., None]
    frames = (grey + (frames - grey) * change.saturation).clamp(0, 1)
    if change.hue:
        frames = (frames @ _turn(change.hue).T).clamp(0, 1)
    if change.blur:
        frames = _blurred(frames, change.blur).clamp(0, 1)
    if change.sharpness:
        frames = (frames + change.sharpness * (frames - _blurred(frames, 0.6))).clamp(0, 1)
    return frames


def choose_draw(draws: tuple[str, ...], config: DataConfig, *place: int) -> str | None:
    """Return which of `draws` the visit of an example takes, or None for the frames as they are.

    Args:
        draws: keys of the example's draws.
        config: how often a draw is taken.
        place: seed, step and slot of the visit, of which the choice is a pure function.
    """
    chance = Random(fingerprint("svi choice of first frame", *place))
    return chance.choice(draws) if draws and chance.random() < config.first_frame_prob else None


def _turn(hue: float) -> Tensor:
    """Return the matrix [3, 3] that turns the chroma of RGB colours."""
    turned = torch.eye(3)
    turned[1:, 1:] = torch.tensor([[cos(2 * pi * hue), -sin(2 * pi * hue)], [sin(2 * pi * hue), cos(2 * pi * hue)]])
    return torch.linalg.inv(_CHROMA) @ turned @ _CHROMA


def _blurred(frames: Tensor, sigma: float) -> Tensor:
    """Return `frames` blurred along both sides, with their edges repeated."""
    reach = ceil(3 * sigma)
    weights = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / sigma) ** 2)
    weights = (weights / weights.sum()).expand(3, 1, 1, -1).contiguous()
    planes = frames.movedim(-1, 1)
    for kernel, padding in ((weights, (reach, reach, 0, 0)), (weights.mT, (0, 0, reach, reach))):
        planes = functional.conv2d(functional.pad(planes, padding, mode="replicate"), kernel, groups=3)
    return planes.movedim(1, -1).contiguous()
