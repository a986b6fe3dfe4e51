"""Train a base: an image-to-video model that knows the first frame of a clip and the caption, and never saw an anchor."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from demo.models.training_run import MovingAverage, learning_rate
from svi_core.files.atomic_file import staged
from svi_core.flow.flow_matching import training_sigmas
from training.method.streams import stream

from .codec import Codec
from .data import Chain, draw_batch
from .model import NO_CAPTION, build_model, velocity_error
from .world import World

PEAK_LEARNING_RATE, WARMUP_STEPS, AVERAGE_DECAY = 2e-3, 100, 0.995
LOSS_BATCHES, LOSS_BATCH = 12, 32  # of the clean loss
P_NO_CAPTION = 0.1  # so that it can be guided


@dataclass(frozen=True)
class BaseTraining:
    """The settings of a base.

    Attributes:
        num_steps, batch_size: of training.
        save_every: steps between checkpoints.
    """

    num_steps: int
    batch_size: int
    save_every: int = 250


def train_base(
    codec: Codec,
    world: World,
    seed: int,
    settings: BaseTraining,
    checkpoint: Path,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
) -> nn.Module:
    """Return a base trained on `world`; a checkpoint is continued.

    Raises:
        RuntimeError: the loss is not finite.
    """
    model = build_model(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=PEAK_LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.01)
    moving, done = MovingAverage(model, AVERAGE_DECAY), 0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        moving.load_state_dict(state["average"])
        done = state["step"]
    for step in range(done + 1, settings.num_steps + 1):
        loss = _loss(model, codec, world, settings.batch_size, stream(seed, step, 0, "base"))
        if not math.isfinite(float(loss.detach())):
            raise RuntimeError(f"base {seed}: the loss is {float(loss)} at step {step}")
        model.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(PEAK_LEARNING_RATE, step / settings.num_steps, step - 1, WARMUP_STEPS)
        optimizer.step()
        moving.update(model)
        on_step(step, float(loss.detach()))
        if step % settings.save_every == 0:
            _save(
                checkpoint, {"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict(), "average": moving}
            )
    moving.copy_to(model)
    return model.requires_grad_(False).eval()


def _loss(model: nn.Module, codec: Codec, world: World, batch_size: int, random: torch.Generator) -> torch.Tensor:
    """Return the mean velocity error of fresh examples."""
    batch = draw_batch(codec, world, Chain.FILM, batch_size, random)
    sigmas = training_sigmas()
    sigma = sigmas[torch.randint(len(sigmas), (batch_size,), generator=random)]
    noise = torch.randn(batch.latent.shape, generator=random)
    nameless = torch.rand(batch_size, generator=random) < P_NO_CAPTION
    captions = torch.where(nameless, NO_CAPTION, batch.captions)
    return velocity_error(model, batch.latent, noise, batch.y_latent, sigma, captions).square().mean()


def _save(checkpoint: Path, state: dict) -> None:
    """Write the checkpoint atomically."""
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    with staged(checkpoint) as staging:
        torch.save(state | {"average": state["average"].state_dict()}, staging)


@torch.no_grad()
def clean_loss(model: nn.Module, codec: Codec, world: World, chain: Chain, seed: int, *, trained_on: bool = False) -> float:
    """Return the mean velocity error with true conditioning at evenly spread training noise levels.

    Args:
        model: with its LoRA, if it has one.
        codec, world, chain: of the examples.
        seed: of the examples.
        trained_on: take those of the first steps of the base of this seed instead of fresh ones.
    """
    sigma = training_sigmas()[torch.linspace(20, 980, LOSS_BATCH).long()]
    losses = []
    for index in range(1, LOSS_BATCHES + 1):
        batch = draw_batch(codec, world, chain, LOSS_BATCH, stream(seed, index, 0, "base" if trained_on else "validation"))
        noise = torch.randn(batch.latent.shape, generator=stream(seed, index, 0, "noise"))
        losses.append(velocity_error(model, batch.latent, noise, batch.y_latent, sigma, batch.captions).square().mean())
    return float(torch.stack(losses).mean())
