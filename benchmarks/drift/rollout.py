"""Chains of clips, many scenes at once: each clip begins where the one before ended.

Shapes: N scenes, S slots, latents [N, 16, S, h, w], frames [N, 5, 3, H, W] in [0, 1].
"""

import itertools
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from svi_core.flow.flow_matching import shifted_sigmas
from training.method.streams import stream

from .codec import Codec
from .data import Chain, condition
from .losses import Losses
from .model import NO_CAPTION, predict
from .world import Scenes


@torch.no_grad()
def roll_out(
    model: nn.Module, codec: Codec, chain: Chain, scenes: Scenes, losses: Losses, num_clips: int, seed: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield frames as shown and latent of each clip of all scenes; noise differs by clip and follows from `seed`."""
    anchor = first = codec.encode(scenes.frames[:, :1])[:, :, 0]
    motion = None
    for clip in range(num_clips):
        y_latent = condition(codec, chain, first, motion, anchor)
        noise = torch.randn(y_latent.shape, generator=stream(seed, clip, 0, "rollout"))
        latent = sample(model, noise, y_latent, scenes.captions, losses)
        frames = codec.decode(latent, lossy=losses.vae).clamp(0, 1)
        yield frames, latent
        motion = latent[:, :, -1]
        if not chain.in_latent_space:
            first = codec.encode(losses.hand_over(frames[:, -1])[:, None])[:, :, 0]


@torch.no_grad()
def sample(model: nn.Module, noise: Tensor, y_latent: Tensor, captions: Tensor, losses: Losses) -> Tensor:
    """Return the latents that Euler steps make of `noise`."""
    latent, nothing = noise, torch.full_like(captions, NO_CAPTION)
    for sigma, following in itertools.pairwise(shifted_sigmas(losses.num_steps)):
        level = sigma.expand(len(latent))
        velocity = predict(model, latent, y_latent, level, captions)
        if losses.guidance != 1:
            without = predict(model, latent, y_latent, level, nothing)
            velocity = without + losses.guidance * (velocity - without)
        latent = latent + (following - sigma) * velocity
    return latent
