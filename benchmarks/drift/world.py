"""The study's two worlds: pictures that must be copied from the first frame, and pictures that can be recognised.

A scene is a texture on a torus, with one disc on it. The disc moves in one of eight directions; the camera rests or pans by one
latent place a frame. The caption names both motions, so every later frame follows from the first one and the caption. The
texture's amplitudes fall with the frequency as in natural pictures (here as f^-1.5: details below 8 pixels would not survive
the codec). In the endless world each scene has a texture of its own, in the other one it is one of five, which a model can
learn by heart.

A frame stands for one latent slot: time is not compressed. A clip has S = 5 frames and shares one with the next. Frames are
[N, T, 3, 48, 48] in [0, 1].
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import torch
from torch import Tensor

NUM_SLOTS, SIDE, PAN = 5, 48, 8  # a camera moves PAN pixels a frame
NUM_DIRECTIONS, SPEED, RADIUS, EDGE = 8, 5.0, 6.5, 0.8  # of the disc; pixels
CAMERAS = ((0, 0), (0, PAN), (0, -PAN), (PAN, 0), (-PAN, 0))
REST_SHARE = 0.5  # of the scenes have a camera at rest
CONTRAST, COLOURS = 0.16, 0.2  # deviation of the luminance, range of the mean colour
MIX = ((1.0, 0.35, 0.2), (1.0, 0.0, -0.4), (1.0, -0.35, 0.2))  # rows R, G, B of luminance and two weak chroma planes
FALL, LOWEST = 1.5, 0.02  # of the amplitudes
NUM_KNOWN = 5  # textures of the small world


class World(StrEnum):
    """Which textures the scenes have."""

    ENDLESS = "endless textures"
    FEW = "five textures"


@dataclass(frozen=True)
class Scenes:
    """N scenes.

    Attributes:
        frames: [N, T, 3, 48, 48].
        captions: [N], `len(CAMERAS)` times the direction plus the camera.
    """

    frames: Tensor
    captions: Tensor

    def clip(self, index: int, overlap: int) -> Tensor:
        """Return the frames [N, 5, 3, 48, 48] of clip `index`; neighbouring clips share `overlap` frames."""
        start = index * (NUM_SLOTS - overlap)
        return self.frames[:, start : start + NUM_SLOTS]


def num_frames(num_clips: int, overlap: int) -> int:
    """Return the frames of a story of `num_clips`."""
    return num_clips * (NUM_SLOTS - overlap) + overlap


def draw_scenes(world: World, num_scenes: int, num_frames: int, random: torch.Generator) -> Scenes:
    """Draw scenes; they follow from `random` alone."""
    textures = _textures(num_scenes, random)
    if world is World.FEW:
        textures = _known_textures()[torch.randint(NUM_KNOWN, (num_scenes,), generator=random)]
    colour = 0.05 + 0.9 * torch.rand(num_scenes, 3, generator=random)
    place = SIDE * torch.rand(num_scenes, 2, generator=random)
    direction = torch.randint(NUM_DIRECTIONS, (num_scenes,), generator=random)
    moving = torch.rand(num_scenes, generator=random) >= REST_SHARE
    camera = torch.randint(1, len(CAMERAS), (num_scenes,), generator=random) * moving
    angle = direction * (2 * math.pi / NUM_DIRECTIONS)
    step = SPEED * torch.stack([angle.sin(), angle.cos()], dim=1)
    frames = []
    for time in range(num_frames):
        mask = _disc(place + step * time)
        shifts = [tuple(time * pixels for pixels in CAMERAS[own]) for own in camera.tolist()]
        scenery = torch.stack([own.roll(shift, (1, 2)) for own, shift in zip(textures, shifts, strict=True)])
        frames.append(scenery * (1 - mask) + mask * colour[:, :, None, None])
    return Scenes(torch.stack(frames, dim=1), len(CAMERAS) * direction + camera)


def _textures(count: int, random: torch.Generator) -> Tensor:
    """Return textures [count, 3, 48, 48] in [0, 1]."""
    spectrum = torch.fft.fft2(torch.randn(count, 3, SIDE, SIDE, generator=random)) * _amplitudes()
    planes = torch.fft.ifft2(spectrum).real
    mean = 0.5 + COLOURS * (torch.rand(count, 3, 1, 1, generator=random) - 0.5)
    return (mean + CONTRAST * torch.einsum("rp,nphw->nrhw", torch.tensor(MIX), planes)).clamp(0, 1)


@cache
def _amplitudes() -> Tensor:
    """Return the factors [48, 48] of white noise's spectrum; the result has a variance of 1 and a mean of 0."""
    frequency = torch.fft.fftfreq(SIDE)
    factors = (torch.hypot(frequency[:, None], frequency[None]) + LOWEST) ** -FALL
    factors[0, 0] = 0.0
    return factors / factors.square().mean().sqrt()


@cache
def _known_textures() -> Tensor:
    return _textures(NUM_KNOWN, torch.Generator().manual_seed(5))


def _disc(centre: Tensor) -> Tensor:
    """Return the mask [N, 1, 48, 48] of discs around `centre` [N, 2] (row, column) on the torus."""
    pixels = torch.arange(SIDE)
    rows, columns = ((pixels - own[:, None] + SIDE / 2) % SIDE - SIDE / 2 for own in centre.unbind(1))
    return torch.sigmoid((RADIUS - torch.hypot(rows[:, :, None], columns[:, None, :])) / EDGE)[:, None]
