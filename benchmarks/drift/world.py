"""The study's two worlds: pictures that must be copied from the first frame, and pictures that can be recognised.

A scene is a bank, the upper half, above a river, the lower half, each with a texture of its own, on a torus. The river flows
to the left or to the right past the bank, and the camera rests or pans to the left or to the right, by one latent place a
frame. All that is to be seen is in the first frame. How it moves is only half known, as with real captions: they name the
flow, and the camera is for the model to choose. The amplitudes fall with the frequency as in natural pictures (here as
f^-1.5: details below 8 pixels would not survive the codec). In the endless world each scene has textures of its own, in the
other one they are those of one of five scenes, which a model can learn by heart; bank and river begin at any place, so
that a first frame does not tell how the camera moves.

A frame stands for one latent slot: time is not compressed. A clip has S = 5 frames and shares one with the next. Frames are
[N, T, 3, 32, 48] in [0, 1]. All is back after six frames, so neighbouring clips differ.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cache

import torch
from torch import Tensor

NUM_SLOTS, HEIGHT, WIDTH = 5, 32, 48
STEP = 8  # pixels, a latent place
PARTS = ("bank", "river")  # from top to bottom
FLOWS = (-STEP, STEP)  # of the river past the bank, a frame
CAMERAS = (0, -STEP, STEP)  # of the picture, a frame
REST_SHARE = 0.5  # of the scenes have a camera at rest
CONTRAST, COLOURS = 0.16, 0.3  # deviation of the luminance, range of the mean colours
MIX = ((1.0, 0.35, 0.2), (1.0, 0.0, -0.4), (1.0, -0.35, 0.2))  # rows R, G, B of luminance and two weak chroma planes
FALL, LOWEST = 1.5, 0.02  # of the amplitudes
NUM_KNOWN = 5  # scenes of the small world


class World(StrEnum):
    """Which textures the scenes have."""

    ENDLESS = "endless textures"
    FEW = "five textures"


@dataclass(frozen=True)
class Scenes:
    """N scenes.

    Attributes:
        frames: [N, T, 3, 32, 48].
        captions: [N], how the river flows: places in FLOWS.
    """

    frames: Tensor
    captions: Tensor

    def clip(self, index: int, overlap: int) -> Tensor:
        """Return the frames [N, 5, 3, 32, 48] of clip `index`; neighbouring clips share `overlap` frames."""
        start = index * (NUM_SLOTS - overlap)
        return self.frames[:, start : start + NUM_SLOTS]


def num_frames(num_clips: int, overlap: int) -> int:
    """Return the frames of a story of `num_clips`."""
    return num_clips * (NUM_SLOTS - overlap) + overlap


def draw_scenes(world: World, num_scenes: int, num_frames: int, random: torch.Generator) -> Scenes:
    """Draw scenes; they follow from `random` alone."""
    banks, rivers = _textures(num_scenes, random), _textures(num_scenes, random)
    if world is World.FEW:
        known = torch.randint(NUM_KNOWN, (num_scenes,), generator=random)
        starts = STEP * torch.randint(WIDTH // STEP, (2, num_scenes, 1), generator=random)
        banks, rivers = (_moved(own[known], start)[:, 0] for own, start in zip(_known_textures(), starts, strict=True))
    flow = torch.randint(len(FLOWS), (num_scenes,), generator=random)
    moving = torch.rand(num_scenes, generator=random) >= REST_SHARE
    camera = torch.randint(1, len(CAMERAS), (num_scenes,), generator=random) * moving
    time = torch.arange(num_frames)
    panned = torch.tensor(CAMERAS)[camera, None] * time
    flowed = panned + torch.tensor(FLOWS)[flow, None] * time
    frames = torch.cat([_moved(banks, panned), _moved(rivers, flowed)], dim=3)
    return Scenes(frames, flow)


def to_parts(frames: Tensor) -> tuple[Tensor, ...]:
    """Return the bank and the river of frames [..., 32, 48]."""
    return frames.chunk(len(PARTS), dim=-2)


def _moved(textures: Tensor, shifts: Tensor) -> Tensor:
    """Return textures [N, C, H, W] moved to the right on the torus by `shifts` [N, T], as [N, T, C, H, W]."""
    width = textures.shape[-1]
    sources = (torch.arange(width) - shifts[:, :, None]) % width
    spread = textures[:, None].expand(-1, shifts.shape[1], -1, -1, -1)
    return spread.gather(4, sources[:, :, None, None].expand_as(spread))


def _textures(count: int, random: torch.Generator) -> Tensor:
    """Return textures [count, 3, 16, 48] in [0, 1]."""
    spectrum = torch.fft.fft2(torch.randn(count, 3, HEIGHT // 2, WIDTH, generator=random)) * _amplitudes()
    planes = torch.fft.ifft2(spectrum).real
    mean = 0.5 + COLOURS * (torch.rand(count, 3, 1, 1, generator=random) - 0.5)
    return (mean + CONTRAST * torch.einsum("rp,nphw->nrhw", torch.tensor(MIX), planes)).clamp(0, 1)


@cache
def _amplitudes() -> Tensor:
    """Return the factors [16, 48] of white noise's spectrum; the result has a variance of 1 and a mean of 0."""
    frequency = torch.hypot(torch.fft.fftfreq(HEIGHT // 2)[:, None], torch.fft.fftfreq(WIDTH)[None])
    factors = (frequency + LOWEST) ** -FALL
    factors[0, 0] = 0.0
    return factors / factors.square().mean().sqrt()


@cache
def _known_textures() -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(5)
    return _textures(NUM_KNOWN, random), _textures(NUM_KNOWN, random)
