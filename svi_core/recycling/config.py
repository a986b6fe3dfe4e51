"""The settings of error recycling, checked.

Source: docs/METHOD.md, 9.5 to 9.8 (released trainer; SVI, arXiv:2510.09212, Table 9).
"""

from dataclasses import dataclass
from enum import StrEnum

from ..flow.flow_matching import TRAINED_SHIFT
from ..flow.timestep_grid import DEFAULT_NUM_GRIDS
from .bank_storage import DEFAULT_CAPACITY
from .error_bank import Replacement, Window


class Objective(StrEnum):
    """The velocity that the model learns for an input with errors."""

    RELEASED = "released"  # noise with its error, minus the clean latent
    PAPER = "paper"  # from the noisy input straight to the clean latent (Fig. 4c)


class ImageErrorGrids(StrEnum):
    """The grid cells that image errors are drawn from."""

    ALL = "all"
    CURRENT = "current"  # the cell of the example's own noise level
    RANGE = "range"  # the cells of image_error_range


class StoredSlots(StrEnum):
    """The part of a residual that is stored."""

    ALL = "all"
    IMAGE_WINDOW = (
        "image_window"  # only as much as an image error needs: with 3 of 21 slots a full bank takes 13.9 GiB, not 97.6
    )


@dataclass(frozen=True, kw_only=True)
class ErrorRecyclingConfig:
    """The settings of error recycling. The defaults are those of the released SVI-Film.

    Attributes:
        noise_prob: probability of adding an error to the noise.
        latent_prob: probability of adding an error to the target latent.
        image_prob: probability of adding an error to the conditioning latent. It matters most (paper, Table 4).
        clean_prob: probability of adding no error; overrides the three others.
        clean_update_prob: probability of storing the error of a clean example.
        warmup_steps: steps during which processes share all their errors.
        modulation: f; each error is multiplied by a random factor from [1 - f, 1 + f].
        num_image_error_slots: latent slots of the conditioning that an image error covers.
        image_error_grids: noise levels that image errors are drawn from.
        image_error_range: first grid cell, and one past the last; used only with "range".
        image_error_window: the slots of a stored error that are used.
        stored_slots: the part of a residual that is stored; "image_window" requires noise_prob = latent_prob = 0.
        objective: the velocity that is learned.
        capacity: bank entries for each grid value.
        num_grids: number of grid values, equal to the inference steps.
        grid_shift: shift of the inference schedule.
        replacement: which entry of a full cell a new one replaces.
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
        """Whether any error can be added; if not, no bank is needed and this is plain fine-tuning."""
        return self.clean_prob < 1 and max(self.noise_prob, self.latent_prob, self.image_prob) > 0


_CHOICES: dict[str, type[StrEnum]] = {
    "image_error_grids": ImageErrorGrids,
    "image_error_window": Window,
    "stored_slots": StoredSlots,
    "objective": Objective,
    "replacement": Replacement,
}


def _choice(name: str, kind: type[StrEnum], value: str) -> StrEnum:
    if value not in list(kind):
        raise ValueError(f"{name} is {value!r}: use one of {', '.join(repr(choice.value) for choice in kind)}.")
    return kind(value)
