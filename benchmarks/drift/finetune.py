"""Train one LoRA on a base for one arm of the study: the pack's own error recycling in a plain loop."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

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
from training.model.adapters import LoraPair

from .arms import Arm, ErrorSource
from .base import Example, draw_example, focused_error, stacked
from .codec import LinearCodec
from .data import Chain, StoryData, true_condition
from .errors import GaussianErrors, hand_made_error
from .model import attach_lora, predict

NOTHING = ErrorInjection(None, None, None, is_clean=True)


@dataclass(frozen=True)
class FineTuning:
    """The LoRA training settings; the same in every arm.

    Attributes:
        num_steps, batch_size: of training.
        learning_rate: of AdamW, after a linear warm-up over a tenth of the steps.
        rank: of the LoRA; alpha is the same.
        fill_batches: batches of the base's errors in the frozen bank.
    """

    num_steps: int
    batch_size: int
    learning_rate: float
    rank: int
    fill_batches: int


@dataclass(frozen=True)
class TrainedLora:
    """A trained LoRA and its training record.

    Attributes:
        pairs: the LoRA, attached to the model.
        losses: of each step, weighted.
        bank_rms: root mean square of the latent errors in the bank by grid cell; the latents' own is about 1.
        bank_fill: entries by grid cell.
        injected_rms: root mean square of the added image errors over the examples that got one; 0 without any.
        injected_focused_rms: the same with each place weighted as in the loss, more near the object.
    """

    pairs: dict[str, LoraPair]
    losses: tuple[float, ...]
    bank_rms: tuple[float, ...]
    bank_fill: tuple[int, ...]
    injected_rms: float
    injected_focused_rms: float


def train_lora(
    model: nn.Module, codec: LinearCodec, data: StoryData, chain: Chain, arm: Arm, settings: FineTuning, seed: int
) -> TrainedLora:
    """Attach a LoRA to `model` and train it. Data, noise and noise levels depend on `seed` and step, not on the arm.

    The same examples get errors in all arms with a bank; arms without one draw them with other random numbers.

    Raises:
        RuntimeError: the loss is not finite.
    """
    pairs = attach_lora(model, settings.rank, stream(seed, 0, 0, "lora"))
    parameters = [parameter for pair in pairs.values() for parameter in pair.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate)
    bank = make_bank(data.latents.shape[2:], arm.recycling)
    sigmas = training_sigmas()
    weights, losses, squares = timestep_weights(sigmas), [], []
    if arm.source is ErrorSource.BASE:
        fill_bank(model, codec, data, chain, arm.recycling, bank, settings.fill_batches, settings.batch_size, seed)
    for step in range(1, settings.num_steps + 1):
        random = stream(seed, step, 0, "data")
        examples = [draw_example(codec, data, chain, random) for _ in range(settings.batch_size)]
        ids = torch.randint(len(sigmas), (settings.batch_size,), generator=random)
        latent, y_latent, texts = stacked(data, examples)
        noise = torch.randn(latent.shape, generator=random)
        handed_over: list[Tensor | None] = [None] * len(examples)
        if arm.source.is_handed_over:
            levels = bank.grid.sigmas[slice(*arm.recycling.image_error_range)]
            handed_over = handed_over_errors(model, codec, data, chain, examples, levels, stream(seed, step, 0, "clip before"))
        injections = [
            _draw(codec, bank, chain, arm, example, own, float(sigmas[i]), stream(seed, step, slot, "errors"))
            for slot, (example, own, i) in enumerate(zip(examples, handed_over, ids, strict=True))
        ]
        if arm.source is ErrorSource.OTHER_CLIP:
            injections = exchanged(injections)
        squares += [
            _error_squares(data, chain, example, own)
            for example, own in zip(examples, injections, strict=True)
            if own.image_error is not None
        ]
        inputs = [
            inject(latent[slot], noise[slot], y_latent[slot], injections[slot], chain.error_slots(example.later))
            for slot, example in enumerate(examples)
        ]
        target = _targets(latent, inputs, sigmas[ids], arm)
        sample = make_flow_sample(_stack(inputs, "latent"), _stack(inputs, "noise"), sigmas[ids])
        y_latent = _stack(inputs, "y_latent")
        if chain is Chain.ONE_FRAME:  # the padding is the known frame's, errors included
            y_latent = codec.at_rest(y_latent[:, :, 0], y_latent.shape[2])
        predicted = predict(model, sample.noisy_latent, y_latent, sigmas[ids], texts)
        loss = (focused_error(predicted - target, data, examples) * weights[ids]).mean()
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise RuntimeError(f"{arm.name}, LoRA seed {seed}: the loss is {losses[-1]} at step {step}")
        _learn(optimizer, parameters, loss, settings, step)
        if arm.source not in (ErrorSource.NOTHING, ErrorSource.BASE) and not arm.source.is_handed_over:
            for slot, found in enumerate(residual(predicted, target)):
                keep = stream(seed, step, slot, "keep")
                if should_store(injections[slot], arm.recycling, keep):
                    store(bank, found, float(sigmas[ids[slot]]), arm.recycling, keep)
    return TrainedLora(pairs, tuple(losses), *_bank_means(bank), *_injected_means(squares))


def _bank_means(bank: ErrorBank) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the RMS of the latent errors and the fill of every cell."""
    cells = bank.statistics()
    return tuple(cell.latent_error_rms for cell in cells), tuple(cell.fill for cell in cells)


def _injected_means(squares: list[tuple[float, float]]) -> tuple[float, float]:
    """Return the RMS of the injected errors, overall and focused."""
    overall, focused = torch.tensor(squares).mean(0).sqrt().tolist() if squares else (0.0, 0.0)
    return overall, focused


def _error_squares(data: StoryData, chain: Chain, example: Example, injection: ErrorInjection) -> tuple[float, float]:
    """Return the mean square of an example's image error, and the same weighted as in the loss."""
    squares = injection.image_error.square().mean((0, 1))
    focus = data.focus[example.story, example.clip, chain.error_slots(example.later).start]
    return float(squares.mean()), float((squares * focus).mean() / focus.mean())


def _learn(optimizer, parameters: list[Tensor], loss: Tensor, settings: FineTuning, step: int) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    nn.utils.clip_grad_norm_(parameters, 1.0)
    for group in optimizer.param_groups:
        group["lr"] = settings.learning_rate * min(1.0, 10 * step / settings.num_steps)
    optimizer.step()


@torch.no_grad()
def handed_over_errors(
    model: nn.Module,
    codec: LinearCodec,
    data: StoryData,
    chain: Chain,
    examples: list[Example],
    levels: Sequence[float],
    random: torch.Generator,
) -> list[Tensor | None]:
    """Return for each example the error [16, 1, h, w] that the clip before would hand over if `model` made it in one step.

    As in a chain, it belongs to the example's own scene, while an error from a bank is another clip's. None for examples
    without a clip before.

    Args:
        model: with its LoRA as it is now.
        codec: of the latents.
        data: of the examples.
        chain: how the clip before was conditioned.
        examples: to find errors for.
        levels: noise levels from which the step may start; one is drawn for each example.
        random: draws noise and level.
    """
    errors: list[Tensor | None] = [None] * len(examples)
    slots = [slot for slot, example in enumerate(examples) if example.clip > 0 and chain.error_slots(example.later)]
    if not slots:
        return errors
    before = []
    for slot in slots:
        story, clip = examples[slot].story, examples[slot].clip - 1
        later = examples[slot].later and clip > 0
        before.append(Example(story, clip, later, true_condition(codec, data, chain, story, clip, later)))
    latent, y_latent, texts = stacked(data, before)
    sigma = torch.tensor(levels)[torch.randint(len(levels), (len(slots),), generator=random)]
    sample = make_flow_sample(latent, torch.randn(latent.shape, generator=random), sigma)
    velocity_error = sample.velocity - predict(model, sample.noisy_latent, y_latent, sigma, texts)
    last = (sigma.view(-1, 1, 1, 1, 1) * velocity_error)[:, :, -1:]
    for slot, error in zip(slots, last, strict=True):
        errors[slot] = codec.first_slot_error(error) if chain is Chain.ONE_FRAME else error
    return errors


def exchanged(injections: list[ErrorInjection]) -> list[ErrorInjection]:
    """Swap image errors among the examples that get one, so that each gets another clip's; a single error is dropped."""
    slots = [slot for slot, own in enumerate(injections) if own.image_error is not None]
    out = list(injections)
    for slot, other in zip(slots, slots[1:] + slots[:1], strict=True):
        out[slot] = replace(out[slot], image_error=injections[other].image_error if slot != other else None)
    return out


def _draw(
    codec: LinearCodec,
    bank: ErrorBank,
    chain: Chain,
    arm: Arm,
    example: Example,
    handed_over: Tensor | None,
    sigma: float,
    random: torch.Generator,
) -> ErrorInjection:
    """Draw the errors of one example from the arm's source; `handed_over` is the clip before's, [16, 1, h, w]."""
    slots = chain.error_slots(example.later)
    if arm.source is ErrorSource.NOTHING:
        return NOTHING
    if arm.source is not ErrorSource.HAND_MADE and not arm.source.is_handed_over:
        errors = GaussianErrors(bank) if arm.source is ErrorSource.GAUSSIAN else bank
        drawn = draw_injection(errors, sigma, arm.recycling, random, slots)
        if chain is Chain.ONE_FRAME and drawn.image_error is not None:
            drawn = replace(drawn, image_error=codec.first_slot_error(drawn.image_error))
        return drawn
    image_draw, clean_draw = torch.rand(2, generator=random).tolist()
    if clean_draw < arm.recycling.clean_prob or image_draw >= arm.recycling.image_prob or not slots:
        return replace(NOTHING, is_clean=clean_draw < arm.recycling.clean_prob)
    if arm.source.is_handed_over:
        return ErrorInjection(None, None, handed_over, is_clean=False)
    known = example.y_latent[:, slots.start : slots.start + 1]
    return ErrorInjection(None, None, hand_made_error(codec, known, slots.start == 0, random), is_clean=False)


@torch.no_grad()
def fill_bank(
    model: nn.Module,
    codec: LinearCodec,
    data: StoryData,
    chain: Chain,
    recycling: ErrorRecyclingConfig,
    bank: ErrorBank,
    num_batches: int,
    batch_size: int,
    seed: int,
) -> None:
    """Put the errors of `model` on `num_batches` clean batches into `bank`."""
    sigmas = training_sigmas()
    for batch in range(num_batches):
        random = stream(seed, batch, 0, "fill")
        latent, y_latent, texts = stacked(data, [draw_example(codec, data, chain, random) for _ in range(batch_size)])
        sigma = sigmas[torch.randint(len(sigmas), (batch_size,), generator=random)]
        sample = make_flow_sample(latent, torch.randn(latent.shape, generator=random), sigma)
        errors = residual(predict(model, sample.noisy_latent, y_latent, sigma, texts), sample.velocity)
        for error, level in zip(errors, sigma, strict=True):
            store(bank, error, float(level), recycling, random)


def _targets(latent: Tensor, inputs: list[InjectedInputs], sigmas: Tensor, arm: Arm) -> Tensor:
    drawn = zip(latent, inputs, sigmas, strict=True)
    return torch.stack([target_velocity(clean, own, float(sigma), arm.recycling.objective) for clean, own, sigma in drawn])


def _stack(inputs: list[InjectedInputs], name: str) -> Tensor:
    return torch.stack([getattr(own, name) for own in inputs])
