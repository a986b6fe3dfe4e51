"""Train one LoRA on a base for one arm of the study: the pack's own error recycling in a plain loop on endless examples."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from svi_core.files.atomic_file import write_bytes
from svi_core.flow.flow_matching import make_flow_sample, timestep_weights, training_sigmas
from svi_core.recycling.config import ErrorRecyclingConfig
from svi_core.recycling.error_bank import ErrorBank
from svi_core.recycling.error_recycling import (
    ErrorInjection,
    InjectedInputs,
    draw_injection,
    inject,
    make_bank,
    residual,
    should_store,
    store,
    target_velocity,
)
from training.method.streams import stream
from training.model.adapters import LoraAdapters

from .arms import Arm, ErrorSource
from .codec import Codec
from .data import Batch, Chain, draw_batch
from .errors import GaussianErrors, hand_made_error
from .model import predict, velocity_error
from .world import World

NOTHING = ErrorInjection(None, None, None, is_clean=True)
WARMUP_SHARE = 0.1


@dataclass(frozen=True)
class FineTuning:
    """The LoRA training settings; the same in every arm.

    Attributes:
        batch_size: of training.
        learning_rate: of AdamW, the highest: after a linear warm-up over a tenth of the steps it falls as a cosine to a 20th.
        rank: of the LoRA; alpha is the same.
        fill_batches: batches of the base's errors in the frozen bank.
    """

    batch_size: int
    learning_rate: float
    rank: int
    fill_batches: int


@dataclass(frozen=True)
class TrainedLora:
    """A trained LoRA and its training record.

    Attributes:
        adapters: the LoRA, attached to the model.
        losses: of each step, weighted.
        bank_rms: root mean square of the latent errors in the bank by grid cell; the latents' own is about 1.
        injected_rms: root mean square of the added image errors over the examples that got one; 0 without any.
    """

    adapters: LoraAdapters
    losses: tuple[float, ...]
    bank_rms: tuple[float, ...]
    injected_rms: float


@dataclass(frozen=True)
class Subject:
    """What is fine-tuned, and on what."""

    model: nn.Module
    codec: Codec
    world: World
    chain: Chain


def train_lora(subject: Subject, arm: Arm, settings: FineTuning, seed: int) -> TrainedLora:
    """Attach a LoRA to a fresh model and train it. Data, noise and noise levels depend on `seed` and step, not on the arm.

    The same examples get errors in all arms with a bank; arms without one draw them with other random numbers.

    Raises:
        RuntimeError: the loss is not finite.
    """
    adapters = LoraAdapters(subject.model, rank=settings.rank, alpha=settings.rank, generator=stream(seed, 0, 0, "lora"))
    optimizer = torch.optim.AdamW(adapters.parameters(), lr=settings.learning_rate, weight_decay=0.0)
    trainer, losses = _Trainer(subject, arm, settings, seed), []
    for step in range(1, arm.num_steps + 1):
        loss = trainer.loss(step)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise RuntimeError(f"{arm.name}, LoRA seed {seed}: the loss is {losses[-1]} at step {step}")
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(adapters.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * _learning_rate_share(step, arm.num_steps)
        optimizer.step()
    squares = trainer.injected_squares
    injected = math.sqrt(sum(squares) / len(squares)) if squares else 0.0
    cells = trainer.bank.statistics()
    return TrainedLora(adapters, tuple(losses), tuple(cell.latent_error_rms for cell in cells), injected)


def set_strength(adapters: LoraAdapters, strength: float) -> None:
    """Scale a finished LoRA, as a LoRA loader's strength does."""
    for pair in adapters.pairs.values():
        pair.scale = strength * adapters.alpha / adapters.rank


def save_lora(adapters: LoraAdapters, path: Path) -> None:
    """Write a LoRA atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, safetensors.torch.save({name: own.contiguous() for name, own in adapters.state_dict().items()}))


def load_lora(model: nn.Module, path: Path, rank: int) -> LoraAdapters:
    """Attach the LoRA of :func:`save_lora` to `model`."""
    adapters = LoraAdapters(model, rank=rank, alpha=rank, generator=torch.Generator())
    adapters.load_state_dict(safetensors.torch.load_file(path))
    return adapters


def _learning_rate_share(step: int, num_steps: int) -> float:
    """Return the share of the highest learning rate at `step`, counted from 1."""
    rising = step / max(1, WARMUP_SHARE * num_steps)
    return min(1.0, rising) * (0.05 + 0.95 * (1 + math.cos(math.pi * step / num_steps)) / 2)


class _Trainer:
    """The losses of one arm, step by step, and its bank."""

    def __init__(self, subject: Subject, arm: Arm, settings: FineTuning, seed: int):
        self._subject, self._arm, self._settings, self._seed = subject, arm, settings, seed
        self._sigmas = training_sigmas()
        self._weights = timestep_weights(self._sigmas)
        shape = draw_batch(subject.codec, subject.world, subject.chain, 1, stream(0, 0, 0, "shape")).latent.shape[1:]
        self.bank = make_bank(shape, arm.recycling)
        self.injected_squares: list[float] = []
        if arm.source is ErrorSource.BASE:
            fill_bank(subject, self.bank, arm.recycling, settings.fill_batches, settings.batch_size, seed)

    def loss(self, step: int) -> Tensor:
        """Return the weighted loss of a step; it stores the step's errors."""
        subject, arm, random = self._subject, self._arm, stream(self._seed, step, 0, "data")
        is_own = arm.source is ErrorSource.SAME_CLIP
        batch = draw_batch(subject.codec, subject.world, subject.chain, self._settings.batch_size, random, with_before=is_own)
        ids = torch.randint(len(self._sigmas), (len(batch.latent),), generator=random)
        sigmas, noise = self._sigmas[ids], torch.randn(batch.latent.shape, generator=random)
        handed_over = self._handed_over_errors(batch, step) if is_own else [None] * len(ids)
        injections = [
            self._draw(batch, slot, handed_over[slot], float(sigma), stream(self._seed, step, slot, "errors"))
            for slot, sigma in enumerate(sigmas)
        ]
        known = [own.image_error for own in injections if own.image_error is not None]
        self.injected_squares += [float(error.square().mean()) for error in known]
        inputs = [
            inject(batch.latent[slot], noise[slot], batch.y_latent[slot], own, subject.chain.error_slots(batch.later[slot]))
            for slot, own in enumerate(injections)
        ]
        target = _targets(batch.latent, inputs, sigmas, arm)
        noisy = make_flow_sample(_stack(inputs, "latent"), _stack(inputs, "noise"), sigmas).noisy_latent
        predicted = predict(subject.model, noisy, _stack(inputs, "y_latent"), sigmas, batch.captions)
        self._store(residual(predicted, target), sigmas, injections, step)
        return ((predicted - target).square().flatten(1).mean(1) * self._weights[ids]).mean()

    def _store(self, found: Tensor, sigmas: Tensor, injections: list[ErrorInjection], step: int) -> None:
        if self._arm.source.fills_bank:
            for slot, error in enumerate(found):
                keep = stream(self._seed, step, slot, "keep")
                if should_store(injections[slot], self._arm.recycling, keep):
                    store(self.bank, error, float(sigmas[slot]), self._arm.recycling, keep)

    def _draw(
        self, batch: Batch, slot: int, handed_over: Tensor | None, sigma: float, random: torch.Generator
    ) -> ErrorInjection:
        """Draw the errors of one example from the arm's source; `handed_over` is the clip before's, [16, 1, h, w]."""
        arm, slots = self._arm, self._subject.chain.error_slots(batch.later[slot])
        if arm.source is ErrorSource.NOTHING:
            return NOTHING
        if arm.source in (ErrorSource.OWN, ErrorSource.BASE, ErrorSource.GAUSSIAN):
            errors = GaussianErrors(self.bank) if arm.source is ErrorSource.GAUSSIAN else self.bank
            return draw_injection(errors, sigma, arm.recycling, random, slots)
        image_draw, clean_draw = torch.rand(2, generator=random).tolist()
        if clean_draw < arm.recycling.clean_prob or image_draw >= arm.recycling.image_prob or not slots:
            return replace(NOTHING, is_clean=clean_draw < arm.recycling.clean_prob)
        if handed_over is None:
            known = batch.y_latent[slot, :, slots.start : slots.start + 1]
            handed_over = hand_made_error(self._subject.codec, known, random)
        return ErrorInjection(None, None, handed_over, is_clean=False)

    @torch.no_grad()
    def _handed_over_errors(self, batch: Batch, step: int) -> Tensor:
        """Return the errors [B, 16, 1, h, w] that the clips before would hand over, made in one step from a level at random.

        As in a chain they belong to the examples' own scenes, while an error from a bank is another clip's.
        """
        random, before = stream(self._seed, step, 0, "clip before"), batch.before
        sigma = torch.tensor(self.bank.grid.sigmas)[
            torch.randint(self.bank.grid.num_grids, (len(before.latent),), generator=random)
        ]
        noise = torch.randn(before.latent.shape, generator=random)
        found = velocity_error(self._subject.model, before.latent, noise, before.y_latent, sigma, before.captions)
        return (-sigma.view(-1, 1, 1, 1, 1) * found)[:, :, -1:]


@torch.no_grad()
def fill_bank(
    subject: Subject, bank: ErrorBank, recycling: ErrorRecyclingConfig, num_batches: int, batch_size: int, seed: int
) -> None:
    """Put the errors of the model on `num_batches` clean batches into `bank`."""
    sigmas = training_sigmas()
    for index in range(num_batches):
        random = stream(seed, index, 0, "fill")
        batch = draw_batch(subject.codec, subject.world, subject.chain, batch_size, random)
        sigma = sigmas[torch.randint(len(sigmas), (batch_size,), generator=random)]
        noise = torch.randn(batch.latent.shape, generator=random)
        found = velocity_error(subject.model, batch.latent, noise, batch.y_latent, sigma, batch.captions)
        for error, level in zip(found, sigma, strict=True):
            store(bank, error, float(level), recycling, random)


def _targets(latent: Tensor, inputs: list[InjectedInputs], sigmas: Tensor, arm: Arm) -> Tensor:
    drawn = zip(latent, inputs, sigmas, strict=True)
    return torch.stack([target_velocity(clean, own, float(sigma), arm.recycling.objective) for clean, own, sigma in drawn])


def _stack(inputs: list[InjectedInputs], name: str) -> Tensor:
    return torch.stack([getattr(own, name) for own in inputs])
