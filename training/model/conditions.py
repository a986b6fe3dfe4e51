"""What a batch of clips is conditioned on, as the model is called with it."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Conditions:
    """What a batch of clips is conditioned on.

    Attributes:
        y_latent: [B, 16, F, h, w], normalised conditioning latent.
        mask: [B, 1 or 4, F, h, w], 1 = known.
        text: [B, L, D], L <= 512; missing tokens count as the zero embeddings that ComfyUI pads with.
        clip_vision: [B, 257, 1280] for a model with an image embedding (Wan 2.1 I2V), else None.
        pose_tokens: [B, F * h/2 * w/2, width of the model], added to the patch tokens; None for no poses.
        sound_tokens: [B, F, 32, channels], what each slot hears; None for a model that does not hear.
    """

    y_latent: Tensor
    mask: Tensor
    text: Tensor
    clip_vision: Tensor | None = None
    pose_tokens: Tensor | None = None
    sound_tokens: Tensor | None = None
