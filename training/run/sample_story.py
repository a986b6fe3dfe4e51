"""What the sample videos of a run show: prompts, reference image, and the poses or speech that they follow."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from svi_core.conditioning.pose_video import fit_pose
from svi_core.conditioning.talk import LOOK_AROUND
from svi_core.systems.layouts import Layout, Padding
from training.data.dataset import TrainingExample
from training.model import encoders
from training.model.encoder_files import find_encoder
from training.settings.sections import TrainingConfig


@dataclass(frozen=True)
class Story:
    """What the sample videos of a run show.

    Attributes:
        prompts: one per clip.
        texts: the embedding [L, D] of each prompt.
        negative: the embedding [L, D] of the negative prompt; None without guidance.
        reference: [1, H, W, 3] in [0, 1], the reference image.
        anchor: [1, 16, 1, h, w], the normalised latent of the reference image.
        poses: [T, H, W, 3] uint8, repeated over the video; None without poses.
        heard: [T + 4, layers, channels], features of the speech, repeated over the video; None without sound.
    """

    prompts: tuple[str, ...]
    texts: dict[str, Tensor] = field(repr=False)
    negative: Tensor | None = field(repr=False)
    reference: Tensor = field(repr=False)
    anchor: Tensor = field(repr=False)
    poses: Tensor | None = field(default=None, repr=False)
    heard: Tensor | None = field(default=None, repr=False)


def make_story(config: TrainingConfig, example: TrainingExample, vae) -> Story:
    """Return the story that the settings describe; `example` supplies what they leave empty.

    Raises:
        ValueError: a model file or the reference image is missing or broken.
    """
    settings = config.samples
    prompts = settings.prompts or (example.caption or example.name,)
    texts, negative = {prompts[0]: example.text}, None
    if settings.prompts or settings.cfg != 1.0:
        text_encoder = encoders.load_text_encoder(find_encoder(config.model, "text_encoder"))
        if settings.prompts:
            texts = {prompt: encoders.encode_text(text_encoder, prompt) for prompt in prompts}
        negative = encoders.encode_text(text_encoder, settings.negative)
        del text_encoder
        encoders.unload_encoders()
    if settings.image:
        reference = _read_image(Path(settings.image), *config.data.sizes[0])
        anchor = encoders.encode_video(vae, reference)[None]
    else:
        anchor = example.y_latent[None, :, :1]
        reference = next(iter(encoders.decode(vae, anchor[0])))[:1]
    poses = example.extras.get("pose")
    poses = None if poses is None else _resized(poses, reference)
    return Story(tuple(prompts), texts, negative, reference, anchor, poses, example.extras.get("sound"))


def scene_story(example: TrainingExample, layout: Layout, vae, negative: Tensor | None) -> Story:
    """Return the story that goes on from `example`: its own text, anchor, poses and sound."""
    prompt = example.caption or example.name
    anchor = example.y_latent[None, :, :1]
    if layout.padding is Padding.ANCHOR_FRAMES:  # the anchor is shown in the padding; slot 0 holds the motion
        reference = torch.cat(list(encoders.decode(vae, example.y_latent)))[-1:]
    else:
        reference = next(iter(encoders.decode(vae, anchor[0])))[:1]
    extras = example.extras
    return Story((prompt,), {prompt: example.text}, negative, reference, anchor, extras.get("pose"), extras.get("sound"))


def negative_prompt(config: TrainingConfig) -> Tensor:
    """Return the embedding [L, D] of the negative prompt.

    Raises:
        ValueError: the text encoder's file is missing or broken.
    """
    text_encoder = encoders.load_text_encoder(find_encoder(config.model, "text_encoder"))
    negative = encoders.encode_text(text_encoder, config.samples.negative)
    del text_encoder
    encoders.unload_encoders()
    return negative


def looped_speech(heard: Tensor, start_frame: int, num_frames: int) -> Tensor:
    """Return the speech features of a clip that begins at `start_frame`, from a speech that repeats when it ends."""
    own = heard[LOOK_AROUND : len(heard) - LOOK_AROUND]
    frames = [max(0, frame) % len(own) for frame in range(start_frame - LOOK_AROUND, start_frame + num_frames + LOOK_AROUND)]
    return own[frames]


def _resized(poses: Tensor, reference: Tensor) -> Tensor:
    """Return `poses` at the size of `reference`, which may differ from that of the example's bucket."""
    height, width = reference.shape[1:3]
    return torch.from_numpy(np.stack([fit_pose(pose, width, height) for pose in poses.numpy()]))


def _read_image(path: Path, width: int, height: int) -> Tensor:
    """Return the picture [1, H, W, 3] in [0, 1], resized and cropped to the size of the clips.

    Raises:
        ValueError: the file is missing or is not a picture.
    """
    try:
        image = Image.open(path).convert("RGB")
    except OSError as error:
        raise ValueError(
            f"samples.image is {str(path)!r}, which cannot be read as a picture ({error}): use a PNG or JPEG."
        ) from error
    scale = max(width / image.width, height / image.height)
    size = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    resized = image.resize(size, Image.Resampling.LANCZOS).crop((left, top, left + width, top + height))
    return torch.from_numpy(np.asarray(resized).copy()).float().div(255)[None]
