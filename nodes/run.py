"""The loop as one node: prompts in, one video out."""

from pathlib import Path

import folder_paths
from comfy_api.latest import InputImpl, io

from ..svi_core.clips import MAX_SEED, ClipPlan, SeedMode
from ..svi_core.layouts import LAYOUTS
from ..svi_core.output_folder import check_output_prefix, run_folder
from ..svi_core.run import GrowingVideo, make_video
from ..svi_core.run_store import RunStore
from ..svi_core.video_file import VideoCoding
from .clip_sampler import ClipSampler
from .layouts import LayoutType
from .prompts import Prompts

CATEGORY = "SVI"


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
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
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
        folder = run_folder(Path(folder_paths.get_output_directory()), filename_prefix)
        sampler = ClipSampler(prompts=prompts, layout=layout, num_clips=num_clips, **inputs)
        sampler.check()
        with RunStore(folder) as store:
            video = GrowingVideo(store, VideoCoding(), {"prompt": cls.hidden.prompt, **(cls.hidden.extra_pnginfo or {})})
            path, latent = make_video(plan, layout, sampler, video, sampler.on_clip)
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), {"samples": latent})


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
