"""Train a base: flow matching on the study's world, all examples in the layout of the chains, no errors injected.

Places near the object weigh more in the loss; otherwise a small model learns the scenery and lets the object fade.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from demo.models.train_dit import build_optimizers
from demo.models.training_run import MovingAverage, learning_rate
from svi_core.flow.flow_matching import make_flow_sample, training_sigmas
from training.method.streams import stream

from .codec import LinearCodec
from .data import Chain, StoryData, true_condition
from .model import Texts, build_model, predict

PEAK_LEARNING_RATE, WARMUP_STEPS, AVERAGE_DECAY = 2e-3, 30, 0.99
P_MOTION = 0.9  # that a 2.0 Pro example is laid out as a later clip


@dataclass(frozen=True)
class Example:
    """One training clip.

    Attributes:
        story, clip: its indices in the data.
        later: whether it is conditioned on a clip before.
        y_latent: [16, S, h, w].
    """

    story: int
    clip: int
    later: bool
    y_latent: Tensor


def draw_example(codec: LinearCodec, data: StoryData, chain: Chain, random: torch.Generator) -> Example:
    """Draw a clip and its conditioning; takes three random numbers."""
    story_draw, clip_draw, motion_draw = torch.rand(3, generator=random, dtype=torch.float64).tolist()
    num_stories, num_clips = data.latents.shape[:2]
    story, later = int(story_draw * num_stories), chain is Chain.PRO and motion_draw < P_MOTION
    clip = 1 + int(clip_draw * (num_clips - 1)) if later else int(clip_draw * num_clips)
    return Example(story, clip, later, true_condition(codec, data, chain, story, clip, later))


def stacked(data: StoryData, examples: list[Example]) -> tuple[Tensor, Tensor, Texts]:
    """Return latents, conditioning latents [B, 16, S, h, w] and captions of `examples`."""
    stories, clips = torch.tensor([e.story for e in examples]), torch.tensor([e.clip for e in examples])
    return data.latents[stories, clips], torch.stack([e.y_latent for e in examples]), data.text_of(stories, clips)


def focused_error(error: Tensor, data: StoryData, examples: list[Example]) -> Tensor:
    """Return the mean square [B] of `error` [B, 16, S, h, w], with more weight near the object."""
    focus = torch.stack([data.focus[example.story, example.clip] for example in examples])[:, None]
    return (error.square() * focus).flatten(1).mean(1) / focus.flatten(1).mean(1)


def train_base(
    codec: LinearCodec,
    data: StoryData,
    chain: Chain,
    seed: int,
    num_steps: int,
    batch_size: int,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> nn.Module:
    """Return a base trained on clips in the layout of `chain`.

    Raises:
        RuntimeError: the loss is not finite.
    """
    model = build_model(seed)
    optimizers, moving = build_optimizers(model, PEAK_LEARNING_RATE), MovingAverage(model, AVERAGE_DECAY)
    sigmas = training_sigmas()
    for step in range(num_steps):
        random = stream(seed, step, 0, "base")
        examples = [draw_example(codec, data, chain, random) for _ in range(batch_size)]
        latent, y_latent, texts = stacked(data, examples)
        sigma = sigmas[torch.randint(len(sigmas), (batch_size,), generator=random)]
        sample = make_flow_sample(latent, torch.randn(latent.shape, generator=random), sigma)
        error = predict(model, sample.noisy_latent, y_latent, sigma, texts) - sample.velocity
        loss = focused_error(error, data, examples).mean()
        if not math.isfinite(float(loss.detach())):
            raise RuntimeError(f"base {seed}: the loss is {float(loss)} at step {step}")
        model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(PEAK_LEARNING_RATE, step / num_steps, step, WARMUP_STEPS)
            optimizer.step()
        moving.update(model)
        on_step(step + 1, float(loss.detach()))
    moving.copy_to(model)
    return model.requires_grad_(False).eval()


@torch.no_grad()
def clean_loss(
    model: nn.Module, codec: LinearCodec, data: StoryData, chain: Chain, num_examples: int = 64, seed: int = 99
) -> float:
    """Return the mean velocity error on examples of `data` with true conditioning, at evenly spread training noise levels."""
    losses = []
    sigmas = training_sigmas()
    for start in range(0, num_examples, 16):
        random = stream(seed, start, 0, "validation")
        latent, y_latent, texts = stacked(data, [draw_example(codec, data, chain, random) for _ in range(16)])
        sigma = sigmas[torch.linspace(20, 980, 16).long()]
        sample = make_flow_sample(latent, torch.randn(latent.shape, generator=random), sigma)
        error = predict(model, sample.noisy_latent, y_latent, sigma, texts) - sample.velocity
        losses.append(error.square().flatten(1).mean(1))
    return float(torch.cat(losses).mean())
