"""Noise levels for a handful of steps, with a given number for each expert.

Distilled LoRAs are trained on even steps in unshifted time. If such steps already split as requested at the boundary, they are
used; otherwise each expert's part is divided evenly.

Source: docs/METHOD.md, 4.1 (shift), 4.3 (boundary), 3.2 (the official 2.0 workflow takes 3 + 3 steps at shift 8) and 4.5 (4 to
8 steps).
"""

import torch

from .flow_matching import num_high_noise_steps, shifted_sigmas

MAX_STEPS = 100  # of one expert
FEW_STEPS_BOUNDARY = 0.9  # Wan's own, with which LightX2V samples


def few_step_sigmas(num_high: int, num_low: int, shift: float, boundary: float) -> torch.Tensor:
    """Return sigmas [num_high + num_low + 1] from 1 to 0; `num_high` of the steps start at or above `boundary`.

    Args:
        num_high: steps of the high-noise expert.
        num_low: steps of the low-noise expert.
        shift: of the noise schedule; sigma = shift * t / (1 + (shift - 1) * t) for t from 1 to 0.
        boundary: sigma at which the low-noise expert takes over.

    Raises:
        ValueError: an expert without steps, a shift that is not positive, or a boundary outside (0, 1).
    """
    for name, count in (("steps_high_noise", num_high), ("steps_low_noise", num_low)):
        if not 1 <= count <= MAX_STEPS:
            raise ValueError(f"{name} is {count}: use 1 to {MAX_STEPS} steps, 2 to 4 with a distilled LoRA.")
    if not 0.0 < shift <= 100.0:
        raise ValueError(f"shift is {shift}: use a number above 0, 5 as SVI is trained.")
    even = shifted_sigmas(num_high + num_low, shift)
    if num_high_noise_steps(even, boundary) == num_high:
        return even
    change = boundary / (shift - (shift - 1) * boundary)  # the boundary in unshifted time
    high = torch.linspace(1, change, num_high + 1, dtype=torch.float64)[:-1]
    times = torch.cat([high, torch.linspace(change, 0, num_low + 1, dtype=torch.float64)])
    sigmas = (shift * times / (1 + (shift - 1) * times)).float()
    below = torch.nextafter(torch.tensor(boundary), torch.tensor(0.0))  # at the boundary the high-noise expert still counts
    sigmas[num_high] = torch.minimum(sigmas[num_high], below)
    return sigmas
