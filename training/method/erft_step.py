"""One step of Error-Recycling Fine-Tuning, in the order in which it runs.

    for each micro-batch:
        draw       noise, noise level and errors of the bank; add the errors to latent, noise and y      Eq. 3 and 5
        predict    the velocity
        loss       against the velocity that leads back to the clean latent                              Eq. 6
        measure    the model's own errors                                                                Eq. 4
    share, store   the errors, while the last backward pass runs
    update         the LoRA

Source: SVI (arXiv:2510.09212), Sec. 4, Eq. 3-6; docs/METHOD.md, 9.1 and 9.4 to 9.6.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from svi_core.flow.flow_matching import FlowSample, make_flow_sample
from svi_core.recycling.error_recycling import (
    ErrorInjection,
    InjectedInputs,
    draw_injection,
    inject,
    is_shared,
    residual,
    should_store,
    store,
    target_velocity,
)
from training.data.dataset import TrainingExample
from training.method.distributed import MeasuredError
from training.method.drops import drop_conditions
from training.method.optimizers import learning_rate
from training.method.streams import stream
from training.method.trainer import Trainer
from training.model.conditions import Conditions

NOTHING_INJECTED = ErrorInjection(None, None, None, is_clean=True)


class TrainingStopped(RuntimeError):
    """Training cannot continue. Everything saved so far is intact."""


@dataclass(frozen=True)
class DrawnExample:
    """An example with everything that was drawn for it in one step.

    Attributes:
        example: the clip and its conditioning.
        slot: its place in the step, over all processes.
        sigma: noise level.
        weight: weight of its loss.
        injection: the errors that it gets.
        inputs: latent, noise and conditioning latent with the errors added.
        sample: the noisy latent between `inputs.latent` and `inputs.noise`.
        target: [16, F, h, w], the velocity to learn.
    """

    example: TrainingExample
    slot: int
    sigma: float
    weight: float
    injection: ErrorInjection
    inputs: InjectedInputs
    sample: FlowSample
    target: Tensor


@dataclass(frozen=True)
class StepResult:
    """The outcome of one optimizer step over all processes.

    Attributes:
        loss: mean weighted loss.
        gradient_norm: norm of the gradient before clipping.
        learning_rate: the learning rate of this step.
        injected: share of examples with an error in noise, latent and conditioning ("image"), and share of clean examples.
        num_stored: errors that were stored in this process's banks.
    """

    loss: float
    gradient_norm: float
    learning_rate: float
    injected: dict[str, float]
    num_stored: int


def training_step(trainer: Trainer) -> StepResult:
    """Do one optimizer step.

    The errors are known after the last forward pass, and the banks are not read before the next step. So a thread stores the
    errors while the last backward pass runs, which takes a GPU longer than storing takes the CPU.

    Raises:
        TrainingStopped: a loss or the gradient is NaN or infinite; the LoRA is unchanged.
    """
    step = trainer.step + 1
    drawn: list[DrawnExample] = []
    losses: list[float] = []
    errors: list[MeasuredError] = []
    stored: list[Future[int]] = []
    trainer.optimizer.zero_grad(set_to_none=True)
    micro_batches = list(_micro_batches(trainer))
    with ThreadPoolExecutor(max_workers=1) as background:
        for slots in micro_batches:
            examples = [trainer.data.example(trainer.config.seed, trainer.step, slot) for slot in slots]
            batch = [draw(trainer, example, step, slot) for example, slot in zip(examples, slots, strict=True)]
            groups = _grouped_by_shape(batch)
            for group in groups:
                predicted = predict(trainer, group)
                loss = weighted_losses(predicted, group)
                _require_finite(trainer, loss, group, step)
                losses += loss.detach().tolist()
                errors += measure_errors(trainer, predicted, group, step)
                if slots is micro_batches[-1] and group is groups[-1]:
                    stored.append(background.submit(store_errors, trainer, share_errors(trainer, errors, step), step))
                (loss.sum() / trainer.examples_per_step).backward()
            drawn += batch
        rate, norm = update(trainer, step)
    num_stored = sum(future.result() for future in stored)
    trainer.step = step
    return _result(trainer, drawn, losses, norm, rate, num_stored)


def _micro_batches(trainer: Trainer) -> Iterator[range]:
    """Yield the slots of each forward pass of this process. All processes together cover the slots of a step once."""
    size = trainer.config.loop.batch_size
    for index in range(trainer.config.loop.accumulation):
        start = (index * trainer.group.size + trainer.group.rank) * size
        yield range(start, start + size)


def draw(trainer: Trainer, example: TrainingExample, step: int, slot: int) -> DrawnExample:
    """Draw noise, noise level and errors for `example`, add the errors, and compute the velocity to learn (Eq. 3 and 5).

    Every draw is a function of (seed, step, slot) and the bank's contents.
    """
    config, drops = trainer.config.recycling, trainer.config.drops
    if drops.any:
        example = drop_conditions(example, drops, stream(trainer.config.seed, step, slot, "drops"))
    random = stream(trainer.config.seed, step, slot, "noise")
    noise = torch.randn(example.latent.shape, generator=random)
    timestep_id = trainer.timesteps.draw_id(random)
    sigma = float(trainer.sigmas[timestep_id])
    injection = NOTHING_INJECTED
    if config.injects:
        errors = stream(trainer.config.seed, step, slot, "errors")
        bank = trainer.banks.of(example.latent.shape)
        others = trainer.image_errors.of(example.latent.shape) if trainer.image_errors else None
        injection = draw_injection(bank, sigma, config, errors, example.error_slots, others)
    inputs = inject(example.latent, noise, example.y_latent, injection, example.error_slots)
    sample = make_flow_sample(inputs.latent, inputs.noise, sigma)
    target = target_velocity(example.latent, inputs, sigma, config.objective)
    weight = float(trainer.weights[timestep_id])
    return DrawnExample(example, slot, sigma, weight, injection, inputs, sample, target)


def _grouped_by_shape(batch: Sequence[DrawnExample]) -> list[list[DrawnExample]]:
    """Return `batch` in groups of one latent shape, which can be stacked."""
    groups: dict[torch.Size, list[DrawnExample]] = {}
    for drawn in batch:
        groups.setdefault(drawn.example.latent.shape, []).append(drawn)
    return list(groups.values())


def predict(trainer: Trainer, batch: Sequence[DrawnExample]) -> Tensor:
    """Return the velocities that the model predicts for `batch`, [B, 16, F, h, w] in fp32."""
    noisy = torch.stack([drawn.sample.noisy_latent for drawn in batch])
    sigma = torch.tensor([drawn.sigma for drawn in batch])
    examples, y_latents = [drawn.example for drawn in batch], [drawn.inputs.y_latent for drawn in batch]
    return trainer.backbone.velocity(noisy, sigma, conditions_of(trainer, examples, y_latents))


def conditions_of(trainer: Trainer, examples: Sequence[TrainingExample], y_latents: Sequence[Tensor]) -> Conditions:
    """Return the conditions of a batch with `y_latents` instead of its own. The CLIP feature stays that of the clean frame."""
    text = torch.nn.utils.rnn.pad_sequence([example.text for example in examples], batch_first=True)
    vision = [example.clip_vision for example in examples if example.clip_vision is not None]
    sounds = [example.extras["sound"] for example in examples if "sound" in example.extras]
    return Conditions(
        y_latent=torch.stack(list(y_latents)),
        mask=torch.stack([example.mask for example in examples]),
        text=text,
        clip_vision=torch.stack(vision) if vision else None,
        sound_tokens=trainer.backbone.speech.tokens(sounds) if trainer.backbone.speech and sounds else None,
        pose_tokens=trainer.poses.tokens([example.extras.get("pose") for example in examples]) if trainer.poses else None,
    )


def weighted_losses(predicted: Tensor, batch: Sequence[DrawnExample]) -> Tensor:
    """Return the loss [B] of each example: the mean squared error of its velocity times its weight (Eq. 6)."""
    target = torch.stack([drawn.target for drawn in batch]).to(predicted.device)
    weight = torch.tensor([drawn.weight for drawn in batch], device=predicted.device)
    return (predicted - target).square().flatten(1).mean(1) * weight


def _require_finite(trainer: Trainer, losses: Tensor, batch: Sequence[DrawnExample], step: int) -> None:
    for loss, drawn in zip(losses.tolist(), batch, strict=True):
        if not math.isfinite(loss):
            raise TrainingStopped(
                f"the loss of step {step} is {loss} for clip {drawn.example.name} at timestep {1000 * drawn.sigma:.0f}: "
                "stopped before it changed the LoRA. If it is always this clip, exclude it: python -m training.erft --resume "
                f"{trainer.config.run} 'data.exclude=[\"{drawn.example.name}\"]'. Otherwise {_advice(trainer)}"
            )


def _advice(trainer: Trainer) -> str:
    """Return how to resume a run that diverged. Resumed unchanged, it would stop at the same step again."""
    rate = trainer.config.optimizer.learning_rate / 3
    return (
        f"resume from the last checkpoint at a lower rate, python -m training.erft --resume {trainer.config.run} "
        f"optimizer.learning_rate={rate:.2g}; if it stops again, remove the newest folder in {trainer.config.run}/checkpoints "
        "first, to go back further."
    )


def measure_errors(trainer: Trainer, predicted: Tensor, batch: Sequence[DrawnExample], step: int) -> list[MeasuredError]:
    """Return the model's own errors on `batch`, from which the bank computes noise and latent errors (Eq. 4)."""
    config = trainer.config.recycling
    if not config.injects:
        return []
    velocities = predicted.detach().cpu()
    return [
        MeasuredError(
            drawn.slot,
            residual(velocity, drawn.target),
            drawn.sigma,
            should_store(drawn.injection, config, stream(trainer.config.seed, step, drawn.slot, "keep")),
        )
        for drawn, velocity in zip(batch, velocities, strict=True)
    ]


def share_errors(trainer: Trainer, errors: Sequence[MeasuredError], step: int) -> Sequence[MeasuredError]:
    """Return the errors to store: those of all processes while errors are shared, else this process's own."""
    config = trainer.config.recycling
    if config.injects and (trainer.config.bank.share or is_shared(step, config)):
        return trainer.group.gather_errors(errors)
    return errors


def store_errors(trainer: Trainer, errors: Sequence[MeasuredError], step: int) -> int:
    """Store `errors` in this process's banks; return their number."""
    config = trainer.config.recycling
    kept = [error for error in errors if error.stored]
    for error in kept:
        random = stream(trainer.config.seed, step, error.slot, "store")
        store(trainer.banks.of(error.residual.shape), error.residual, error.sigma, config, random)
    return len(kept)


def update(trainer: Trainer, step: int) -> tuple[float, float]:
    """Update the trained parameters with the gradient of all processes; return the learning rate and the gradient's norm.

    Raises:
        TrainingStopped: the gradient is NaN or infinite; the LoRA is unchanged.
    """
    config = trainer.config.optimizer
    parameters = trainer.parameters()
    if trainer.poses:
        trainer.poses.complete_gradients()
    trainer.group.sum_gradients(parameters)
    limit = config.max_gradient_norm or math.inf
    norm = float(torch.nn.utils.clip_grad_norm_(parameters, limit))
    if not math.isfinite(norm):
        raise TrainingStopped(
            f"the gradient of step {step} is {norm}: stopped before it changed the LoRA. To continue, {_advice(trainer)}"
        )
    rate = learning_rate(config, step, trainer.num_steps)
    for group in trainer.optimizer.param_groups:
        group["lr"] = rate
    trainer.optimizer.step()
    return rate, norm


def _result(
    trainer: Trainer, drawn: Sequence[DrawnExample], losses: Sequence[float], norm: float, rate: float, num_stored: int
) -> StepResult:
    """Return the result of a step over all processes."""
    counts = [
        sum(item.injection.noise_error is not None for item in drawn),
        sum(item.injection.latent_error is not None for item in drawn),
        sum(item.injection.image_error is not None for item in drawn),
        sum(item.injection.is_clean for item in drawn),
    ]
    loss, *totals = [value / trainer.examples_per_step for value in trainer.group.total(sum(losses), *counts)]
    injected: dict[str, float] = dict(zip(("noise", "latent", "image", "clean"), totals, strict=True))
    return StepResult(loss, norm, rate, injected, num_stored)
