"""ComfyUI's LATENT, which is un-normalised: the zero of normalised space is a constant per channel.

Source: docs/METHOD.md, 2.1 and 2.4; ComfyUI's comfy/model_base.py, class WAN21 (concat_cond, extra_conds).
"""

import comfy.latent_formats
import comfy.model_management
import torch

from ...svi_core.conditioning.build_y import ConditioningLatent, KnownPart
from ...svi_core.geometry import LATENT_CHANNELS, SPATIAL_STRIDE, num_pixel_frames

FRAMES_KEY = "svi_frames"  # pixel frames [n, H, W, 3] of an SVI LATENT, for pixel-space layouts


def samples_of(latent: dict, name: str) -> torch.Tensor:
    """Return the tensor [B, 16, F, h, w] of a LATENT; raise ValueError if it is not a Wan 2.1 video latent."""
    samples = latent["samples"]
    if samples.is_nested or samples.ndim != 5 or samples.shape[1] != LATENT_CHANNELS:
        shape = "nested" if samples.is_nested else list(samples.shape)
        raise ValueError(
            f"{name} has shape {shape}, but SVI needs a Wan 2.1 video latent [batch, 16, slots, height / 8, width / 8]: "
            "encode it with the Wan 2.1 VAE (wan_2.1_vae; the Wan 2.2 14B models use it too)."
        )
    return samples


def empty_latent(y: ConditioningLatent) -> dict:
    """Return the all-zero LATENT from which to sample a clip conditioned on `y`."""
    return {"samples": torch.zeros_like(y.latent, device=comfy.model_management.intermediate_device())}


def pixel_size(latent: dict) -> tuple[int, int]:
    """Return the decoded (width, height) of a LATENT in pixels."""
    height, width = latent["samples"].shape[-2:]
    return width * SPATIAL_STRIDE, height * SPATIAL_STRIDE


def clip_size(num_slots: int, samples: torch.Tensor) -> str:
    """Return the size of a clip of `num_slots` slots as text; `samples` gives width and height."""
    width, height = pixel_size({"samples": samples})
    return f"{num_pixel_frames(num_slots)} frames of {width} x {height} pixels"


def zero_latent_slot() -> torch.Tensor:
    """Return the value [1, 16, 1, 1, 1] of an un-normalised Wan 2.1 latent that is zero in normalised space."""
    return comfy.latent_formats.Wan21().process_out(torch.zeros(1, LATENT_CHANNELS, 1, 1, 1))


def known_part(latent: dict, name: str) -> KnownPart:
    """Return an anchor or motion LATENT for svi_core, with its frames if SVI nodes made it from images."""
    return KnownPart(samples_of(latent, name), latent.get(FRAMES_KEY))
