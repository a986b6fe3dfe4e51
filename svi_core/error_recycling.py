"""Error-Recycling Fine-Tuning: feed the model's own errors back to it, and ask for the velocity back to the clean latent.

In the order in which a training step uses it: :func:`draw_injection`, :func:`inject`, `flow_matching.make_flow_sample`, the
model, :func:`target_velocity`, :func:`residual`, :func:`should_store`, :func:`store`. All of it works on one example; a batch
is examples stacked by the caller. Random numbers come from an explicit generator, whose position after each function does not
depend on what was drawn or on what the bank holds.
Source: SVI (arXiv:2510.09212), Sec. 4, Eq. 3-6; SVI_SPEC B2-B5 (released trainer).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch

from .bank_storage import BankStorage
from .error_bank import DEFAULT_CAPACITY, DEFAULT_NUM_GRIDS, ErrorBank, Replacement, TimestepGrid, Window
from .flow_matching import TRAINED_SHIFT


class Objective(StrEnum):
    """Which velocity the model learns for an input with errors."""

    RELEASED = "released"  # noise with its error, minus the clean latent
    PAPER = "paper"  # from the noisy input straight to the clean latent (Fig. 4c)


class ImageErrorGrids(StrEnum):
    """From which grid cells image errors are drawn."""

    ALL = "all"
    CURRENT = "current"  # the cell of the example's own noise level
    RANGE = "range"  # the cells of image_error_range


class StoredSlots(StrEnum):
    """What of a residual is kept."""

    ALL = "all"
    IMAGE_WINDOW = "image_window"  # only what an image error needs: 3 of 21 slots make a full bank 13.9 GiB, not 97.6


@dataclass(frozen=True, kw_only=True)
class ErrorRecyclingConfig:
    """The settings of error recycling. The defaults are those of the released SVI-Film.

    Attributes:
        noise_prob: probability of adding an error to the noise.
        latent_prob: probability of adding an error to the target latent.
        image_prob: probability of adding an error to the conditioning latent. It matters most (paper, Table 4).
        clean_prob: probability of adding none, whatever the three others say.
        clean_update_prob: probability of storing the error of an example that was drawn clean.
        warmup_steps: steps during which processes share all their errors.
        modulation: f, each error is multiplied by a number drawn from [1 - f, 1 + f].
        num_image_error_slots: latent slots of the conditioning that an image error covers.
        image_error_grids: noise levels that image errors are drawn from.
        image_error_range: first grid cell, and one past the last; read with "range" only.
        image_error_window: which slots of a stored error are used.
        stored_slots: what of a residual is kept; "image_window" needs noise_prob and latent_prob 0.
        objective: which velocity is learnt.
        capacity: bank entries for each grid value.
        num_grids: grid values, the number of inference steps.
        grid_shift: shift of the inference schedule.
        replacement: which entry of a full cell gives way.
    """

    noise_prob: float = 0.01
    latent_prob: float = 0.9
    image_prob: float = 0.9
    clean_prob: float = 0.5
    clean_update_prob: float = 0.1
    warmup_steps: int = 50
    modulation: float = 0.0
    num_image_error_slots: int = 3
    image_error_grids: ImageErrorGrids = ImageErrorGrids.ALL
    image_error_range: tuple[int, int] = (0, DEFAULT_NUM_GRIDS)
    image_error_window: Window = Window.RANDOM
    stored_slots: StoredSlots = StoredSlots.ALL
    objective: Objective = Objective.RELEASED
    capacity: int = DEFAULT_CAPACITY
    num_grids: int = DEFAULT_NUM_GRIDS
    grid_shift: float = TRAINED_SHIFT
    replacement: Replacement = Replacement.MOST_SIMILAR

    def __post_init__(self):
        for name, kind in _CHOICES.items():
            object.__setattr__(self, name, _choice(name, kind, getattr(self, name)))
        object.__setattr__(self, "image_error_range", tuple(self.image_error_range))
        for name in ("noise_prob", "latent_prob", "image_prob", "clean_prob", "clean_update_prob", "modulation"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} is {getattr(self, name)}: use a number from 0 to 1.")
        for name, least in (("warmup_steps", 0), ("num_image_error_slots", 1), ("capacity", 1), ("num_grids", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: use {least} or more.")
        if not self.grid_shift > 0:
            raise ValueError(f"grid_shift is {self.grid_shift}: use a number above 0, 5 as trained.")
        self._require_range()
        if self.stored_slots is StoredSlots.IMAGE_WINDOW and (self.noise_prob > 0 or self.latent_prob > 0):
            raise ValueError(
                f"stored_slots is {self.stored_slots.value!r}, which keeps too little for noise_prob {self.noise_prob} and "
                f"latent_prob {self.latent_prob}: set both to 0, or stored_slots to 'all'."
            )

    def _require_range(self) -> None:
        if self.image_error_grids is not ImageErrorGrids.RANGE:
            return
        cells = self.image_error_range
        if len(cells) != 2 or not 0 <= cells[0] < cells[1] <= self.num_grids:
            raise ValueError(
                f"image_error_range is {list(self.image_error_range)}: use two grid cells, the first and one past the last, "
                f"within 0 .. {self.num_grids}."
            )

    @property
    def injects(self) -> bool:
        """Whether any error can ever be added; if not, no bank is needed and this is plain training."""
        return self.clean_prob < 1 and max(self.noise_prob, self.latent_prob, self.image_prob) > 0


_CHOICES: dict[str, type[StrEnum]] = {
    "image_error_grids": ImageErrorGrids,
    "image_error_window": Window,
    "stored_slots": StoredSlots,
    "objective": Objective,
    "replacement": Replacement,
}


@dataclass(frozen=True)
class ErrorInjection:
    """The errors that one example gets; None where it gets none.

    Attributes:
        noise_error: [C, F, h, w], added to the noise.
        latent_error: [C, F, h, w], added to the target latent.
        image_error: [C, n, h, w], added to slots of the conditioning latent.
        is_clean: whether the example was drawn clean, and so has none of the three.
    """

    noise_error: torch.Tensor | None
    latent_error: torch.Tensor | None
    image_error: torch.Tensor | None
    is_clean: bool


@dataclass(frozen=True)
class InjectedInputs:
    """An example's inputs with errors added. Where there was none to add, the tensor is the caller's own.

    Attributes:
        latent: [C, F, h, w].
        noise: [C, F, h, w].
        y_latent: [C, F, h, w], the conditioning latent.
    """

    latent: torch.Tensor
    noise: torch.Tensor
    y_latent: torch.Tensor


def make_bank(latent_shape: Sequence[int], config: ErrorRecyclingConfig, storage: BankStorage | None = None) -> ErrorBank:
    """Return the bank that `config` asks for, for latents of `latent_shape` [C, F, h, w], in RAM or in `storage`."""
    return ErrorBank(
        entry_shape(latent_shape, config),
        grid=TimestepGrid(config.num_grids, config.grid_shift),
        capacity=config.capacity,
        replacement=config.replacement,
        storage=storage,
    )


def entry_shape(latent_shape: Sequence[int], config: ErrorRecyclingConfig) -> tuple[int, ...]:
    """Return the shape of what the bank keeps of a residual of `latent_shape` [C, F, h, w]."""
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
) -> ErrorInjection:
    """Draw which errors the example at noise level `sigma` gets, and the errors themselves.

    Four independent numbers decide on noise, image, latent and clean; clean overrides. An error that the bank cannot give yet
    is left out.

    Args:
        bank: errors to draw from.
        sigma: the example's noise level.
        config: the probabilities.
        generator: gives five random numbers, whatever comes out of them.
        error_slots: slots of the example's conditioning that may get an error; if they are fewer than
            `num_image_error_slots` the error covers those, and if there is none there is no image error.

    Source: SVI (arXiv:2510.09212), Eq. 3 and 5; SVI_SPEC B5.
    """
    noise_draw, image_draw, latent_draw, clean_draw = torch.rand(4, generator=generator, dtype=torch.float64).tolist()
    picks = torch.Generator().manual_seed(int(torch.randint(2**62, (), generator=generator)))
    if clean_draw < config.clean_prob:
        return ErrorInjection(None, None, None, is_clean=True)
    noise_error = latent_error = image_error = None
    if noise_draw < config.noise_prob:
        noise_error = _modulated(bank.sample_noise_error(sigma, picks), config, picks)
    if latent_draw < config.latent_prob:
        latent_error = _modulated(bank.sample_latent_error(sigma, picks), config, picks)
    num_slots = min(config.num_image_error_slots, len(error_slots), bank.entry_shape[1])
    if image_draw < config.image_prob and num_slots > 0:
        grids = _image_error_grids(bank, sigma, config)
        image_error = _modulated(bank.sample_image_error(num_slots, picks, grids, config.image_error_window), config, picks)
    return ErrorInjection(noise_error, latent_error, image_error, is_clean=False)


def inject(
    latent: torch.Tensor, noise: torch.Tensor, y_latent: torch.Tensor, injection: ErrorInjection, error_slots: range
) -> InjectedInputs:
    """Add the errors of `injection` to one example; what gets none is passed through as the same tensor.

    Args:
        latent: [C, F, h, w], the clean target.
        noise: [C, F, h, w].
        y_latent: [C, F, h, w], the conditioning latent; the mask is never touched.
        injection: the errors.
        error_slots: slots of `y_latent` that may get the image error; it begins at the first of them.

    Raises:
        ValueError: an image error that is longer than `error_slots`.
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

    RELEASED: noise with its error, minus the clean `latent`. It is what the released weights were trained with; with an error
    in the latent, one step along it does not quite arrive at the clean latent.
    PAPER: (noisy latent with errors - clean `latent`) / sigma, along which one step arrives exactly there. The error in the
    latent counts (1 - sigma) / sigma times in it, which is large at low noise. Without that error both are equal, bit for bit.

    Source: SVI (arXiv:2510.09212), Eq. 6 and Fig. 4c; SVI_SPEC B2, B3.

    Raises:
        ValueError: the paper's form at sigma 0, where no step leads anywhere.
    """
    released = injected.noise - latent
    if Objective(objective) is Objective.RELEASED or injected.latent is latent:
        return released
    if not 0.0 < sigma <= 1.0:
        raise ValueError(f"sigma is {sigma}: the paper's objective needs a noise level above 0 and at most 1.")
    return released + (1 - sigma) / sigma * (injected.latent - latent)


def residual(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return predicted - target velocity in fp32 without gradient: what the bank keeps."""
    return predicted.detach().float() - target.detach().float()


def should_store(injection: ErrorInjection, config: ErrorRecyclingConfig, generator: torch.Generator) -> bool:
    """Return whether the error of an example goes into the bank: always, but rarely if it was drawn clean.

    The errors of clean inputs are not those that a model meets in its own long videos. Takes one random number.
    Source: SVI_SPEC B4.
    """
    draw = float(torch.rand((), generator=generator, dtype=torch.float64))
    return not injection.is_clean or draw < config.clean_update_prob


def is_shared(step: int, config: ErrorRecyclingConfig) -> bool:
    """Return whether the errors of `step`, counted from 1, go into the banks of all processes. Source: SVI_SPEC B4."""
    return step <= config.warmup_steps


def store(
    bank: ErrorBank, velocity_residual: torch.Tensor, sigma: float, config: ErrorRecyclingConfig, generator: torch.Generator
) -> None:
    """Add the residual [C, F, h, w] of one example to `bank`, or the window of it that the bank keeps.

    Takes two random numbers: the window, and the bank's own.

    Raises:
        ValueError: see :meth:`ErrorBank.add`.
    """
    place = float(torch.rand((), generator=generator, dtype=torch.float64))
    num_slots = bank.entry_shape[1]
    last_start = velocity_residual.shape[1] - num_slots
    start = last_start if config.image_error_window is Window.LAST else int(place * (last_start + 1))
    bank.add(velocity_residual[:, start : start + num_slots], sigma, generator)


def _modulated(error: torch.Tensor | None, config: ErrorRecyclingConfig, generator: torch.Generator) -> torch.Tensor | None:
    """Return `error` times a number from [1 - f, 1 + f]; takes one random number."""
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


def _choice(name: str, kind: type[StrEnum], value: str) -> StrEnum:
    if value not in list(kind):
        raise ValueError(f"{name} is {value!r}: use one of {', '.join(repr(choice.value) for choice in kind)}.")
    return kind(value)
