"""Bring a reference image to the size of the video.

Source: docs/METHOD.md, 4.6 (the released code limits the width, floors both sides to 16 and stretches; cropping is ours).
"""

from enum import StrEnum

import torch
from torch.nn.functional import interpolate

from ..geometry import SIZE_MULTIPLE, require_frame_size

MAX_SIDE = 16384  # pixels; no GPU has room for more
MEGAPIXEL = 1024 * 1024  # pixels, as ComfyUI's own nodes count them
TRAINED_MEGAPIXELS = 0.38  # 832 x 480


class SizeRule(StrEnum):
    """How the size of the video follows from the requested width and height."""

    EXACT = "exact"
    FIT_WIDTH = "fit width"
    FIT_AREA = "fit area"
    MEGAPIXELS = "megapixels"


class ResizeMode(StrEnum):
    """How an image of another aspect ratio is fitted to the size of the video."""

    CROP = "crop"
    STRETCH = "stretch"


def video_size(
    image_width: int, image_height: int, width: int, height: int, rule: SizeRule, megapixels: float = TRAINED_MEGAPIXELS
) -> tuple[int, int]:
    """Return (width, height) in pixels of the video made from an image of `image_width` x `image_height`.

    EXACT takes `width` x `height`. FIT_WIDTH keeps the image's size unless it is wider than `width`, then scales it to
    that width, as the released code does. FIT_AREA keeps the aspect ratio at about `width * height` pixels, which suits
    portraits. These two round down to multiples of 16. MEGAPIXELS keeps the aspect ratio at about `megapixels`, and rounds to
    the nearest multiples of 16.

    Raises:
        ValueError: Wan cannot take the resulting size; the message names both sizes.
    """
    if rule is SizeRule.EXACT:
        require_frame_size(width, height, "video")
        return width, height
    if rule is SizeRule.FIT_WIDTH:
        scale = min(1.0, width / image_width)
    else:
        area = megapixels * MEGAPIXEL if rule is SizeRule.MEGAPIXELS else width * height
        scale = (area / (image_width * image_height)) ** 0.5
    to_whole = round if rule is SizeRule.MEGAPIXELS else int
    width, height = (SIZE_MULTIPLE * to_whole((side * scale + 1e-6) / SIZE_MULTIPLE) for side in (image_width, image_height))
    if not SIZE_MULTIPLE <= min(width, height) <= max(width, height) <= MAX_SIDE:
        raise ValueError(
            f"the image has {image_width} x {image_height} pixels, which {rule.value!r} makes a video of "
            f"{image_width * scale:.0f} x {image_height * scale:.0f}, but Wan needs sides of {SIZE_MULTIPLE} to {MAX_SIDE}: "
            "crop the image, or choose size_rule exact."
        )
    return width, height


def size_text(image_width: int, image_height: int, width: int, height: int) -> str:
    """Return one line about a video of `width` x `height` pixels made from an image of `image_width` x `image_height`."""
    megapixels = width * height / MEGAPIXEL
    return f"{width} x {height} pixels ({megapixels:.2f} megapixels), from an image of {image_width} x {image_height}"


def resize_images(images: torch.Tensor, width: int, height: int, mode: ResizeMode) -> torch.Tensor:
    """Resize `images` [N, H, W, 3] in [0, 1] to [N, height, width, 3], bicubic with antialiasing.

    CROP crops the longer side around the centre; STRETCH distorts. An image of the right size passes through unchanged.
    """
    if mode is ResizeMode.CROP:
        images = _centre_crop(images, width / height)
    if images.shape[1:3] == (height, width):
        return images
    pixels = images.movedim(-1, 1).float()
    resized = interpolate(pixels, size=(height, width), mode="bicubic", align_corners=False, antialias=True)
    return resized.clamp(0.0, 1.0).movedim(1, -1).contiguous()


def _centre_crop(images: torch.Tensor, aspect: float) -> torch.Tensor:
    """Crop `images` [N, H, W, 3] around the centre to the aspect ratio width / height."""
    _, height, width, _ = images.shape
    kept_width = max(1, min(width, round(height * aspect)))
    kept_height = max(1, min(height, round(width / aspect)))
    left, top = (width - kept_width) // 2, (height - kept_height) // 2
    return images[:, top : top + kept_height, left : left + kept_width]
