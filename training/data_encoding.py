"""Encode one example: which frames go through the VAE together, and what of it conditions the clip.

Source: SVI_SPEC A1 (pixel-space layouts: one encode of known and padding frames), B7 (2.0 Pro: the anchor alone, motion from
the last slots of the encoded motion window; the padding is zero in normalised space and not stored).
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from svi_core.conditioning import motion_tail, padded_frames
from svi_core.geometry import LATENT_CHANNELS, SPATIAL_STRIDE
from svi_core.layouts import Layout

from .data_crops import cut
from .data_windows import WindowPlan, error_slots
from .dataset import DataConfig
from .video_reading import read_pictures

_VISION_VALUES = 257 * 1280


class Encoders(Protocol):
    """What encodes; training.encoders has ComfyUI's.

    Attributes:
        fingerprints: hash of each model file: "vae", "text_encoder", "clip_vision" ("" for none).
    """

    fingerprints: Mapping[str, str]

    def text(self, prompt: str) -> Tensor:
        """Return the embedding [L, D]."""

    def release_text_encoder(self) -> None:
        """Texts are done: free the memory."""

    def video(self, frames: Tensor) -> Tensor:
        """Return the normalised latent [16, F, h, w] of `frames` [T, H, W, 3] in [0, 1]."""

    def vision(self, image: Tensor) -> Tensor | None:
        """Return CLIP vision tokens of `image` [H, W, 3], or None."""


def encode_window(plan: WindowPlan, layout: Layout, pictures: Mapping[int, Tensor], encoders: Encoders) -> dict[str, Tensor]:
    """Encode one example.

    Args:
        plan: which frames.
        layout: how they are conditioned on.
        pictures: [H, W, 3] in [0, 1] by frame number.
        encoders: the models.

    Returns:
        "latent" [16, F, h, w]; "known" [16, k, h, w], the conditioning latent without its zeros; "clip_vision" where used.
    """
    anchor = None if plan.anchor is None else pictures[plan.anchor][None]
    if layout.in_latent_space:
        seen, known = anchor, encoders.video(anchor)
        if plan.later_clip:
            window = encoders.video(_stacked(pictures, plan.motion))
            known = torch.cat([known, motion_tail(window[None], layout.num_motion_frames)[0]], dim=1)
    else:
        seen = _stacked(pictures, plan.motion)
        known = encoders.video(padded_frames(seen, anchor, layout.num_frames))
    encoded = {"latent": encoders.video(_stacked(pictures, plan.target)), "known": known}
    vision = encoders.vision(seen[0])
    return encoded if vision is None else {**encoded, "clip_vision": vision}


def encode_from_file(path: Path, plan: WindowPlan, config: DataConfig, encoders: Encoders) -> dict[str, Tensor]:
    """Read the frames of an example from its clip and encode it, in the dtype of the cache.

    Raises:
        ValueError: the clip cannot be read any more, or its latents are not finite.
    """
    found = read_pictures(path, config.frame_rate, plan.frames)
    pictures = {number: cut(picture, plan.crop) for number, picture in found}
    encoded = encode_window(plan, config.svi_layout, pictures, encoders)
    return {part: tensor.to(stored_dtype(config)) for part, tensor in encoded.items()}


def encoded_bytes(plan: WindowPlan, config: DataConfig) -> int:
    """Return the size of an example's file, with CLIP vision."""
    layout = config.svi_layout
    num_known = 1 + len(error_slots(layout, plan.later_clip)) if layout.in_latent_space else layout.num_slots
    slot = LATENT_CHANNELS * (plan.crop.height // SPATIAL_STRIDE) * (plan.crop.width // SPATIAL_STRIDE)
    return ((layout.num_slots + num_known) * slot + _VISION_VALUES) * stored_dtype(config).itemsize


def stored_dtype(config: DataConfig) -> torch.dtype:
    """Return the dtype of cached tensors."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.storage]


def _stacked(pictures: Mapping[int, Tensor], numbers: Iterable[int]) -> Tensor:
    return torch.stack([pictures[number] for number in numbers])
