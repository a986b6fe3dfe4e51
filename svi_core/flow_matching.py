"""Flow matching as Wan uses it: noise levels and the split between the two experts.

``noisy_latent = (1 - sigma) * latent + sigma * noise``; sigma falls from 1 (noise) to 0; ``timestep = 1000 * sigma``.
Source: SVI_SPEC A1 (sampler), A2 (expert boundary).
"""

import math

import torch


def require_sigmas(sigmas: torch.Tensor) -> None:
    """Refuse a noise schedule that does not fall from at most 1 towards 0.

    Raises:
        ValueError: fewer than two values, values outside [0, 1], or values that do not fall.
    """
    values = [float(value) for value in sigmas]
    if len(values) < 2:
        raise ValueError(
            f"sigmas holds {len(values)} value(s), which is no step at all: set steps of the scheduler to 1 or more."
        )
    in_range = all(math.isfinite(value) and 0.0 <= value <= 1.0 for value in values)
    if not in_range or values[-1] != 0.0 or any(after >= before for before, after in zip(values, values[1:], strict=False)):
        raise ValueError(
            f"sigmas are {[round(value, 3) for value in values]}, but Wan's noise levels fall from at most 1 to exactly 0: "
            "make them with Basic Scheduler from the same Wan model."
        )


def num_high_noise_steps(sigmas: torch.Tensor, boundary: float) -> int:
    """Return how many steps of `sigmas` [S + 1] start at or above `boundary` and so belong to the high-noise expert.

    Raises:
        ValueError: `boundary` is not within (0, 1).
    """
    if not 0.0 < boundary < 1.0:
        raise ValueError(f"boundary is {boundary}: use a noise level between 0 and 1, 0.9 for Wan 2.2 I2V.")
    return int((sigmas[:-1] >= boundary).sum())
