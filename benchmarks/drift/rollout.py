"""Chains of clips, many scenes at once: each clip begins where the one before ended.

Shapes: N scenes, K clips, S slots; frames [N, T, H, W, 3] uint8.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from svi_core.flow.flow_matching import shifted_sigmas
from training.method.streams import stream

from .codec import LinearCodec
from .data import Chain, Source, condition
from .model import Texts, predict, read_captions
from .world import TrueClips


@dataclass(frozen=True)
class Scenes:
    """Held-out stories, their truth and their captions.

    Attributes:
        seeds: one per scene.
        truth: their true frames.
        texts: K captions for each scene: N * K entries, scene by scene.
    """

    seeds: tuple[int, ...]
    truth: tuple[TrueClips, ...]
    texts: Texts

    @property
    def num_clips(self) -> int:
        """Clips of each scene."""
        return len(self.truth[0].captions)

    @property
    def num_known(self) -> int:
        """Clips of each scene whose truth is known."""
        return min(len(truth.frames) for truth in self.truth)

    def text_of(self, clip: int) -> Texts:
        """Return the captions of clip `clip` of all scenes."""
        return self.texts[torch.arange(len(self.seeds)) * self.num_clips + clip]

    def first_frames(self) -> Tensor:
        """Return the first frames of the videos, [N, 1, 3, H, W] in [0, 1]."""
        return torch.stack([truth.frames[0, :1] for truth in self.truth])

    def true_clip(self, clip: int) -> np.ndarray:
        """Return the true frames of clip `clip` of all scenes."""
        return to_uint8(torch.stack([truth.frames[clip] for truth in self.truth]))


def make_scenes(source: Source, first_seed: int, num_scenes: int, num_clips: int) -> Scenes:
    """Draw scenes `first_seed`, `first_seed` + 1, ..."""
    seeds = tuple(range(first_seed, first_seed + num_scenes))
    truth = tuple(source.draw(seed, num_clips) for seed in seeds)
    return Scenes(seeds, truth, read_captions([caption for clips in truth for caption in clips.captions]))


@dataclass(frozen=True)
class GeneratedClip:
    """One clip of all scenes.

    Attributes:
        frames: [N, 21, H, W, 3] uint8, the ones shared with the clip before included.
        y_latent: [N, 16, S, h, w] that it was conditioned on.
    """

    frames: np.ndarray
    y_latent: Tensor


@torch.no_grad()
def roll_out(
    model: nn.Module,
    codec: LinearCodec,
    chain: Chain,
    scenes: Scenes,
    num_steps: int,
    seed: int,
    start_error: Tensor | float = 0.0,
) -> Iterator[GeneratedClip]:
    """Yield the clips of all scenes in order. Noise differs by clip and scene and follows from `seed`.

    One frame is handed over as 8-bit pixels, as a video file would hold it; 2.0 Pro hands over the latent. `start_error` is
    added to the latent of the frame that the first clip begins with, [N, 16, h, w].
    """
    anchor = codec.encode(_as_8_bits(scenes.first_frames()))[:, :, 0]
    first_slot, motion_slot = anchor + start_error, None
    sigmas = shifted_sigmas(num_steps)
    for clip in range(scenes.num_clips):
        y_latent = condition(codec, chain, first_slot, motion_slot, anchor)
        latent = torch.stack([
            torch.randn(y_latent.shape[1:], generator=stream(seed, clip, scene, "rollout")) for scene in scenes.seeds
        ])  # fmt: skip
        for sigma, following in itertools.pairwise(sigmas):
            level = sigma.expand(len(latent))
            latent = latent + (following - sigma) * predict(model, latent, y_latent, level, scenes.text_of(clip))
        frames = to_uint8(codec.decode(latent))
        yield GeneratedClip(frames, y_latent)
        motion_slot = latent[:, :, -1]
        first_slot = latent_of_last_frame(codec, frames)


def coded(codec: LinearCodec, scenes: Scenes, clip: int) -> np.ndarray:
    """Return the true clip `clip` of all scenes [N, 21, H, W, 3], encoded and decoded."""
    return to_uint8(codec.decode(codec.encode(torch.stack([truth.frames[clip] for truth in scenes.truth]))))


def latent_of_last_frame(codec: LinearCodec, frames: np.ndarray) -> Tensor:
    """Return the slot [N, 16, h, w] that a clip begins with after clips [N, T, H, W, 3] uint8."""
    last = torch.from_numpy(frames[:, -1:].copy()).permute(0, 1, 4, 2, 3).float() / 255
    return codec.encode(last)[:, :, 0]


def to_uint8(frames: Tensor) -> np.ndarray:
    """Return frames [..., 3, H, W] in [0, 1] as [..., H, W, 3] uint8."""
    return (frames.clamp(0, 1) * 255).round().byte().movedim(-3, -1).numpy()


def _as_8_bits(frames: Tensor) -> Tensor:
    return (frames.clamp(0, 1) * 255).round() / 255


def shown(chain: Chain, clip: int) -> slice:
    """Return which frames of clip `clip` are new in the video."""
    return slice(chain.layout.overlap if clip else 0, None)


def video_of(chain: Chain, clips: Sequence[np.ndarray]) -> np.ndarray:
    """Return the video [T, H, W, 3] of one scene's `clips` [21, H, W, 3]."""
    return np.concatenate([frames[shown(chain, index)] for index, frames in enumerate(clips)])
