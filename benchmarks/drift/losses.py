"""What a chain of clips loses between clips and by how it is sampled, each alone and all together.

Shapes: N clips; frames [N, 3, H, W] in [0, 1].
"""

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from svi_core.video.video_file import to_uint8

JPEG_QUALITY = 75


@dataclass(frozen=True)
class Losses:
    """The losses of a chain; those at the hand-over apply where pixels are handed over.

    Attributes:
        name: as in the tables.
        vae: whether clips, and so what they hand over, lose detail in the VAE's round trip.
        eight_bits: whether it is rounded to 8 bits.
        jpeg: whether it goes through a lossy codec, JPEG at quality 75 with 4:2:0 colour.
        guidance: strength of classifier-free guidance; 1 is none.
        num_steps: sampling steps of a clip.
    """

    name: str
    vae: bool = False
    eight_bits: bool = False
    jpeg: bool = False
    guidance: float = 1.0
    num_steps: int = 8

    def hand_over(self, frames: Tensor) -> Tensor:
        """Return `frames` as the next clip gets them."""
        if self.eight_bits or self.jpeg:
            pixels = to_uint8(frames.movedim(1, -1))
            pixels = _through_jpeg(pixels) if self.jpeg else pixels
            frames = torch.from_numpy(pixels).movedim(-1, 1).float() / 255
        return frames


ALL = Losses("all losses", vae=True, eight_bits=True, jpeg=True, guidance=2.0, num_steps=4)
MAIN_LOSSES = Losses("VAE and 8 bits", vae=True, eight_bits=True)
NONE = Losses("no loss")
REGIMES = (
    MAIN_LOSSES,
    ALL,
    NONE,
    Losses("VAE round trip", vae=True),
    Losses("8 bits", eight_bits=True),
    Losses("JPEG", jpeg=True),
    Losses("guidance 2", guidance=2.0),
    Losses("4 steps", num_steps=4),
)


def _through_jpeg(frames: np.ndarray) -> np.ndarray:
    """Return `frames` [N, H, W, 3] in uint8, compressed and decompressed."""
    out = []
    for frame in frames:
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=JPEG_QUALITY)
        out.append(np.asarray(Image.open(file)))
    return np.stack(out)
