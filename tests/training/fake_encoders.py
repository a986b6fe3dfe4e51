"""Encoders whose values say which frames went in: a latent slot holds the numbers of its frames.

Slot 0 holds the number of frame 0, slot k the mean of frames 4k - 3 .. 4k, in every channel and place; channel 1 says how many
frames were encoded together. Clips are those of synthetic_clips, read without crop.
"""

import hashlib

import torch
from torch import Tensor

from tests.training.synthetic_clips import FIRST_LEVEL

GREY = 0.5 * 255 - FIRST_LEVEL  # what a slot of mid-grey frames holds


class FakeEncoders:
    """Counts what it is asked for."""

    def __init__(self, vae: str = "vae A", text_encoder: str = "text A", clip_vision: str = ""):
        self.fingerprints = {"vae": vae, "text_encoder": text_encoder, "clip_vision": clip_vision}
        self.num_videos = 0
        self.num_texts = 0

    def text(self, prompt: str) -> Tensor:
        """Return 8 tokens of width 4, of which the first as many as the prompt has words are not zero."""
        self.num_texts += 1
        words = prompt.split()
        tokens = torch.zeros(8, 4)
        for row, word in enumerate(words[:8]):
            tokens[row] = 1.0 + int(hashlib.sha256(word.encode()).hexdigest()[:2], 16)
        return tokens

    def release_text_encoder(self) -> None:
        """Nothing is held."""

    def video(self, frames: Tensor) -> Tensor:
        """Return [16, F, h, w], see the module's docstring."""
        self.num_videos += 1
        count, height, width, _ = frames.shape
        numbers = frames[:, height // 4 : -height // 4, width // 8 : width * 3 // 8].mean((1, 2, 3)) * 255 - FIRST_LEVEL
        slots = torch.cat([numbers[:1], numbers[1:].view(-1, 4).mean(1)])
        latent = slots[None, :, None, None].expand(16, -1, height // 8, width // 8).clone()
        latent[1] = count
        return latent

    def vision(self, image: Tensor) -> Tensor | None:
        """Return the number of the frame as tokens, where CLIP vision is used."""
        if not self.fingerprints["clip_vision"]:
            return None
        height, width, _ = image.shape
        number = image[height // 4 : -height // 4, width // 8 : width * 3 // 8].mean() * 255 - FIRST_LEVEL
        return number.expand(257, 1280).clone()
