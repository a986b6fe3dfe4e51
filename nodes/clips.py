"""The loop as one node: prompts in, one video out."""

from dataclasses import dataclass
from pathlib import Path

import folder_paths
import torch
from comfy_api.latest import InputImpl, io

from ..svi_core.clips import MAX_SEED, Clip, ClipPlan, SeedMode, generate_clips, new_frames
from ..svi_core.conditioning import motion_tail
from ..svi_core.flow_matching import num_high_noise_steps, require_sigmas
from ..svi_core.geometry import TRAINED_NUM_FRAMES, require_frame_size
from ..svi_core.layouts import LAYOUTS, Layout, make_layout
from ..svi_core.prompts import PromptSplit, PromptStream, parse_prompts
from ..svi_core.video_file import GrowingVideo, check_output_prefix, new_run_folder, to_uint8
from . import bridge

CATEGORY = "SVI"
Prompts = io.Custom("SVI_PROMPTS")
LayoutType = io.Custom("SVI_LAYOUT")


@dataclass(frozen=True)
class EncodedPrompts:
    """A prompt stream and the CONDITIONING of each different text in it."""

    stream: PromptStream
    conditionings: dict[str, list]

    def at(self, clip_index: int) -> list:
        """Return the CONDITIONING of clip `clip_index` (0-based)."""
        return self.conditionings[self.stream.at(clip_index)]


class SVIPromptStream(io.ComfyNode):
    """Read one prompt per clip from a text and encode each once."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVIPromptStream",
            display_name="SVI Prompt Stream",
            category=CATEGORY,
            description="One prompt per clip. The last prompt holds for all clips after it.",
            search_aliases=["stable video infinity", "multi prompt", "storyline", "schedule"],
            inputs=[
                io.Clip.Input("clip", tooltip="The umT5 text encoder (Load CLIP, type wan)."),
                io.String.Input(
                    "text",
                    multiline=True,
                    tooltip="One prompt per paragraph (separated by a blank line) or per line; lines that start with # are "
                    "comments. A whole SVI prompt file, prompts = [...], can be pasted as it is.",
                ),
                io.Combo.Input(
                    "split", options=PromptSplit, default=PromptSplit.PARAGRAPHS, tooltip="What separates two prompts."
                ),
            ],
            outputs=[
                Prompts.Output("prompts"),
                io.Int.Output("num_prompts", tooltip="How many prompts the text holds; connect it to num_clips if you like."),
            ],
        )

    @classmethod
    def validate_inputs(cls, text="-", split=PromptSplit.PARAGRAPHS.value) -> bool | str:
        try:
            parse_prompts(text, PromptSplit(split))
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, clip, text, split) -> io.NodeOutput:
        stream = parse_prompts(text, PromptSplit(split))
        encoded = {prompt: clip.encode_from_tokens_scheduled(clip.tokenize(prompt)) for prompt in dict.fromkeys(stream.prompts)}
        return io.NodeOutput(EncodedPrompts(stream, encoded), len(stream))


class SVILayout(io.ComfyNode):
    """Choose how clips are conditioned and joined."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVILayout",
            display_name="SVI Layout",
            category=CATEGORY,
            description="Which SVI system the LoRA belongs to. Without this node SVI Generate uses 2.0 Pro with 81 frames.",
            search_aliases=["stable video infinity", "svi shot", "svi film", "svi pro"],
            inputs=[
                io.Combo.Input(
                    "variant",
                    options=list(LAYOUTS),
                    default="2.0 Pro",
                    tooltip="2.0 Pro: latents, 4 motion frames. 2.0 and Shot: 1 motion frame, padded with the "
                    "anchor. Film: 5 motion frames, padded with grey.",
                ),
                io.Int.Input(
                    "num_frames",
                    default=TRAINED_NUM_FRAMES,
                    min=5,
                    max=1001,
                    step=4,
                    tooltip="Frames of each clip, 4n + 1. SVI is trained on 81 only; more fades the colours.",
                ),
                io.Int.Input(
                    "num_motion_frames",
                    default=0,
                    min=0,
                    max=80,
                    tooltip="Frames of the clip before that carry motion. 0: as the variant was trained. 2.0 Pro "
                    "takes 4, 8 or 12.",
                ),
            ],
            outputs=[LayoutType.Output("layout")],
        )

    @classmethod
    def validate_inputs(cls, variant="2.0 Pro", num_frames=TRAINED_NUM_FRAMES, num_motion_frames=0) -> bool | str:
        try:
            make_layout(variant, num_frames, num_motion_frames)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, variant, num_frames, num_motion_frames) -> io.NodeOutput:
        return io.NodeOutput(make_layout(variant, num_frames, num_motion_frames))


class SVIGenerate(io.ComfyNode):
    """Make a video of any length, clip by clip, in constant memory."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVIGenerate",
            display_name="SVI Generate",
            category=CATEGORY,
            description="The whole loop: each clip is conditioned on the anchor and on the end of the clip before, "
            "sampled, decoded and written. The video on disk is playable after every clip.",
            search_aliases=["stable video infinity", "long video", "infinite video", "loop"],
            inputs=_generate_inputs(),
            outputs=[
                io.Video.Output("video", tooltip="The finished video, a file: Save Video copies it without re-encoding."),
                io.Latent.Output("last_latent", tooltip="Latent of the last clip, to go on from."),
            ],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix="svi/video") -> bool | str:
        try:
            check_output_prefix(filename_prefix)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, prompts, num_clips, seed, seed_mode, filename_prefix, layout=None, **inputs) -> io.NodeOutput:
        layout = layout or LAYOUTS["2.0 Pro"]
        plan = ClipPlan(num_clips, prompts.stream, seed, SeedMode(seed_mode))
        sampler = ClipSampler(prompts=prompts, layout=layout, **inputs)
        sampler.check()
        video = GrowingVideo(new_run_folder(Path(folder_paths.get_output_directory()), filename_prefix))
        for clip in generate_clips(plan, sampler.bind_progress(num_clips), sampler.decode):
            video.append(to_uint8(new_frames(clip, layout, num_clips)))
        last = {"samples": clip.latent, bridge.FRAMES_KEY: clip.frames}
        return io.NodeOutput(InputImpl.VideoFromFile(str(video.path)), last)


@dataclass(frozen=True, kw_only=True)
class ClipSampler:
    """Everything that stays the same from clip to clip; its method ``sample`` makes the latent of one clip.

    Attributes carry the names of SVI Generate's inputs; `model_low_noise` is None for a model without experts.
    """

    model: object
    prompts: EncodedPrompts
    negative: list
    vae: object
    anchor: dict
    sampler: object
    sigmas: torch.Tensor
    cfg: float
    boundary: float
    layout: Layout
    model_low_noise: object = None
    clip_vision: object = None

    def check(self) -> None:
        """Refuse what cannot work, before the first step.

        Raises:
            ValueError: naming the input, its value and the fix.
        """
        for name, model in (("model", self.model), ("model_low_noise", self.model_low_noise)):
            if model is None:
                continue
            bridge.require_i2v(model, name)
            if bridge.needs_clip_vision(model) and self.clip_vision is None:
                raise ValueError(
                    f"{name} is a Wan 2.1 I2V model, which reads CLIP vision features: connect Load CLIP Vision "
                    "(clip_vision_h) to clip_vision."
                )
        bridge.require_wan_vae(self.vae)
        require_sigmas(self.sigmas)
        num_high_noise_steps(self.sigmas, self.boundary)
        if not 0.0 <= self.cfg <= 100.0:
            raise ValueError(f"cfg is {self.cfg}: use 1 with a distilled LoRA, 4 to 5 without.")
        batch, _, _, height, width = bridge.samples_of(self.anchor, "anchor").shape
        if batch != 1:
            raise ValueError(f"anchor holds {batch} images, but SVI Generate makes one video from one anchor: pick one image.")
        require_frame_size(width * 8, height * 8, "anchor")
        self._build_y(None)

    def bind_progress(self, num_clips: int):
        """Return the sampling function of the loop, which shows progress over all steps of `num_clips` clips."""
        progress = bridge.StepProgress(num_clips * (len(self.sigmas) - 1))
        return lambda index, seed, previous: self.sample(index, seed, previous, progress)

    def sample(self, index: int, seed: int, previous: Clip | None, progress: bridge.StepProgress) -> torch.Tensor:
        """Return the latent [1, 16, F, h, w] of clip `index`, made by the high-noise expert first, then the low-noise one."""
        y = self._build_y(previous)
        features = self._clip_vision_features(previous)
        positive, negative = (bridge.set_y(c, y, features) for c in (self.prompts.at(index), self.negative))
        samples = bridge.empty_latent(y)["samples"]
        noise = bridge.random_noise(samples, seed)
        for model, sigmas in self._stages():
            callback = progress.callback(model)
            samples = bridge.sample_stage(
                model, noise, self.cfg, self.sampler, sigmas, positive, negative, samples, seed, callback
            )
            noise = torch.zeros_like(noise)
        return samples

    def decode(self, latent: torch.Tensor) -> torch.Tensor:
        """Return the frames [T, H, W, 3] in [0, 1] of one clip."""
        return bridge.decode_frames(self.vae, latent)

    def _stages(self) -> list[tuple[object, torch.Tensor]]:
        """Return (model, sigmas) of each stage; a stage without steps is left out."""
        if self.model_low_noise is None:
            return [(self.model, self.sigmas)]
        split = num_high_noise_steps(self.sigmas, self.boundary)
        stages = [(self.model, self.sigmas[: split + 1]), (self.model_low_noise, self.sigmas[split:])]
        return [(model, sigmas) for model, sigmas in stages if len(sigmas) > 1]

    def _build_y(self, previous: Clip | None):
        layout = self.layout
        motion = None
        if previous is not None and layout.in_latent_space:
            motion = {"samples": motion_tail(previous.latent, layout.num_motion_frames)}
        elif previous is not None:
            motion = {bridge.FRAMES_KEY: previous.frames[-layout.num_motion_frames :]}
        return bridge.build_y(layout.padding, self.anchor, motion, layout.num_frames, layout.num_slots, self.vae)

    def _clip_vision_features(self, previous: Clip | None):
        """Encode the first known frame of the clip, as SVI does: the reference, then the first motion frame."""
        if self.clip_vision is None:
            return None
        if previous is not None:
            tail = previous.frames[-self.layout.num_motion_frames :]
            return self.clip_vision.encode_image(tail[:1], crop=False)
        frames = self.anchor.get(bridge.FRAMES_KEY)
        frames = bridge.decode_frames(self.vae, self.anchor["samples"]) if frames is None else frames
        return self.clip_vision.encode_image(frames[:1], crop=False)


def _generate_inputs() -> list[io.Input]:
    """Return the inputs of SVI Generate: links first, then widgets."""
    return [
        io.Model.Input("model", tooltip="Wan I2V model, or the high-noise expert of Wan 2.2, with the SVI LoRA applied."),
        Prompts.Input("prompts", tooltip="From SVI Prompt Stream."),
        io.Conditioning.Input("negative", tooltip="Negative prompt; not used at cfg 1."),
        io.Vae.Input("vae", tooltip="The Wan 2.1 VAE."),
        io.Latent.Input("anchor", tooltip="From SVI Anchor Encode; its size is the size of the video."),
        io.Sampler.Input("sampler", tooltip="From KSamplerSelect; euler as the authors do."),
        io.Sigmas.Input("sigmas", tooltip="From BasicScheduler: the steps of each clip, both experts together."),
        io.Model.Input("model_low_noise", optional=True, tooltip="The low-noise expert of Wan 2.2."),
        LayoutType.Input("layout", optional=True, tooltip="From SVI Layout; 2.0 Pro with 81 frames if empty."),
        io.ClipVision.Input("clip_vision", optional=True, tooltip="CLIP vision model; Wan 2.1 I2V needs it."),
        io.Int.Input("num_clips", default=3, min=1, max=10_000, tooltip="How many clips; 2.0 Pro gives 76 new frames each."),
        io.Float.Input("cfg", default=4.0, min=0.0, max=100.0, step=0.1, tooltip="4 to 5 as trained; 1 with a distilled LoRA."),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=MAX_SEED,
            control_after_generate=io.ControlAfterGenerate.fixed,
            tooltip="Noise seed of the first clip.",
        ),
        io.Combo.Input(
            "seed_mode",
            options=SeedMode,
            default=SeedMode.PER_CLIP,
            tooltip="per clip: seed + 42 for each clip, as the authors do. fixed: the same noise for every clip.",
        ),
        io.Float.Input(
            "boundary",
            default=0.9,
            min=0.01,
            max=0.99,
            step=0.005,
            tooltip="Noise level (sigma) below which the low-noise expert takes over: 0.9 for Wan 2.2 I2V, the "
            "authors use 0.875.",
        ),
        io.String.Input(
            "filename_prefix",
            default="svi/video",
            tooltip="Folder for the clips and the video, inside ComfyUI's output folder; a number is added.",
        ),
    ]
