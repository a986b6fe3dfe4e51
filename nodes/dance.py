"""Pose videos for SVI-Dance: each clip's pose tokens are added to its patch tokens before the transformer's first block.

Source: docs/METHOD.md, 8.2; the place is where ComfyUI's comfy/ldm/wan/model.py hands its tokens to a replacement of block 0.
"""

import logging
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path

import comfy.model_management
import folder_paths
import torch
from comfy_api.latest import io

from ..svi_core.clips.clip_plan import ClipRequest
from ..svi_core.conditioning.dance import PoseEncoder, encode_poses, encoding_bytes, read_pose_encoder
from ..svi_core.conditioning.pose_video import PoseVideo, WhenPosesEnd, num_clips_for, pose_file, pose_images, pose_indices
from ..svi_core.files.fingerprint import fingerprint
from ..svi_core.geometry import SIZE_MULTIPLE
from ..svi_core.systems.layouts import LAYOUTS, Condition, Layout, Padding
from ..svi_core.systems.lora_variant import AutoLayout
from ..svi_core.video.sound import SoundTrack
from .bridge import models
from .bridge.control import Control, ControlType
from .bridge.schemas import svi_schema
from .layouts import LayoutType

BLOCK_0 = ("double_block", 0)  # ComfyUI's name of a Wan transformer's first block
_POSITIVE = 0  # ComfyUI's number of the positive pass in cond_or_uncond


class SVIDance(io.ComfyNode):
    """Let the clips follow a pose video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id="SVIDance",
            display_name="SVI Dance",
            description="A pose video (DWPose: body, feet and hands in colour on black) that the clips follow, for SVI-Dance. "
            "The pose encoder is read from the svi-dance file; its LoRA is applied with SVI LoRA Stack as usual.",
            search_aliases=["pose", "dwpose", "unianimate", "svi-dance"],
            inputs=[
                io.MultiType.Input(
                    "poses",
                    [io.Video, io.Image],
                    tooltip="The pose video, or its frames. A video file of any length is decoded as it is needed, and the "
                    "new video has its frame rate.",
                ),
                io.Combo.Input(
                    "lora",
                    options=folder_paths.get_filename_list("loras"),
                    tooltip="The svi-dance file, which holds the pose encoder beside the LoRA.",
                ),
                io.Combo.Input(
                    "when_poses_end",
                    options=WhenPosesEnd,
                    default=WhenPosesEnd.LOOP,
                    tooltip="Clips beyond the end of the pose video: loop begins it again; stop ends the video with it; hold "
                    "last keeps its last pose.",
                ),
                io.Boolean.Input(
                    "pose_in_negative",
                    default=True,
                    tooltip="On: both passes see the poses, as the authors do. Off: only the positive one, so that cfg "
                    "strengthens them.",
                ),
                LayoutType.Input("layout", optional=True, tooltip="From SVI Layout, to count num_clips; 81 frames if empty."),
                ControlType.Input("control", optional=True, tooltip="Another control that the clips follow too."),
            ],
            outputs=[
                ControlType.Output("control_out", display_name="control", tooltip="For control of SVI Generate."),
                io.Int.Output("num_clips", tooltip="As many clips as the pose video needs; for num_clips of SVI Generate."),
            ],
        )

    @classmethod
    def execute(cls, poses, lora, when_poses_end, pose_in_negative, layout=None, control=()) -> io.NodeOutput:
        before = control or ()
        encoder = read_pose_encoder(Path(folder_paths.get_full_path_or_raise("loras", lora)), lora)
        dance = DanceControl(read_poses(poses), encoder, lora, WhenPosesEnd(when_poses_end), pose_in_negative)
        require_one_dance(before)
        return io.NodeOutput((*before, dance), num_dance_clips(len(dance.poses.digests), layout))


@dataclass(frozen=True, eq=False)
class DanceControl:
    """Poses that the clips of a run follow (nodes/control.py).

    Attributes:
        poses: one pose for each frame of the video.
        encoder: on the CPU.
        file: name of the file that the encoder is from.
        when_poses_end: what comes after the last pose.
        in_negative: whether the negative pass sees the poses too.
    """

    poses: PoseVideo
    encoder: PoseEncoder = field(repr=False)
    file: str
    when_poses_end: WhenPosesEnd = WhenPosesEnd.LOOP
    in_negative: bool = True
    condition: Condition = Condition.POSE
    sound: SoundTrack | None = None
    num_extra_passes: int = 0

    @property
    def frame_rate(self) -> float | None:
        """Frames per second of the pose video, None for loose images."""
        return self.poses.frame_rate

    @property
    def num_frames(self) -> int:
        """Frames after which the video ends with the poses, 0 if it does not."""
        return end_of_poses(len(self.poses.digests), self.when_poses_end)

    def check(self, model, layout: Layout, width: int, height: int) -> None:
        """Refuse a model that the pose encoder was not made for, and a layout that SVI-Dance was not trained with.

        Raises:
            ValueError: naming both sizes, or the layout.
        """
        if layout.padding is not Padding.ANCHOR_FRAMES:
            raise ValueError(
                f"layout is {layout.name!r}, which is padded with {layout.padding.value}, but SVI-Dance is trained with anchor "
                "frames: choose Dance in SVI Layout."
            )
        dim = model.model.diffusion_model.patch_embedding.weight.shape[0]
        if dim != self.encoder.dim:
            raise ValueError(
                f"the pose encoder of {self.file} makes tokens {self.encoder.dim} wide, but model's are {dim} wide: they "
                "belong to different sizes of Wan; svi-dance is for Wan 2.1 I2V 14B."
            )
        if not models.needs_clip_vision(model):
            logging.warning("SVI Dance: model is not Wan 2.1 I2V, which SVI-Dance was trained on; expect weaker results.")

    def determinants(self, request: ClipRequest) -> object:
        """Return the encoder, the poses that the clip shows, and where they are added."""
        return (self._encoder_key(), self.in_negative, [self.poses.digests[index] for index in self._indices(request)])

    def patched(self, model, request: ClipRequest, samples: torch.Tensor):
        """Return a clone of `model` that adds the pose tokens of the clip of `request`; they are encoded here, once."""
        _, _, num_slots, height, width = samples.shape
        poses = self.poses.read(self._indices(request), 8 * width, 8 * height)
        tokens = _encode(self.encoder, poses, model)
        clone = model.clone()
        inner = clone.model_options["transformer_options"].get("patches_replace", {}).get("dit", {}).get(BLOCK_0)
        grid = (num_slots, 8 * height // SIZE_MULTIPLE, 8 * width // SIZE_MULTIPLE)
        clone.set_model_patch_replace(PoseTokens(tokens, grid, self.in_negative, inner), "dit", *BLOCK_0)
        return clone

    def _indices(self, request: ClipRequest) -> list[int]:
        return pose_indices(request.start_frame, request.layout.num_frames, len(self.poses.digests), self.when_poses_end)

    def _encoder_key(self) -> str:
        return fingerprint(dict(self.encoder.state_dict()))


@dataclass(eq=False)
class PoseTokens:
    """ComfyUI's replacement of block 0: the same block, on tokens that the poses were added to.

    Attributes:
        tokens: [1, F * H / 16 * W / 16, dim], on the device of the model while that is loaded.
        grid: (F, H / 16, W / 16).
        in_negative: whether the negative pass gets them too.
        inner: a replacement of the block that was there before.
    """

    tokens: torch.Tensor
    grid: tuple[int, int, int]
    in_negative: bool
    inner: Callable | None = None

    def __call__(self, args: Mapping, extra: Mapping) -> Mapping:
        """Add the tokens to "img" [passes, tokens, dim], in place, and run the block.

        Raises:
            ValueError: the model works on another part of the clip than all of it.
        """
        options, image = args["transformer_options"], args["img"]
        if tuple(options["grid_sizes"]) != self.grid or image.shape[1] != self.tokens.shape[1]:
            raise ValueError(
                f"the poses are for {self.grid} tokens (slots, rows, columns), but the model works on "
                f"{tuple(options['grid_sizes'])}: SVI Dance takes whole clips, so remove context windows and reference latents."
            )
        passes = options["cond_or_uncond"]
        for number, part in zip(passes, image.chunk(len(passes)), strict=True):
            if number == _POSITIVE or self.in_negative:
                part.add_(self.tokens.to(part))
        return extra["original_block"](args) if self.inner is None else self.inner(args, extra)

    def to(self, target: torch.device | torch.dtype) -> "PoseTokens":
        """Follow the model to a device; ComfyUI calls this, also with a dtype, which the tokens have already."""
        if isinstance(target, torch.device):
            self.tokens = self.tokens.to(target)
        return self


def num_dance_clips(num_poses: int, layout: Layout | AutoLayout | None) -> int:
    """Return how many clips of `layout` show `num_poses` poses; of 81 frames where no layout is connected."""
    dance = LAYOUTS["Dance"]
    return num_clips_for(num_poses, (layout or dance).num_frames, dance.overlap)


def end_of_poses(num_poses: int, when_poses_end: str) -> int:
    """Return the frames after which the video ends with its `num_poses` poses, 0 if it goes on."""
    return num_poses if WhenPosesEnd(when_poses_end) is WhenPosesEnd.STOP else 0


def require_one_dance(controls: tuple[Control, ...]) -> None:
    """Refuse a chain of controls that follows poses already.

    Raises:
        ValueError: naming the input.
    """
    if any(isinstance(control, DanceControl) for control in controls):
        raise ValueError("control follows a pose video already: use one SVI Dance, since two poses would be added up.")


def read_poses(poses) -> PoseVideo:
    """Return a VIDEO or IMAGE as a pose video; a file is read once, frame by frame, the rest is kept as bytes.

    Raises:
        OSError: a file that cannot be read.
        ValueError: no frames.
    """
    if isinstance(poses, torch.Tensor):
        return pose_images(poses)
    source, rate = poses.get_stream_source(), float(poses.get_frame_rate())
    if not isinstance(source, str):
        return pose_images(poses.get_components().images, rate)
    stop_if_interrupted = comfy.model_management.throw_exception_if_processing_interrupted
    return pose_file(Path(source), rate, *poses.get_active_trim_window(), stop_if_interrupted)


def _encode(encoder: PoseEncoder, poses: torch.Tensor, model) -> torch.Tensor:
    """Return the tokens of `poses` in the dtype that `model` computes in, made on its device."""
    device = model.load_device
    comfy.model_management.free_memory(encoding_bytes(poses.shape[2], poses.shape[1]), device)
    return encode_poses(deepcopy(encoder).to(device), poses, model.model.get_dtype_inference())
