"""Pose videos for SVI-Dance: the pose tokens of a clip are added to its patch tokens before the first transformer block.

Source: docs/METHOD.md, 8.2; comfy/ldm/wan/model.py passes its tokens to a replacement of block 0.
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
from ..svi_core.conditioning.pose_video import (
    PoseVideo,
    ReadAhead,
    WhenPosesEnd,
    num_clips_for,
    pose_file,
    pose_images,
    pose_indices,
)
from ..svi_core.files.fingerprint import fingerprint
from ..svi_core.geometry import SIZE_MULTIPLE
from ..svi_core.systems.layouts import LAYOUTS, Condition, Layout, Padding
from ..svi_core.systems.lora_variant import AutoLayout
from ..svi_core.video.sound import SoundTrack
from .bridge import models
from .bridge.control import Control, ControlType
from .bridge.schemas import svi_schema
from .bridge.video_files import require_uncropped
from .layouts import LayoutType

BLOCK_0 = ("double_block", 0)  # ComfyUI's name for the first block
_POSITIVE = 0  # ComfyUI's number of the positive pass in cond_or_uncond


class SVIDance(io.ComfyNode):
    """Make the clips follow a pose video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id="SVIDance",
            display_name="SVI Dance",
            description="Make the clips follow a pose video with SVI-Dance (DWPose: body, feet and hands in colour on black). "
            "Reads the pose encoder of the svi-dance file; apply its LoRA with SVI LoRA Stack.",
            category="conditioning",
            search_aliases=["pose", "dwpose", "unianimate", "svi-dance"],
            inputs=[
                io.MultiType.Input(
                    "poses", [io.Video, io.Image], tooltip="The pose video, or its frames. The new video takes its frame rate."
                ),
                io.Combo.Input(
                    "lora",
                    options=folder_paths.get_filename_list("loras"),
                    tooltip="The svi-dance file: it contains the pose encoder and the LoRA.",
                ),
                io.Combo.Input(
                    "when_poses_end",
                    options=WhenPosesEnd,
                    default=WhenPosesEnd.LOOP,
                    tooltip="After the last pose. loop: start over. stop: end the video. hold last: keep the last pose.",
                ),
                io.Boolean.Input(
                    "pose_in_negative",
                    default=True,
                    tooltip="On: both passes see the poses, as the authors do. Off: only the positive one, so cfg amplifies "
                    "them.",
                ),
                LayoutType.Input("layout", optional=True, tooltip="From SVI Layout, for num_clips; 81-frame clips if empty."),
                ControlType.Input("control", optional=True, tooltip="Another control to combine with this one."),
            ],
            outputs=[
                ControlType.Output("control_out", display_name="control", tooltip="For control of SVI Generate."),
                io.Int.Output("num_clips", tooltip="Clips that cover the pose video, for num_clips of SVI Generate."),
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
    """Poses that the clips of a run follow (bridge/control.py).

    Attributes:
        poses: one pose per frame of the video.
        encoder: the pose encoder, on the CPU.
        file: name of the encoder's file.
        when_poses_end: what follows the last pose.
        in_negative: whether the negative pass sees the poses.
    """

    poses: PoseVideo
    encoder: PoseEncoder = field(repr=False)
    file: str
    when_poses_end: WhenPosesEnd = WhenPosesEnd.LOOP
    in_negative: bool = True
    condition: Condition = Condition.POSE
    sound: SoundTrack | None = None
    num_extra_passes: int = 0
    _reads: ReadAhead = field(init=False, repr=False)

    def __post_init__(self):
        object.__setattr__(self, "_reads", ReadAhead(self.poses))

    @property
    def frame_rate(self) -> float | None:
        """Frames per second of the pose video, None for loose images."""
        return self.poses.frame_rate

    @property
    def num_frames(self) -> int:
        """New frames after which the video ends with the poses; 0 if it does not."""
        return end_of_poses(len(self.poses.digests), self.when_poses_end)

    def check(self, model, layout: Layout, width: int, height: int) -> None:
        """Refuse a model of another size than the pose encoder, and a layout that SVI-Dance was not trained with."""
        if layout.padding is not Padding.ANCHOR_FRAMES:
            raise ValueError(
                f"layout is {layout.name!r}, which is padded with {layout.padding.value}, but SVI-Dance is trained with anchor "
                "frames: choose Dance in SVI Layout."
            )
        dim = model.model.diffusion_model.patch_embedding.weight.shape[0]
        if dim != self.encoder.dim:
            raise ValueError(
                f"the pose encoder of {self.file} makes tokens {self.encoder.dim} wide, but model's are {dim} wide: svi-dance "
                "is for Wan 2.1 I2V 14B."
            )
        if not models.needs_clip_vision(model):
            logging.warning("SVI Dance: model is not Wan 2.1 I2V, which SVI-Dance was trained on; expect weaker results.")

    def determinants(self, request: ClipRequest) -> object:
        """Return the encoder, the poses of the clip, and which passes see them."""
        encoder = fingerprint(dict(self.encoder.state_dict()))
        shown = self._indices(request.start_frame, request.layout)
        return (encoder, self.in_negative, [self.poses.digests[index] for index in shown])

    def patched(self, model, request: ClipRequest, samples: torch.Tensor):
        """Return a clone of `model` that adds the pose tokens of the clip of `request`."""
        _, _, num_slots, height, width = samples.shape
        following = request.start_frame + request.layout.num_frames - request.layout.overlap
        shown, next_shown = (self._indices(start, request.layout) for start in (request.start_frame, following))
        poses = self._reads.read(shown, next_shown, 8 * width, 8 * height)
        tokens = _encode(self.encoder, poses, model)
        clone = model.clone()
        inner = clone.model_options["transformer_options"].get("patches_replace", {}).get("dit", {}).get(BLOCK_0)
        grid = (num_slots, 8 * height // SIZE_MULTIPLE, 8 * width // SIZE_MULTIPLE)
        clone.set_model_patch_replace(PoseTokens(tokens, grid, self.in_negative, inner), "dit", *BLOCK_0)
        return clone

    def _indices(self, start_frame: int, layout: Layout) -> list[int]:
        return pose_indices(start_frame, layout.num_frames, len(self.poses.digests), self.when_poses_end)


@dataclass(eq=False)
class PoseTokens:
    """A replacement of block 0 that adds pose tokens to its input.

    Attributes:
        tokens: [1, F * H / 16 * W / 16, dim], on the model's device while the model is loaded.
        grid: (F, H / 16, W / 16).
        in_negative: whether the negative pass gets the tokens.
        inner: an earlier replacement of the block.
    """

    tokens: torch.Tensor
    grid: tuple[int, int, int]
    in_negative: bool
    inner: Callable | None = None

    def __call__(self, args: Mapping, extra: Mapping) -> Mapping:
        """Add the tokens to "img" [passes, tokens, dim] in place and run the block.

        Raises:
            ValueError: the model does not process the whole clip at once.
        """
        options, image = args["transformer_options"], args["img"]
        if tuple(options["grid_sizes"]) != self.grid or image.shape[1] != self.tokens.shape[1]:
            raise ValueError(
                f"the poses are for {self.grid} tokens (slots, rows, columns), but the model works on "
                f"{tuple(options['grid_sizes'])}: SVI Dance needs whole clips, so remove context windows and reference latents."
            )
        passes = options["cond_or_uncond"]
        for number, part in zip(passes, image.chunk(len(passes)), strict=True):
            if number == _POSITIVE or self.in_negative:
                part.add_(self.tokens.to(part))
        return extra["original_block"](args) if self.inner is None else self.inner(args, extra)

    def to(self, target: torch.device | torch.dtype) -> "PoseTokens":
        """Move to a device. ComfyUI also passes a dtype, which the tokens already have."""
        if isinstance(target, torch.device):
            self.tokens = self.tokens.to(target)
        return self


def num_dance_clips(num_poses: int, layout: Layout | AutoLayout | None) -> int:
    """Return how many clips of `layout` (81 frames if None) cover `num_poses` poses."""
    dance = LAYOUTS["Dance"]
    return num_clips_for(num_poses, (layout or dance).num_frames, dance.overlap)


def end_of_poses(num_poses: int, when_poses_end: str) -> int:
    """Return the new frames after which the video ends with its `num_poses` poses; 0 if it continues."""
    return num_poses if WhenPosesEnd(when_poses_end) is WhenPosesEnd.STOP else 0


def require_one_dance(controls: tuple[Control, ...]) -> None:
    """Raise ValueError if a control already follows poses."""
    if any(isinstance(control, DanceControl) for control in controls):
        raise ValueError("control already follows a pose video: use one SVI Dance, since poses would add up.")


def read_poses(poses) -> PoseVideo:
    """Return a VIDEO or IMAGE as a pose video; a file is decoded on demand.

    Raises:
        OSError: an unreadable file.
        ValueError: no frames, or a cropped video.
    """
    if isinstance(poses, torch.Tensor):
        return pose_images(poses)
    source, rate = poses.get_stream_source(), float(poses.get_frame_rate())
    if not isinstance(source, str):
        return pose_images(poses.get_components().images, rate)
    require_uncropped(poses, Path(source))
    stop_if_interrupted = comfy.model_management.throw_exception_if_processing_interrupted
    return pose_file(Path(source), rate, *poses.get_active_trim_window(), stop_if_interrupted)


def _encode(encoder: PoseEncoder, poses: torch.Tensor, model) -> torch.Tensor:
    """Return the tokens of `poses`, encoded on the device and in the compute dtype of `model`."""
    device = model.load_device
    comfy.model_management.free_memory(encoding_bytes(poses.shape[2], poses.shape[1]), device)
    return encode_poses(deepcopy(encoder).to(device), poses, model.model.get_dtype_inference())
