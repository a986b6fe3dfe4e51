"""What a batch of clips is conditioned on, in the form that the model takes."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Conditions:
    """What a batch of clips is conditioned on.

    Attributes:
        y_latent: [B, 16, F, h, w], normalised conditioning latent.
        mask: [B, 1 or 4, F, h, w], 1 = known.
        text: [B, L, D], L <= 512; the rest up to 512 is zero, as ComfyUI pads it.
        clip_vision: [B, 257, 1280] for a model with an image embedding (Wan 2.1 I2V), else None.
        pose_tokens: [B, F * h/2 * w/2, width of the model], added to the patch tokens; None for no poses.
        sound_tokens: [B, F, 32, channels], the audio tokens of each slot; None for a model without audio layers.
    """

    y_latent: Tensor
    mask: Tensor
    text: Tensor
    clip_vision: Tensor | None = None
    pose_tokens: Tensor | None = None
    sound_tokens: Tensor | None = None
