"""The paper's y: the anchor and motion that condition a clip, and the mask of what is known.

Source: docs/METHOD.md, 2.1 (mask), 3.1 (pixel-space layouts), 3.3 (2.0 Pro) and 3.5 (end images).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ..geometry import LATENT_CHANNELS, TEMPORAL_STRIDE, TRAINED_NUM_FRAMES, num_latent_slots, num_motion_latents
from ..out_of_memory import is_out_of_memory
from ..systems.layouts import Padding, require_whole_motion

Encode = Callable[[torch.Tensor], torch.Tensor]  # frames [T, H, W, 3] in [0, 1] -> latent [1, 16, F, h, w]


@dataclass(frozen=True)
class ConditioningLatent:
    """The paper's y.

    Attributes:
        latent: [B, 16, F, h, w], in the latent space of its parts.
        mask: [1, 1, F, h, w], 1 = known. Only slot 0 is marked, however many slots carry motion. With an end image
            [1, 4, F, h, w], one channel per pixel frame of a slot.
    """

    latent: torch.Tensor
    mask: torch.Tensor


@dataclass(frozen=True)
class KnownPart:
    """The anchor, or the motion of the clip before. 2.0 Pro reads its latents, the other layouts its frames.

    Attributes:
        latent: [B, 16, n, h, w], or None.
        frames: [n, H, W, 3] in [0, 1], or None.
    """

    latent: torch.Tensor | None = None
    frames: torch.Tensor | None = None


def build_y(
    padding: Padding,
    num_frames: int,
    anchor: KnownPart | None,
    motion: KnownPart | None,
    zero_latent: torch.Tensor,
    encode: Encode | None,
) -> ConditioningLatent:
    """Return the paper's y of one clip.

    `zero latent` padding (2.0 Pro) concatenates latents: ``[anchor | motion | zeros]``. The other two encode pixel frames
    with the VAE at once: ``[known frames | grey or anchor frames]``.

    Args:
        padding: what fills the unknown slots.
        num_frames: T of the clip, 4n + 1.
        anchor: the reference image; may be None for grey padding with motion.
        motion: the tail of the clip before; None for a first clip.
        zero_latent: [1, 16, 1, 1, 1], the zero of normalised space in the latent space of `anchor` and `encode`.
        encode: the VAE; not needed for latents.

    Raises:
        ValueError: parts that do not fit together, or without the latents or frames that the padding needs.
    """
    if padding is Padding.ZERO_LATENT:
        assert anchor is not None and anchor.latent is not None
        motion_latent = None if motion is None else _motion_latent(motion)
        return concat_padding(anchor.latent, motion_latent, zero_latent, num_latent_slots(num_frames))
    if encode is None:
        raise ValueError(f"padding {padding.value!r} is made of pixel frames: connect the VAE to the vae input.")
    reference = None if anchor is None else _frames_of(anchor, "anchor", padding)
    if reference is not None and len(reference) != 1:
        raise ValueError(f"anchor holds {len(reference)} images, but padding {padding.value!r} takes one: pick one image.")
    known = reference if motion is None else _frames_of(motion, "motion", padding)
    assert known is not None
    require_whole_motion(len(known))
    latent = encode(padded_frames(known, reference if padding is Padding.ANCHOR_FRAMES else None, num_frames))
    return ConditioningLatent(latent, known_mask(latent))


def known_mask(latent: torch.Tensor) -> torch.Tensor:
    """Return the mask [1, 1, F, h, w] for `latent`: 1 (known) in slot 0, 0 elsewhere."""
    mask = torch.zeros_like(latent[:1, :1])
    mask[:, :, 0] = 1.0
    return mask


def concat_padding(
    anchor: torch.Tensor, motion: torch.Tensor | None, padding: torch.Tensor, num_slots: int
) -> ConditioningLatent:
    """Concatenate anchor, motion and padding along time: ``[anchor | motion | padding ...]``, F = `num_slots`.

    Args:
        anchor: [B, 16, 1, h, w], the reference image encoded alone.
        motion: [B, 16, m, h, w], the last m slots of the previous clip; None for a first clip.
        padding: broadcastable to one slot [B, 16, 1, h, w]; zero in *normalised* space, expressed in the space of `anchor`.
        num_slots: F, latent slots of the clip.

    Raises:
        ValueError: shapes that do not fit together, or motion that leaves nothing to generate.
    """
    _require_latent("anchor", anchor)
    if anchor.shape[2] != 1:
        raise ValueError(
            f"anchor has {anchor.shape[2]} latent slots, but an anchor is one image encoded alone (1 slot): "
            "encode it with SVI Anchor Encode. To use several anchors, encode each image and put them on the batch."
        )
    parts = [anchor]
    if motion is not None:
        anchor, motion = _same_batch(anchor, motion)
        parts = [anchor, motion]
    num_padding = num_slots - sum(part.shape[2] for part in parts)
    if num_padding < 1:
        raise ValueError(
            f"motion has {motion.shape[2]} latent slots, which with the anchor leaves nothing of a clip of {num_slots} slots "
            "to generate: use 4, 8 or 12 motion frames, or longer clips."
            if motion is not None
            else f"num_frames gives {num_slots} latent slot, which the anchor fills: use at least 5 frames, 81 as trained."
        )
    return fill_slots(torch.cat(parts, dim=2), padding, num_slots)


def fill_slots(known: torch.Tensor, padding: torch.Tensor, num_slots: int) -> ConditioningLatent:
    """Return y from its known slots [B, 16, n, h, w], filled up to `num_slots` with `padding` [1, 16, 1, 1, 1]."""
    batch, channels, count, height, width = known.shape
    latent = torch.cat([known, padding.to(known).expand(batch, channels, num_slots - count, height, width)], dim=2)
    return ConditioningLatent(latent, known_mask(latent))


def with_end_image(y: ConditioningLatent, end: torch.Tensor) -> ConditioningLatent:
    """Return `y` with `end` [B, 16, 1, h, w] in its last slot, and its last pixel frame marked as known.

    SVI was not trained with end images. Wan's first-last-frame models mark a last frame like this: of the four mask channels
    of the last slot, one per pixel frame, only the last is set.

    Args:
        end: the last slot of a clip that ends with the image, encoded as a whole.

    Raises:
        ValueError: an end image of another size than the clip.
    """
    _require_latent("end image", end)
    if end.shape[-2:] != y.latent.shape[-2:] or end.shape[2] != 1:
        raise ValueError(f"the end image has latent shape {list(end.shape)}, the clip {list(y.latent.shape)}: use one size.")
    latent, mask = y.latent.clone(), y.mask.expand(-1, TEMPORAL_STRIDE, -1, -1, -1).clone()
    latent[:, :, -1:] = end.to(latent)
    mask[:, -1, -1] = 1.0
    return ConditioningLatent(latent, mask)


def clip_that_ends_with(image: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Return a grey clip [T, H, W, 3] whose last frame is `image` [1, H, W, 3], to encode for :func:`with_end_image`."""
    return padded_frames(image[:1], None, num_frames, at_end=True)


def motion_tail(latent: torch.Tensor, num_motion_frames: int) -> torch.Tensor:
    """Return the last `num_motion_frames` (4, 8, 12) frames of a clip's latent [B, 16, F, h, w] as [B, 16, n, h, w].

    The slots are the sampler's own output, without a VAE round trip. Slot 0 holds one frame, not four, and is never taken.

    Raises:
        ValueError: not a video latent, a count that is not 4n, or more slots than the clip has after slot 0.
    """
    _require_latent("samples", latent)
    count = num_motion_latents(num_motion_frames)
    if count > latent.shape[2] - 1:
        raise ValueError(
            f"num_motion_frames is {num_motion_frames}, but the clip has only {(latent.shape[2] - 1) * TEMPORAL_STRIDE} frames "
            "after its first: use fewer motion frames or a longer clip."
        )
    return latent[:, :, -count:].clone()


def motion_window(frames: torch.Tensor) -> torch.Tensor:
    """Return the last 4n + 1 <= 81 of `frames` [T, H, W, 3], which the VAE encodes to get a motion tail.

    In the causal VAE a slot depends on the frames before it, so the whole window is encoded and only its last slots are kept
    (docs/METHOD.md, 9.9: motion = last slot of VAE(the 81 frames before)).
    """
    usable = (min(frames.shape[0], TRAINED_NUM_FRAMES) - 1) // TEMPORAL_STRIDE * TEMPORAL_STRIDE + 1
    return frames[frames.shape[0] - usable :]


def padded_frames(
    known: torch.Tensor, padding_image: torch.Tensor | None, num_frames: int, at_end: bool = False
) -> torch.Tensor:
    """Return ``[known frames | padding frames]`` [T, H, W, 3], the clip that a pixel-space layout encodes.

    It lies where `known` lies, or on the host if that device lacks memory for it.

    Args:
        known: [n, H, W, 3] in [0, 1], the reference image or the last frames of the previous clip.
        padding_image: [1, H, W, 3], repeated over the rest of the clip; None for mid-grey (0.5).
        num_frames: T, 4n + 1.
        at_end: the known frames come last.

    Raises:
        ValueError: bad `num_frames`, more known frames than the clip holds, or images of different sizes.
    """
    num_latent_slots(num_frames)
    count, height, width, _ = known.shape
    if count >= num_frames:
        raise ValueError(
            f"{count} known frames fill the clip of {num_frames} frames, and nothing is left to generate: use fewer."
        )
    if padding_image is None:
        padding_image = torch.full_like(known[:1], 0.5)
    if padding_image.shape[1:3] != (height, width):
        raise ValueError(
            f"the anchor image is {padding_image.shape[2]} x {padding_image.shape[1]} pixels but the motion frames are "
            f"{width} x {height}: bring both to one size."
        )
    try:
        padding = padding_image[:1].to(known).expand(num_frames - count, -1, -1, -1)
        return torch.cat([padding, known] if at_end else [known, padding], dim=0)
    except RuntimeError as error:
        if known.device.type == "cpu" or not is_out_of_memory(error):
            raise
    return padded_frames(known.cpu(), padding_image, num_frames, at_end)


def cut_to_8_bits(frames: torch.Tensor) -> torch.Tensor:
    """Return `frames` [T, H, W, 3] in [0, 1] truncated, not rounded, to 8 bits, as the released code of 1.0 does.

    Source: docs/METHOD.md, 3.1: motion frames are 8-bit pictures, ``((x + 1) * 127.5)`` clipped and cut, x in [-1, 1].
    """
    return (frames * 255.0).clamp(0.0, 255.0).floor() / 255.0


def require_finite(latent: torch.Tensor, where: str) -> None:
    """Raise ValueError, naming `where`, if a latent holds NaN or infinity, which would decode to a black clip."""
    if bool(latent.sum().isfinite()):
        return  # in one pass: a sum of finite numbers only can be finite
    if bad := int((~torch.isfinite(latent)).sum()):
        raise ValueError(
            f"{where}: {bad} of {latent.numel()} latent values are NaN or infinite. Usual causes: a LoRA of another base or "
            "at a high strength, a broken model file, or fp16 overflow (try a bf16 or fp8_scaled file)."
        )


def _motion_latent(motion: KnownPart) -> torch.Tensor:
    """Return the motion slots; refuse a tail of 1 or 5 frames, which is for the pixel-space layouts."""
    if motion.frames is not None and len(motion.frames) % TEMPORAL_STRIDE:
        raise ValueError(
            f"motion holds {len(motion.frames)} frames, which is for pixel-space layouts; padding 'zero latent' (2.0 Pro) "
            "takes 4, 8 or 12: change num_motion_frames of SVI Motion Latent."
        )
    assert motion.latent is not None
    return motion.latent


def _frames_of(part: KnownPart, name: str, padding: Padding) -> torch.Tensor:
    if part.frames is None:
        raise ValueError(
            f"padding {padding.value!r} is made of pixel frames, but {name} holds only latents: make it from images, with "
            + ("SVI Anchor Encode." if name == "anchor" else "the images input of SVI Motion Latent.")
        )
    return part.frames


def _require_latent(name: str, latent: torch.Tensor) -> None:
    if latent.ndim != 5 or latent.shape[1] != LATENT_CHANNELS:
        raise ValueError(
            f"{name} has shape {list(latent.shape)}, but SVI needs a Wan 2.1 video latent [batch, 16, slots, height / 8, "
            "width / 8]: encode it with the Wan 2.1 VAE (Wan 2.2 14B uses that one too; the 5B model's VAE does not fit)."
        )


def _same_batch(anchor: torch.Tensor, motion: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Check that `motion` fits `anchor` and repeat whichever has batch 1."""
    _require_latent("motion", motion)
    if motion.shape[-2:] != anchor.shape[-2:]:
        sizes = " and ".join(
            f"{name} {t.shape[-1] * 8} x {t.shape[-2] * 8}" for name, t in (("anchor", anchor), ("motion", motion))
        )
        raise ValueError(f"anchor and motion differ in size ({sizes} pixels): encode the anchor at the size of the clips.")
    batch = max(anchor.shape[0], motion.shape[0])
    if {anchor.shape[0], motion.shape[0]} - {1, batch}:
        raise ValueError(
            f"anchor has batch {anchor.shape[0]} and motion has batch {motion.shape[0]}: they must be equal, or one of them 1."
        )
    grow = [t.expand(batch, -1, -1, -1, -1) for t in (anchor, motion)]
    return grow[0], grow[1].to(anchor)
