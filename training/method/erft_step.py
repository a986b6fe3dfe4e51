"""One step of Error-Recycling Fine-Tuning: draw, predict, learn, remember.

Source: SVI (arXiv:2510.09212), Sec. 4, Eq. 3-6; docs/METHOD.md, 9.1 and 9.4 to 9.6.
"""

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
from training.method.drops import leave_out
from training.method.optimizers import learning_rate
from training.method.streams import stream
from training.method.trainer import Trainer
from training.model.conditions import Conditions

NOTHING_INJECTED = ErrorInjection(None, None, None, is_clean=True)


class TrainingStopped(RuntimeError):
    """Training cannot go on; what was saved before is intact."""


@dataclass(frozen=True)
class DrawnExample:
    """An example with everything that was drawn for it at one step.

    Attributes:
        example: the clip and its conditions.
        slot: its place in the step, over all processes.
        sigma: noise level.
        weight: of its loss.
        injection: the errors it gets.
        inputs: latent, noise and conditioning latent with the errors added.
        sample: the noisy latent between them.
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
    """What one optimizer step did, over all processes.

    Attributes:
        loss: mean weighted loss.
        gradient_norm: before it was clipped.
        learning_rate: used.
        injected: share of examples that got an error in noise, latent and conditioning, and share drawn clean.
        num_stored: errors that went into this process's banks.
    """

    loss: float
    gradient_norm: float
    learning_rate: float
    injected: dict[str, float]
    num_stored: int


def training_step(trainer: Trainer) -> StepResult:
    """Do one optimizer step: draw, predict, learn, remember.

    The errors of a step are known after its last forward pass, and nothing is drawn from the banks before the next step: they
    are stored in a thread beside the last backward pass, for which a GPU takes longer than a CPU for the banks.

    Raises:
        TrainingStopped: a loss or the gradient is NaN or infinite; the LoRA is as it was.
    """
    step = trainer.step + 1
    drawn, losses, errors = [], [], []
    trainer.optimizer.zero_grad(set_to_none=True)
    portions = list(_portions(trainer))
    with ThreadPoolExecutor(max_workers=1) as beside:
        for slots in portions:
            batch = [draw(trainer, trainer.data.example(trainer.config.seed, trainer.step, slot), step, slot) for slot in slots]
            groups = _of_one_shape(batch)
            for alike in groups:
                predicted = predict(trainer, alike)
                loss = weighted_losses(predicted, alike)
                _require_finite(trainer, loss, alike, step)
                losses += loss.detach().tolist()
                errors += measure(trainer, predicted, alike, step)
                if slots is portions[-1] and alike is groups[-1]:
                    stored = beside.submit(remember, trainer, shared(trainer, errors, step), step)
                (loss.sum() / trainer.examples_per_step).backward()
            drawn += batch
        rate, norm = learn(trainer, step)
    num_stored = stored.result()
    trainer.step = step
    return _summed_up(trainer, drawn, losses, norm, rate, num_stored)


def draw(trainer: Trainer, example: TrainingExample, step: int, slot: int) -> DrawnExample:
    """Draw noise, noise level and errors for `example`, and say what is to be learnt (Eq. 3 and 5).

    Every draw is a function of (seed, step, slot) and of what the bank holds.
    """
    config, drops = trainer.config.recycling, trainer.config.drops
    if drops.any:
        example = leave_out(example, drops, stream(trainer.config.seed, step, slot, "drops"))
    random = stream(trainer.config.seed, step, slot, "noise")
    noise = torch.randn(example.latent.shape, generator=random)
    timestep_id = trainer.timesteps.draw_id(random)
    sigma = float(trainer.sigmas[timestep_id])
    injection = NOTHING_INJECTED
    if config.injects:
        errors = stream(trainer.config.seed, step, slot, "errors")
        bank = trainer.banks.of(example.latent.shape)
        injection = draw_injection(bank, sigma, config, errors, example.error_slots)
    inputs = inject(example.latent, noise, example.y_latent, injection, example.error_slots)
    sample = make_flow_sample(inputs.latent, inputs.noise, sigma)
    target = target_velocity(example.latent, inputs, sigma, config.objective)
    weight = float(trainer.weights[timestep_id])
    return DrawnExample(example, slot, sigma, weight, injection, inputs, sample, target)


def predict(trainer: Trainer, batch: Sequence[DrawnExample]) -> Tensor:
    """Return the model's velocity for each of `batch`, [B, 16, F, h, w] in fp32."""
    noisy = torch.stack([drawn.sample.noisy_latent for drawn in batch])
    sigma = torch.tensor([drawn.sigma for drawn in batch])
    examples, y_latents = [drawn.example for drawn in batch], [drawn.inputs.y_latent for drawn in batch]
    return trainer.backbone.velocity(noisy, sigma, conditions_of(trainer, examples, y_latents))


def conditions_of(trainer: Trainer, examples: Sequence[TrainingExample], y_latents: Sequence[Tensor]) -> Conditions:
    """Return what a batch is conditioned on, with `y_latents` in place of its own; the CLIP feature is of the clean frame."""
    text = torch.nn.utils.rnn.pad_sequence([example.text for example in examples], batch_first=True)
    vision = [example.clip_vision for example in examples]
    sounds = [example.extras["sound"] for example in examples if "sound" in example.extras]
    return Conditions(
        y_latent=torch.stack(list(y_latents)),
        mask=torch.stack([example.mask for example in examples]),
        text=text,
        clip_vision=None if vision[0] is None else torch.stack(vision),
        sound_tokens=trainer.backbone.speech.tokens(sounds) if sounds else None,
        pose_tokens=trainer.poses and trainer.poses.tokens([example.extras.get("pose") for example in examples]),
    )


def weighted_losses(predicted: Tensor, batch: Sequence[DrawnExample]) -> Tensor:
    """Return the loss [B] of each example: the mean squared error of its velocity, times its weight (Eq. 6)."""
    target = torch.stack([drawn.target for drawn in batch]).to(predicted.device)
    weight = torch.tensor([drawn.weight for drawn in batch], device=predicted.device)
    return (predicted - target).square().flatten(1).mean(1) * weight


def measure(trainer: Trainer, predicted: Tensor, batch: Sequence[DrawnExample], step: int) -> list[MeasuredError]:
    """Return the model's own errors on `batch`, from which the bank makes noise and latent errors (Eq. 4)."""
    config = trainer.config.recycling
    if not config.injects:
        return []
    found = predicted.detach().cpu()
    return [
        MeasuredError(
            drawn.slot,
            residual(velocity, drawn.target),
            drawn.sigma,
            should_store(drawn.injection, config, stream(trainer.config.seed, step, drawn.slot, "keep")),
        )
        for drawn, velocity in zip(batch, found, strict=True)
    ]


def learn(trainer: Trainer, step: int) -> tuple[float, float]:
    """Move what is trained along the gradient of all processes; return the learning rate and the norm of the gradient.

    Raises:
        TrainingStopped: the gradient is NaN or infinite; the LoRA is as it was.
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
            f"the gradient of step {step} is {norm}: stopped before it reached the LoRA. {_go_on_with_a_lower_rate(trainer)}"
        )
    rate = learning_rate(config, step, trainer.num_steps)
    for group in trainer.optimizer.param_groups:
        group["lr"] = rate
    trainer.optimizer.step()
    return rate, norm


def shared(trainer: Trainer, errors: Sequence[MeasuredError], step: int) -> Sequence[MeasuredError]:
    """Return the errors of this process, or while they are shared those of all."""
    config = trainer.config.recycling
    if config.injects and (trainer.config.bank.share or is_shared(step, config)):
        return trainer.group.gather_errors(errors)
    return errors


def remember(trainer: Trainer, errors: Sequence[MeasuredError], step: int) -> int:
    """Store `errors` in this process's banks; return how many were stored."""
    config = trainer.config.recycling
    kept = [error for error in errors if error.stored]
    for error in kept:
        random = stream(trainer.config.seed, step, error.slot, "store")
        store(trainer.banks.of(error.residual.shape), error.residual, error.sigma, config, random)
    return len(kept)


def _portions(trainer: Trainer) -> Iterator[range]:
    """Yield the slots of each forward pass of this process; all processes together cover a step's slots once."""
    size = trainer.config.loop.batch_size
    for portion in range(trainer.config.loop.accumulation):
        start = (portion * trainer.group.size + trainer.group.rank) * size
        yield range(start, start + size)


def _of_one_shape(batch: Sequence[DrawnExample]) -> list[list[DrawnExample]]:
    """Return `batch` in groups that can be stacked: latents of one size."""
    groups: dict[torch.Size, list[DrawnExample]] = {}
    for drawn in batch:
        groups.setdefault(drawn.example.latent.shape, []).append(drawn)
    return list(groups.values())


def _require_finite(trainer: Trainer, losses: Tensor, batch: Sequence[DrawnExample], step: int) -> None:
    for loss, drawn in zip(losses.tolist(), batch, strict=True):
        if not math.isfinite(loss):
            raise TrainingStopped(
                f"the loss of step {step} is {loss} for clip {drawn.example.name} at timestep {1000 * drawn.sigma:.0f}: "
                "stopped before it reached the LoRA. If it is always this clip, leave it out: python -m training.erft --resume "
                f"{trainer.config.run} 'data.exclude=[\"{drawn.example.name}\"]'. Otherwise "
                f"{_go_on_with_a_lower_rate(trainer)}"
            )


def _go_on_with_a_lower_rate(trainer: Trainer) -> str:
    """Return what helps a training that diverged: without a change it would come to the same step and stop again."""
    rate = trainer.config.optimizer.learning_rate / 3
    return (
        f"go on from the last checkpoint at a lower rate, python -m training.erft --resume {trainer.config.run} "
        f"optimizer.learning_rate={rate:.2g}; if it stops again, remove the newest folder in {trainer.config.run}/checkpoints "
        "first, which goes back further."
    )


def _summed_up(
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
    injected = dict(zip(("noise", "latent", "image", "clean"), totals, strict=True))
    return StepResult(loss, norm, rate, injected, num_stored)
