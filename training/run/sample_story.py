"""What the sample videos of a run show."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from svi_core.conditioning.pose_video import fit_pose
from svi_core.conditioning.talk import LOOK_AROUND
from training.data.dataset import TrainingExample
from training.model import encoders
from training.model.comfy_runtime import find_model
from training.model.encoders import unload_encoders
from training.settings.sections import TrainingConfig


@dataclass(frozen=True)
class Story:
    """What the sample videos of a run show.

    Attributes:
        prompts: one per clip.
        texts: the embedding [L, D] of each prompt.
        negative: that of the negative prompt; None without guidance.
        reference: [1, H, W, 3] in [0, 1], the first picture.
        anchor: [1, 16, 1, h, w], its normalised latent.
        poses: [T, H, W, 3] uint8 that the clips follow, over and over; None without poses.
        heard: [T + 4, layers, channels], speech that they follow, over and over; None without sound.
    """

    prompts: tuple[str, ...]
    texts: dict[str, Tensor] = field(repr=False)
    negative: Tensor | None = field(repr=False)
    reference: Tensor = field(repr=False)
    anchor: Tensor = field(repr=False)
    poses: Tensor | None = field(default=None, repr=False)
    heard: Tensor | None = field(default=None, repr=False)


def _tell(config: TrainingConfig, example: TrainingExample, vae) -> Story:
    """Return the story that the settings tell, taking from `example` what they leave open."""
    settings = config.samples
    prompts = settings.prompts or (example.caption or example.name,)
    texts, negative = {prompts[0]: example.text}, None
    if settings.prompts or settings.cfg != 1.0:
        path = find_model("text_encoders", config.model.text_encoder, "model.text_encoder")
        text_encoder = encoders.load_text_encoder(path)
        texts = texts if not settings.prompts else {prompt: encoders.encode_text(text_encoder, prompt) for prompt in prompts}
        negative = encoders.encode_text(text_encoder, settings.negative)
        del text_encoder
        unload_encoders()
    if settings.image:
        reference = _read_image(Path(settings.image), *config.data.sizes[0])
        anchor = encoders.encode_video(vae, reference)[None]
    else:
        anchor = example.y_latent[None, :, :1]
        reference = next(iter(encoders.decode(vae, anchor[0])))[:1]
    poses = example.extras.get("pose")
    poses = None if poses is None else _fitted(poses, reference)
    return Story(tuple(prompts), texts, negative, reference, anchor, poses, example.extras.get("sound"))


def _heard_by(heard: Tensor, start_frame: int, num_frames: int) -> Tensor:
    """Return what a clip that begins at `start_frame` hears of a speech that begins again when it ends."""
    own = heard[LOOK_AROUND : len(heard) - LOOK_AROUND]
    frames = [max(0, frame) % len(own) for frame in range(start_frame - LOOK_AROUND, start_frame + num_frames + LOOK_AROUND)]
    return own[frames]


def _fitted(poses: Tensor, reference: Tensor) -> Tensor:
    """Return `poses` at the size of `reference`, which may be of another bucket."""
    height, width = reference.shape[1:3]
    return torch.from_numpy(np.stack([fit_pose(pose, width, height) for pose in poses.numpy()]))


def _read_image(path: Path, width: int, height: int) -> Tensor:
    """Return the picture [1, H, W, 3] in [0, 1], cropped to the shape of the clips and resized.

    Raises:
        ValueError: no picture there.
    """
    try:
        image = Image.open(path).convert("RGB")
    except OSError as error:
        raise ValueError(
            f"samples.image is {str(path)!r}, which cannot be read as a picture ({error}): give a PNG or JPEG."
        ) from error
    scale = max(width / image.width, height / image.height)
    size = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    resized = image.resize(size, Image.Resampling.LANCZOS).crop((left, top, left + width, top + height))
    return torch.from_numpy(np.asarray(resized).copy()).float().div(255)[None]
