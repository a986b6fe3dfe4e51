"""Drop a clip's conditions at random, so that the model works without them and classifier-free guidance has a contrast.

Source: docs/METHOD.md, 9.10 (sound; poses; conditioning latent and CLIP feature together, and then no image error).
"""

from dataclasses import replace

import torch

from training.data.dataset import TrainingExample
from training.settings.data import DropConfig


def drop_conditions(example: TrainingExample, config: DropConfig, random: torch.Generator) -> TrainingExample:
    """Return `example` without the conditions that are dropped this time. It always draws three numbers."""
    image_draw, pose_draw, sound_draw = map(float, torch.rand(3, generator=random, dtype=torch.float64))
    if image_draw < config.image:
        example = replace(
            example,
            y_latent=torch.zeros_like(example.y_latent),
            mask=torch.zeros_like(example.mask),
            clip_vision=None if example.clip_vision is None else torch.zeros_like(example.clip_vision),
            error_slots=range(0),
        )
    extras = dict(example.extras)
    if pose_draw < config.pose:
        extras.pop("pose", None)
    if sound_draw < config.sound and "sound" in extras:
        extras["sound"] = torch.zeros_like(extras["sound"])
    return replace(example, extras=extras)
