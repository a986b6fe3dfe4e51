"""Encode one example: the clip to generate, and its conditioning latent.

Source: docs/METHOD.md, 3.1 (pixel-space layouts: one encode of known and padding frames), 3.3 and 9.9 (2.0 Pro: the anchor
alone, motion from the last slots of the encoded motion window; the padding is zero in normalised space and not stored).
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from svi_core.conditioning.build_y import KnownPart, build_y, motion_tail
from svi_core.conditioning.talk import LOOK_AROUND, SpeechFeatures
from svi_core.geometry import LATENT_CHANNELS, SPATIAL_STRIDE
from svi_core.systems.layouts import Condition, Layout
from training.data.crops import cut
from training.data.first_frame import Augmentation, augmented
from training.data.poses import packed_poses, read_poses
from training.data.sound import read_speech
from training.data.sources import ClipSource
from training.data.video_reading import read_pictures
from training.data.windows import WindowPlan, num_known_slots
from training.settings.data import DataConfig

Job = TypeVar("Job", bound=tuple)
Result = TypeVar("Result")
_VISION_VALUES = 257 * 1280
_SPEECH_VALUES = 12 * 768  # of a frame
_PACKED_POSES = 4  # estimated compression of poses, which are mostly black; a full disk is reported anyway


@dataclass(frozen=True)
class WindowFiles:
    """The frames, poses and sound of one example, as read from its clip's files.

    Attributes:
        pictures: frames [height, width, 3] in [0, 1] by their number in the clip.
        poses: [T, height, width, 3] uint8, a pose for each target frame; None if the layout has no poses.
        speech: [n] at 16 kHz, the sound of the whole clip; None if the layout has no sound.
    """

    pictures: Mapping[int, Tensor]
    poses: Tensor | None = None
    speech: Tensor | None = None


class Encoders(Protocol):
    """The encoders of a cache; `training.model.encoders.WanEncoders` runs ComfyUI's.

    Attributes:
        fingerprints: hash of each model file: "vae", "text_encoder", "clip_vision" ("" for none), "audio_encoder" where used.
    """

    fingerprints: Mapping[str, str]

    def text(self, prompt: str) -> Tensor:
        """Return the embedding [L, D]."""
        ...

    def release_text_encoder(self) -> None:
        """Free the text encoder's memory: all texts are encoded."""
        ...

    def video(self, frames: Tensor) -> Tensor:
        """Return the normalised latent [16, F, h, w] of `frames` [T, H, W, 3] in [0, 1]."""
        ...

    def vision(self, image: Tensor) -> Tensor | None:
        """Return CLIP vision tokens of `image` [H, W, 3], or None."""
        ...

    def speech(self, samples: Tensor, num_frames: int) -> Tensor:
        """Return the features [num_frames, layers, channels] of `samples` [n] at 16 kHz."""
        ...


def read_window(source: ClipSource, plan: WindowPlan, config: DataConfig) -> WindowFiles:
    """Return the frames that `plan` needs, cropped and resized, and the poses or sound of the layout.

    Raises:
        ValueError: the clip can no longer be read, or its pose video does not match it.
    """
    pictures = {}
    for number, picture in read_pictures(source.path, config.frame_rate, plan.frames):
        pictures[number], size = cut(picture, plan.crop), (picture.shape[1], picture.shape[0])
    if config.svi_layout.condition is None:
        return WindowFiles(pictures)
    if config.svi_layout.condition is Condition.SOUND:
        return WindowFiles(pictures, speech=read_speech(source.sound))
    return WindowFiles(
        pictures, read_poses(source.pose, config.frame_rate, plan.target, plan.crop, size, config.max_held_frames)
    )


def encode_window(plan: WindowPlan, config: DataConfig, found: WindowFiles, encoders: Encoders) -> dict[str, Tensor]:
    """Encode one example.

    Args:
        plan: the example's frames.
        config: the layout, and the dtype of the result.
        found: the result of :func:`read_window`.
        encoders: the models.

    Returns:
        "latent" [16, F, h, w]; "known" [16, k, h, w], the conditioning latent without zero padding; where used, "clip_vision",
        packed poses, and "heard" [T + 4, layers, channels], the features of the sound.

    Raises:
        ValueError: a tensor is not finite; the message names the part and the stage that made it.
    """
    layout, pictures = config.svi_layout, found.pictures
    reference = None if plan.anchor is None else pictures[plan.anchor][None]
    with _naming("the conditioning latent"):
        known = _known_slots(plan, layout, reference, encoders, _stacked(pictures, plan.motion))
    with _naming("the target clip"):
        encoded = {"latent": encoders.video(_stacked(pictures, plan.target)), "known": known}
    vision = encoders.vision(reference[0] if layout.in_latent_space else pictures[plan.motion[0]])
    if vision is not None:
        if not bool(vision.isfinite().all()):
            raise ValueError("the CLIP vision encoder returned NaN or infinite values: try another encoder file.")
        encoded["clip_vision"] = vision
    if found.speech is not None:
        encoded["heard"] = SpeechFeatures(found.speech, encoders.speech).heard_by(plan.target[0], layout.num_frames)
    stored = {part: tensor.to(stored_dtype(config)) for part, tensor in encoded.items()}
    return stored if found.poses is None else {**stored, **packed_poses(found.poses)}


def encode_draw(
    plan: WindowPlan, config: DataConfig, found: WindowFiles, encoders: Encoders, change: Augmentation
) -> dict[str, Tensor]:
    """Encode the conditioning latent of one example after `change` of its motion frames; the anchor stays as it is.

    Returns:
        "known", as :func:`encode_window` returns it. The CLIP vision feature stays that of the frame as it is, as released.

    Raises:
        ValueError: see :func:`encode_window`.
    """
    layout, pictures = config.svi_layout, found.pictures
    reference = None if plan.anchor is None else pictures[plan.anchor][None]
    motion = augmented(_stacked(pictures, plan.motion), change)
    with _naming("the conditioning latent, augmented"):
        known = _known_slots(plan, layout, reference, encoders, motion)
    return {"known": known.to(stored_dtype(config))}


@contextmanager
def _naming(part: str) -> Iterator[None]:
    """Put `part` of an example before the message of a ValueError."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{part}: {error}") from error


def _known_slots(
    plan: WindowPlan, layout: Layout, reference: Tensor | None, encoders: Encoders, frames: Tensor | None
) -> Tensor:
    """Return the slots [16, k, h, w] of the conditioning latent that are more than padding: the zeros are not stored.

    Args:
        frames: the motion frames [T, H, W, 3]; None if there are none.
    """

    def encode(frames: Tensor) -> Tensor:
        return encoders.video(frames)[None]

    anchor = motion = None
    if layout.in_latent_space:
        anchor = KnownPart(encode(reference))
        if plan.later_clip:
            motion = KnownPart(motion_tail(encode(frames), layout.num_motion_frames))
    else:
        anchor = reference if reference is None else KnownPart(frames=reference)
        motion = KnownPart(frames=frames)
    zero = torch.zeros(1, LATENT_CHANNELS, 1, 1, 1)
    y = build_y(layout.padding, layout.num_frames, anchor, motion, zero, encode)
    return y.latent[0, :, : num_known_slots(layout, plan.later_clip)]


def one_ahead(work: Callable[..., Result], jobs: Iterable[Job]) -> Iterator[tuple[Job, Future[Result]]]:
    """Yield each job with the future of ``work(*job)``, while a thread works on the next job.

    So the CPU reads and resizes the next clip while the GPU encodes. At most two results are in memory.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="svi-read") as reader:
        waiting: deque[tuple[Job, Future[Result]]] = deque()
        for job in jobs:
            waiting.append((job, reader.submit(work, *job)))
            if len(waiting) == 2:
                yield waiting.popleft()
        yield from waiting


def encoded_bytes(plan: WindowPlan, config: DataConfig) -> int:
    """Return the size of an example's file with CLIP vision. The size of packed poses is an estimate."""
    layout = config.svi_layout
    num_known = num_known_slots(layout, plan.later_clip)
    slot = LATENT_CHANNELS * (plan.crop.height // SPATIAL_STRIDE) * (plan.crop.width // SPATIAL_STRIDE)
    heard = _SPEECH_VALUES * (layout.num_frames + 2 * LOOK_AROUND) if layout.condition is Condition.SOUND else 0
    values = heard + (layout.num_slots + num_known) * slot + _VISION_VALUES
    poses = 3 * layout.num_frames * plan.crop.width * plan.crop.height if layout.condition is Condition.POSE else 0
    return values * stored_dtype(config).itemsize + poses // _PACKED_POSES


def stored_dtype(config: DataConfig) -> torch.dtype:
    """Return the dtype of cached tensors."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[config.storage]


def draw_bytes(plan: WindowPlan, config: DataConfig) -> int:
    """Return the size of the file of an augmented conditioning latent."""
    slot = LATENT_CHANNELS * (plan.crop.height // SPATIAL_STRIDE) * (plan.crop.width // SPATIAL_STRIDE)
    return num_known_slots(config.svi_layout, plan.later_clip) * slot * stored_dtype(config).itemsize


def _stacked(pictures: Mapping[int, Tensor], numbers: Sequence[int]) -> Tensor | None:
    return torch.stack([pictures[number] for number in numbers]) if numbers else None
