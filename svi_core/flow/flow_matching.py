"""Flow matching as Wan uses it: noise levels, the path between latent and noise, and the two experts.

``noisy_latent = (1 - sigma) * latent + sigma * noise``; ``velocity = noise - latent``; sigma falls from 1 (noise) to 0;
``timestep = 1000 * sigma``. A `sigma` argument is one number for all examples, or a tensor [B].
Source: SVI (arXiv:2510.09212), Eq. 1 and 2; docs/METHOD.md, 1.2 (signs), 4.1 (sampler), 4.3 (expert boundary), 9.4 (training).
"""

import itertools
import math
from dataclasses import dataclass
from enum import StrEnum

import torch

NUM_TRAINING_IDS = 1000
TRAINED_SHIFT = 5.0
BOUNDARY = 0.875  # sigma at which Wan 2.2's low-noise expert takes over, as SVI's authors sample
_PURE_NOISE = 0.998  # some schedulers begin a rounding error below 1


class TimestepWeighting(StrEnum):
    """The weight of the loss over noise levels."""

    BELL = "bell"  # the released trainer's: highest at timestep 500, zero at 1000
    UNIFORM = "uniform"


@dataclass(frozen=True)
class FlowSample:
    """One point on the straight line from a latent to noise.

    Attributes:
        noisy_latent: the shape of the latent, (1 - sigma) * latent + sigma * noise.
        velocity: the same shape, noise - latent.
        sigma: noise level in [0, 1], one number or a tensor [B].
    """

    noisy_latent: torch.Tensor
    velocity: torch.Tensor
    sigma: float | torch.Tensor


@dataclass(frozen=True)
class ExpertRange:
    """The training ids that one expert is trained on: `first_id` .. `end_id` - 1 of :func:`training_sigmas`.

    Attributes:
        first_id: the noisiest id, >= 0.
        end_id: one past the least noisy id, <= 1000.
    """

    first_id: int
    end_id: int

    def __post_init__(self):
        if not 0 <= self.first_id < self.end_id <= NUM_TRAINING_IDS:
            raise ValueError(
                f"the expert's timestep ids are {self.first_id} .. {self.end_id}: use a range within 0 .. {NUM_TRAINING_IDS}."
            )

    def draw_id(self, generator: torch.Generator) -> int:
        """Return a uniformly random id of the range; takes one random number."""
        return int(torch.randint(self.first_id, self.end_id, (1,), generator=generator))


EXPERT_RANGES = {
    "single": ExpertRange(0, NUM_TRAINING_IDS),  # Wan 2.1: one model for all noise levels
    "high": ExpertRange(0, 358),  # Wan 2.2 high noise: sigma >= 0.9 (docs/METHOD.md, 9.9)
    "low": ExpertRange(358, NUM_TRAINING_IDS),
}


def shifted_sigmas(num_steps: int, shift: float = TRAINED_SHIFT) -> torch.Tensor:
    """Return the noise levels [num_steps + 1] of a sampler, from 1 to exactly 0, in fp32.

    Raises:
        ValueError: no step, or a shift that is not positive.
    """
    if num_steps < 1 or not (shift > 0 and math.isfinite(shift)):
        raise ValueError(f"num_steps is {num_steps} and shift {shift}: use at least 1 step and a shift above 0, 5 for SVI.")
    linear = torch.linspace(1, 0, num_steps + 1, dtype=torch.float64)
    return (shift * linear / (1 + (shift - 1) * linear)).float()


def training_sigmas() -> torch.Tensor:
    """Return the noise level of each training id, [1000] falling from 1. Source: docs/METHOD.md, 9.4."""
    return shifted_sigmas(NUM_TRAINING_IDS)[:-1]


def timestep_weights(sigmas: torch.Tensor, weighting: TimestepWeighting = TimestepWeighting.BELL) -> torch.Tensor:
    """Return the loss weight of each noise level in `sigmas` [N], with mean 1 over them.

    Pass all training ids and index the result, so that each expert of Wan 2.2 keeps its part of the curve.
    Source: docs/METHOD.md, 9.4: exp(-2 ((t - 500) / 1000)^2), lowered until its least value is 0, scaled to mean 1.

    Raises:
        ValueError: fewer than two noise levels, for which the mean is undefined.
    """
    if sigmas.numel() < 2:
        raise ValueError(f"sigmas holds {sigmas.numel()} value(s): take the weights over the whole table of training_sigmas().")
    if TimestepWeighting(weighting) is TimestepWeighting.UNIFORM:
        return torch.ones_like(sigmas)
    bell = torch.exp(-2 * (sigmas.double() - 0.5) ** 2)
    lowered = bell - bell.min()
    return (lowered / lowered.mean()).to(sigmas.dtype)


def make_flow_sample(latent: torch.Tensor, noise: torch.Tensor, sigma: float | torch.Tensor) -> FlowSample:
    """Return the point at noise level `sigma` between `latent` and `noise`, both [B, C, F, h, w] or without the batch."""
    level = _per_example(sigma, latent)
    return FlowSample((1 - level) * latent + level * noise, noise - latent, sigma)


def require_sigmas(sigmas: torch.Tensor) -> None:
    """Refuse a noise schedule that does not fall from at most 1 to 0.

    Raises:
        ValueError: fewer than two values, values outside [0, 1], or values that do not fall.
    """
    values = [float(value) for value in sigmas]
    if len(values) < 2:
        raise ValueError(
            f"sigmas holds {len(values)} value(s), which is no step at all: set steps of the scheduler to 1 or more."
        )
    in_range = all(math.isfinite(value) and 0.0 <= value <= 1.0 for value in values)
    if not in_range or values[-1] != 0.0 or any(after >= before for before, after in itertools.pairwise(values)):
        raise ValueError(
            f"sigmas are {[round(value, 3) for value in values]}, but Wan's noise levels fall from at most 1 to exactly 0: "
            "make them with Basic Scheduler from the same Wan model."
        )


def late_start_warning(sigmas: torch.Tensor) -> str:
    """Return a warning if `sigmas` [S + 1] begin below pure noise, as which every clip begins; else ""."""
    if sigmas[0] >= _PURE_NOISE:
        return ""
    return (
        f"sigmas begin at {float(sigmas[0]):.3f}, but every clip begins as pure noise, at 1, so the model takes noise for a "
        "picture: set denoise of the scheduler to 1, and use another scheduler than ddim_uniform."
    )


def num_high_noise_steps(sigmas: torch.Tensor, boundary: float) -> int:
    """Return how many steps of `sigmas` [S + 1] start at or above `boundary`: those of the high-noise expert.

    Raises:
        ValueError: `boundary` is not within (0, 1).
    """
    if not 0.0 < boundary < 1.0:
        raise ValueError(f"boundary is {boundary}: use a noise level between 0 and 1, {BOUNDARY} for Wan 2.2 I2V.")
    return int((sigmas[:-1] >= boundary).sum())


def _per_example(sigma: float | torch.Tensor, latent: torch.Tensor) -> float | torch.Tensor:
    """Return `sigma` in a shape that broadcasts over the examples of `latent`."""
    if not isinstance(sigma, torch.Tensor) or sigma.ndim == 0:
        return sigma
    if sigma.shape != latent.shape[:1]:
        raise ValueError(
            f"sigma has shape {list(sigma.shape)} and the latent {list(latent.shape)}: use one number, or one for each example."
        )
    return sigma.to(latent.device).reshape(-1, *[1] * (latent.ndim - 1))
