"""The loop as one node: prompts in, one video out."""

import time
from dataclasses import dataclass
from pathlib import Path

import folder_paths
from comfy_api.latest import InputImpl, io

from ..svi_core.clips import ClipPlan, SeedMode
from ..svi_core.layouts import LAYOUTS
from ..svi_core.output_folder import check_output_prefix, run_folder
from ..svi_core.run import GrowingVideo, make_video
from ..svi_core.run_store import RunStore
from ..svi_core.schedule import MAX_CLIPS, MAX_SEED
from ..svi_core.video_file import CODECS, PIXEL_FORMATS, VideoCoding
from .clip_sampler import ClipSampler
from .conditioning import Anchors
from .layouts import LayoutType
from .lora import LoraRows
from .prompts import Prompts
from .validation import complaint

CATEGORY = "SVI"
OutputType = io.Custom("SVI_OUTPUT")


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
    def validate_inputs(cls, filename_prefix=None) -> bool | str:
        return complaint(check_output_prefix, filename_prefix)

    @classmethod
    def fingerprint_inputs(cls, filename_prefix=None, **_) -> float | str:
        """Run again, instead of answering from ComfyUI's cache, when the video made before is gone."""
        if filename_prefix is None:  # linked, not known yet
            return ""
        gone = any(path.parent == _run_folder(filename_prefix) and not path.exists() for path in _finished_videos)
        return time.time() if gone else ""

    @classmethod
    def execute(cls, prompts, num_clips, seed, seed_mode, filename_prefix, layout=None, output=None, **inputs) -> io.NodeOutput:
        output = output or OutputSettings()
        plan_clips = MAX_CLIPS if prompts.until_stopped else num_clips
        plan = ClipPlan(plan_clips, prompts.schedule, layout or LAYOUTS["2.0 Pro"], seed, SeedMode(seed_mode))
        sampler = ClipSampler(prompts=prompts, **inputs)
        sampler.check(plan)
        sampler.start_progress(0 if prompts.until_stopped else num_clips)
        with RunStore(_run_folder(filename_prefix)) as store:
            graph = {"prompt": cls.hidden.prompt, **(cls.hidden.extra_pnginfo or {})}
            video = GrowingVideo(store, output.coding, graph)
            path, latent = make_video(plan, sampler, video, sampler.on_clip)
            store.prune(output.budget_bytes, {clip.key for clip in video.clips})
        _remember(path)
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), {"samples": latent})


_finished_videos: set[Path] = set()  # what this process has made, to notice when a cached result is gone


def _run_folder(filename_prefix: str) -> Path:
    return run_folder(Path(folder_paths.get_output_directory()), filename_prefix)


def _remember(video: Path) -> None:
    """Note `video` as the result of its run folder."""
    _finished_videos.difference_update([old for old in _finished_videos if old.parent == video.parent])
    _finished_videos.add(video)


@dataclass(frozen=True)
class OutputSettings:
    """How a run's files are written and how much room they may take."""

    coding: VideoCoding = VideoCoding()
    budget_bytes: int = 0


class SVIOutput(io.ComfyNode):
    """Choose how the video is encoded and how much room a run may take."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVIOutput",
            display_name="SVI Output",
            category=CATEGORY,
            description="How SVI Generate writes its video, and how much disk space a run's clips may take.",
            search_aliases=["stable video infinity", "codec", "quality", "disk space"],
            inputs=[
                io.Combo.Input(
                    "codec", options=list(CODECS), default="h264", tooltip="h264 plays almost everywhere; h265 is smaller."
                ),
                io.Int.Input(
                    "crf", default=18, min=0, max=51, tooltip="Quality: 0 best and very large, 18 no visible loss, 51 worst."
                ),
                io.Combo.Input(
                    "pixel_format",
                    options=list(PIXEL_FORMATS),
                    default="yuv420p",
                    tooltip="yuv420p plays almost everywhere; yuv444p keeps full colour resolution; yuv420p10le has 10 bits.",
                ),
                io.Float.Input(
                    "budget_gb",
                    default=0.0,
                    min=0.0,
                    max=100_000.0,
                    step=0.5,
                    tooltip="Gigabytes that stored clips may take; earlier takes not used for longest are removed first, the "
                    "current video's never. Finished videos are not counted. 0: no limit.",
                ),
            ],
            outputs=[OutputType.Output("output", tooltip="For output of SVI Generate.")],
        )

    @classmethod
    def execute(cls, codec, crf, pixel_format, budget_gb) -> io.NodeOutput:
        if not 0.0 <= budget_gb < float("inf"):
            raise ValueError(f"budget_gb is {budget_gb}: use a number of gigabytes, or 0 for no limit.")
        return io.NodeOutput(OutputSettings(VideoCoding(codec, crf, pixel_format), int(budget_gb * 1e9)))


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
        Anchors.Input("anchors", optional=True, tooltip="From SVI Named Anchor: images that the schedule names."),
        LoraRows.Input(
            "loras",
            optional=True,
            tooltip="From SVI LoRA, for strengths that the schedule changes between clips; leave out SVI LoRA Stack then.",
        ),
        OutputType.Input("output", optional=True, tooltip="From SVI Output; H.264 at crf 18 without a space limit if empty."),
        io.Int.Input(
            "num_clips", default=3, min=1, max=MAX_CLIPS, tooltip="How many clips; with 2.0 Pro each adds 76 frames (4.75 s)."
        ),
        io.Float.Input("cfg", default=4.0, min=0.0, max=100.0, step=0.1, tooltip="4 to 5 as trained; 1 with a distilled LoRA."),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=MAX_SEED,
            control_after_generate=io.ControlAfterGenerate.fixed,
            tooltip="Noise seed of the first clip, 0 to 2^53 - 1; per clip it grows by 42.",
        ),
        io.Combo.Input(
            "seed_mode",
            options=SeedMode,
            default=SeedMode.PER_CLIP,
            advanced=True,
            tooltip="per clip: seed + 42 for each clip, as the authors do. fixed: the same noise for every clip.",
        ),
        io.Float.Input(
            "boundary",
            default=0.9,
            min=0.01,
            max=0.99,
            step=0.005,
            advanced=True,
            tooltip="Noise level (sigma) below which the low-noise expert takes over: 0.9 for Wan 2.2 I2V, the "
            "authors use 0.875.",
        ),
        io.String.Input(
            "filename_prefix",
            default="svi/video",
            tooltip="The run's folder inside ComfyUI's output folder. Run again under the same name to reuse its clips.",
        ),
    ]
