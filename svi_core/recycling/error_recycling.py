"""Error-Recycling Fine-Tuning: feed the model's own errors back to it, and ask for the velocity back to the clean latent.

In the order of use in a training step: :func:`draw_injection`, :func:`inject`, `flow_matching.make_flow_sample`, the
model, :func:`target_velocity`, :func:`residual`, :func:`should_store`, :func:`store`. Every function takes one
example; the caller stacks examples into a batch. Each function consumes a fixed number of random numbers from its explicit
generator, whatever was drawn and whatever the bank holds.
Source: SVI (arXiv:2510.09212), Sec. 4, Eq. 3-6; docs/METHOD.md, 9.1 to 9.7 (released trainer).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..flow.timestep_grid import TimestepGrid
from .bank_file import DEFAULT_NUM_SNAPSHOTS, FileStorage
from .config import ErrorRecyclingConfig, ImageErrorGrids, Objective, StoredSlots
from .error_bank import ErrorBank, Window


@dataclass(frozen=True)
class ErrorInjection:
    """The errors added to one example; None where there is none.

    Attributes:
        noise_error: [C, F, h, w], added to the noise.
        latent_error: [C, F, h, w], added to the target latent.
        image_error: [C, n, h, w], added to slots of the conditioning latent.
        is_clean: whether the example was drawn clean, and therefore has none of the three.
    """

    noise_error: torch.Tensor | None
    latent_error: torch.Tensor | None
    image_error: torch.Tensor | None
    is_clean: bool


@dataclass(frozen=True)
class InjectedInputs:
    """The inputs of an example with errors added. Without an error, the tensor is the caller's own.

    Attributes:
        latent: [C, F, h, w].
        noise: [C, F, h, w].
        y_latent: [C, F, h, w], the conditioning latent.
    """

    latent: torch.Tensor
    noise: torch.Tensor
    y_latent: torch.Tensor


def make_bank(
    latent_shape: Sequence[int],
    config: ErrorRecyclingConfig,
    folder: Path | None = None,
    *,
    num_snapshots: int = DEFAULT_NUM_SNAPSHOTS,
    expected_entries: int | None = None,
) -> ErrorBank:
    """Return the bank that `config` asks for, for latents of `latent_shape` [C, F, h, w].

    Args:
        latent_shape: of one example, without the batch.
        config: the settings.
        folder: of the bank on disk; None keeps it in RAM, where each snapshot copies all of it.
        num_snapshots: see :class:`bank_file.FileStorage`.
        expected_entries: see :class:`bank_file.FileStorage`.

    Raises:
        ValueError: see :class:`bank_file.FileStorage`.
    """
    shape, grid = entry_shape(latent_shape, config), TimestepGrid(config.num_grids, config.grid_shift)
    storage = None
    if folder is not None:
        storage = FileStorage(
            folder,
            shape,
            grid=grid,
            capacity=config.capacity,
            num_snapshots=num_snapshots,
            expected_entries=expected_entries,
        )
    return ErrorBank(shape, grid=grid, capacity=config.capacity, replacement=config.replacement, storage=storage)


def entry_shape(latent_shape: Sequence[int], config: ErrorRecyclingConfig) -> tuple[int, ...]:
    """Return the shape of a bank entry for residuals of `latent_shape` [C, F, h, w]."""
    channels, slots, height, width = latent_shape
    if config.stored_slots is StoredSlots.IMAGE_WINDOW:
        slots = min(slots, config.num_image_error_slots)
    return channels, slots, height, width


def draw_injection(
    bank: ErrorBank,
    sigma: float,
    config: ErrorRecyclingConfig,
    generator: torch.Generator,
    error_slots: range,
    image_bank: ErrorBank | None = None,
) -> ErrorInjection:
    """Draw the errors for an example at noise level `sigma`.

    Four independent numbers decide on noise, image, latent and clean; clean overrides. An error that the bank does not hold yet
    is left out.

    Args:
        bank: errors to draw from.
        sigma: the example's noise level.
        config: the probabilities.
        generator: always consumes five random numbers.
        error_slots: slots of the example's conditioning that an image error may cover; if there are fewer than
            `num_image_error_slots`, it covers those; if there are none, there is no image error.
        image_bank: another bank, which image errors are drawn from; None: `bank`.

    Source: SVI (arXiv:2510.09212), Eq. 3 and 5; docs/METHOD.md, 9.5.
    """
    noise_draw, image_draw, latent_draw, clean_draw = map(float, torch.rand(4, generator=generator, dtype=torch.float64))
    picks = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
    if clean_draw < config.clean_prob:
        return ErrorInjection(None, None, None, is_clean=True)
    noise_error = latent_error = image_error = None
    if noise_draw < config.noise_prob:
        noise_error = _modulated(bank.sample_noise_error(sigma, picks), config, picks)
    if latent_draw < config.latent_prob:
        latent_error = _modulated(bank.sample_latent_error(sigma, picks), config, picks)
    source = bank if image_bank is None else image_bank
    num_slots = min(config.num_image_error_slots, len(error_slots), source.entry_shape[1])
    if image_draw < config.image_prob and num_slots > 0:
        grids = _image_error_grids(source, sigma, config)
        image_error = _modulated(source.sample_image_error(num_slots, picks, grids, config.image_error_window), config, picks)
    return ErrorInjection(noise_error, latent_error, image_error, is_clean=False)


def inject(
    latent: torch.Tensor, noise: torch.Tensor, y_latent: torch.Tensor, injection: ErrorInjection, error_slots: range
) -> InjectedInputs:
    """Add the errors of `injection` to one example; tensors without an error are returned as they are.

    Args:
        latent: [C, F, h, w], the clean target.
        noise: [C, F, h, w].
        y_latent: [C, F, h, w], the conditioning latent, without the mask.
        injection: the errors.
        error_slots: slots of `y_latent` that the image error may cover; it begins at the first.

    Raises:
        ValueError: the image error is longer than `error_slots`.
    """
    return InjectedInputs(
        _sum(latent, injection.latent_error),
        _sum(noise, injection.noise_error),
        _sum_in_slots(y_latent, injection.image_error, error_slots),
    )


def target_velocity(
    latent: torch.Tensor, injected: InjectedInputs, sigma: float, objective: Objective = Objective.RELEASED
) -> torch.Tensor:
    """Return the velocity to learn for an input with errors, [C, F, h, w].

    RELEASED: noise with its error, minus the clean `latent`. The released weights were trained with it; with an error in the
    latent, one step along it misses the clean latent slightly.
    PAPER: (noisy latent with errors - clean `latent`) / sigma; one step along it reaches the clean latent exactly. It weights
    the error in the latent by (1 - sigma) / sigma, which is large at low noise. Without that error both are equal, bit for bit.

    Source: SVI (arXiv:2510.09212), Eq. 6 and Fig. 4c; docs/METHOD.md, 9.2.

    Raises:
        ValueError: the paper's form at sigma 0, where it is undefined.
    """
    released = injected.noise - latent
    if Objective(objective) is Objective.RELEASED or injected.latent is latent:
        return released
    if not 0.0 < sigma <= 1.0:
        raise ValueError(f"sigma is {sigma}: the paper's objective needs a noise level above 0 and at most 1.")
    return released + (1 - sigma) / sigma * (injected.latent - latent)


def residual(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return predicted - target velocity in fp32 without gradient, as the bank stores it."""
    return predicted.detach().float() - target.detach().float()


def should_store(injection: ErrorInjection, config: ErrorRecyclingConfig, generator: torch.Generator) -> bool:
    """Return whether to store the error of an example in the bank: always, but rarely for a clean example.

    Errors of clean inputs are unlike those in a model's own long videos. Consumes one random number.
    Source: docs/METHOD.md, 9.6, from which this departs in warm-up: there the receiving process's own draw gates the errors of
    all processes, so that banks differ from the start; here each error is judged once, where it was made.
    """
    draw = float(torch.rand((), generator=generator, dtype=torch.float64))
    return not injection.is_clean or draw < config.clean_update_prob


def is_shared(step: int, config: ErrorRecyclingConfig) -> bool:
    """Return whether all processes store the errors of `step`, counted from 1. Source: docs/METHOD.md, 9.6."""
    return step <= config.warmup_steps


def store(
    bank: ErrorBank, velocity_residual: torch.Tensor, sigma: float, config: ErrorRecyclingConfig, generator: torch.Generator
) -> None:
    """Add the residual [C, F, h, w] of one example, or the window of it that the bank stores, to `bank`.

    Consumes two random numbers: for the window, and in the bank.

    Raises:
        ValueError: see :meth:`ErrorBank.add`.
    """
    place = float(torch.rand((), generator=generator, dtype=torch.float64))
    num_slots = bank.entry_shape[1]
    last_start = velocity_residual.shape[1] - num_slots
    start = last_start if config.image_error_window is Window.LAST else int(place * (last_start + 1))
    bank.add(velocity_residual[:, start : start + num_slots], sigma, generator)


def _modulated(error: torch.Tensor | None, config: ErrorRecyclingConfig, generator: torch.Generator) -> torch.Tensor | None:
    """Return `error` times a random factor from [1 - f, 1 + f]; consumes one random number."""
    draw = float(torch.rand((), generator=generator, dtype=torch.float64))
    if error is None or config.modulation == 0:
        return error
    return error * (1 + config.modulation * (2 * draw - 1))


def _image_error_grids(bank: ErrorBank, sigma: float, config: ErrorRecyclingConfig) -> range:
    if config.image_error_grids is ImageErrorGrids.ALL:
        return range(bank.grid.num_grids)
    if config.image_error_grids is ImageErrorGrids.RANGE:
        return range(*config.image_error_range)
    current = bank.grid.index(sigma)
    return range(current, current + 1)


def _sum(tensor: torch.Tensor, error: torch.Tensor | None) -> torch.Tensor:
    return tensor if error is None else tensor + error.to(tensor)


def _sum_in_slots(y_latent: torch.Tensor, error: torch.Tensor | None, error_slots: range) -> torch.Tensor:
    if error is None:
        return y_latent
    num_slots = error.shape[1]
    if num_slots > len(error_slots) or error_slots.stop > y_latent.shape[1]:
        raise ValueError(
            f"the image error has {num_slots} slots, but may go into slots {error_slots} of {y_latent.shape[1]} only: "
            "draw it with the error_slots of this example."
        )
    with_error = y_latent.clone()
    with_error[:, error_slots.start : error_slots.start + num_slots] += error.to(y_latent)
    return with_error
