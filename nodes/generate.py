"""The clip loop as one node: prompts in, one video out."""

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import folder_paths
from comfy_api.latest import InputImpl, io

from ..svi_core.clips.chain import Clip, Predecessor
from ..svi_core.clips.clip_plan import ClipPlan, SeedMode
from ..svi_core.clips.continuation import VideoStart
from ..svi_core.clips.growing_video import GrowingVideo, make_video
from ..svi_core.clips.video_settings import VideoSettings
from ..svi_core.files.output_folder import check_output_prefix, run_folder
from ..svi_core.flow.flow_matching import BOUNDARY
from ..svi_core.schedule.spec import MAX_CLIPS
from ..svi_core.store.run_store import RunStore
from ..svi_core.store.takes import PinnedTakes
from ..svi_core.systems.layouts import LAYOUTS, Layout
from ..svi_core.systems.lora_variant import AutoLayout, resolve_layout
from ..svi_core.video.seams import measured_seam
from .bridge import latents, queued_graph
from .bridge.clip_times import earlier_seconds, note_run
from .bridge.control import ControlType, earliest_end, frame_rate_of
from .bridge.node_ids import GENERATE
from .bridge.queued_graph import QueuedGraph
from .bridge.run_path import run_path
from .bridge.schemas import boundary_input, prefix_input, seed_input, svi_schema
from .bridge.validation import complaint
from .check_run import check_run, check_spec
from .clip_panel import tell_browsers
from .clip_sampler import ClipSampler
from .conditioning import Anchors
from .continuation import StartType
from .layouts import LayoutType
from .lora import LoraRows
from .num_clips import tell_num_clips
from .output import OutputSettings, OutputType, hash_of_clips
from .schedule import EncodedPrompts, Prompts
from .tell_loras import tell_loras


class VideoNode(io.ComfyNode):
    """A node that writes a video into the folder `filename_prefix`."""

    @classmethod
    def validate_inputs(cls, filename_prefix=None) -> bool | str:
        return complaint(check_output_prefix, filename_prefix)

    @classmethod
    def fingerprint_inputs(cls, filename_prefix=None, **_) -> float | str:
        """Run again if the cached video is gone."""
        if not filename_prefix:
            return ""  # linked, not known yet
        return changed_if_gone(None if "%" in filename_prefix else _plain_run_path(filename_prefix))


class SVIGenerate(VideoNode):
    """Make a video of any length, clip by clip, in constant memory."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id=GENERATE,
            display_name="SVI Generate",
            description="Make a video of any length, clip by clip. Each clip continues the previous one and is conditioned on "
            "the anchor. The video on disk is playable after every clip.",
            category="generate",
            search_aliases=["long video", "infinite", "infinite video", "endless", "storyboard", "timeline", "extend", "loop"],
            inputs=_with_num_clips(run_inputs()),
            outputs=[
                io.Video.Output("video", tooltip="The finished video, a file. SVI Show Video plays it where it lies."),
                io.Latent.Output("last_latent", tooltip="Latent of the last clip, to continue from."),
            ],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo, io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, num_clips, prompts, **inputs) -> io.NodeOutput:
        run = prepare_run(cls.hidden, tell_num_clips(num_clips, prompts, inputs.get("control")), prompts, **inputs)
        with RunStore(run.folder) as store, run.told(cls.hidden, prompts.until_stopped):
            video = GrowingVideo(store, run.settings)
            tell = tell_browsers(video, cls.hidden.unique_id)
            path, latent = make_video(run.plan, run.sampler, video, run.start, run.end_clip, tell, run.budget_bytes)
            note_run(cls.hidden, store, video.clips)
        remember(path, instead_of="video-*.mp4")
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), {"samples": latent})


@dataclass(frozen=True)
class PreparedRun:
    """A checked run, ready for its first step."""

    plan: ClipPlan
    sampler: ClipSampler
    settings: VideoSettings
    folder: Path
    budget_bytes: int
    start: Predecessor | None

    def told(self, hidden, until_stopped: bool) -> AbstractContextManager[None]:
        """Show the run's progress on the node while the block runs."""
        first = self.plan.request_for(0, self.plan.schedule.snapshot().at(0))
        num_clips = 0 if until_stopped else self.settings.num_clips_of(self.plan)
        return self.sampler.progress.told(num_clips, hidden.unique_id, earlier_seconds(hidden, self.sampler.work(first)))

    def end_clip(self, clip: Clip) -> None:
        """Show that `clip` is done."""
        self.sampler.progress.end_clip(clip.reused)


def prepare_run(
    hidden,
    num_clips: int,
    prompts: EncodedPrompts,
    seed: int,
    seed_mode: str,
    filename_prefix: str,
    layout: Layout | AutoLayout | None = None,
    output: OutputSettings | None = None,
    continue_from: VideoStart | None = None,
    **inputs,
) -> PreparedRun:
    """Return the run that the inputs of SVI Generate or SVI Begin Video describe.

    Raises:
        ValueError: an input that cannot work.
    """
    output = output or OutputSettings()
    graph = QueuedGraph(hidden.prompt or {})
    queued_graph.require_full_denoise(graph, hidden.unique_id)
    sampler = ClipSampler(prompts=prompts, **inputs)
    sampler.tiles = output.tiles
    layout = resolve_layout(layout or LAYOUTS["2.0 Pro"], sampler.lora_variants())
    continues = continue_from.plan_key if continue_from else ""
    plan = ClipPlan(
        num_clips,
        prompts.schedule.for_run(),
        layout,
        seed,
        SeedMode(seed_mode),
        graph_hash=hash_of_clips(graph, hidden.unique_id, layout, output),
        seam=output.seam or measured_seam(layout),
        continues=continues,
        num_clips_before=continue_from.num_clips_made if continue_from else 0,
        accepts=partial(check_spec, sampler, layout=layout),
    )
    check_run(sampler, plan)
    tell_loras(sampler, plan.schedule.snapshot().at(0), layout, graph, hidden.unique_id)
    width, height = latents.pixel_size(sampler.anchor)
    folder = run_path(filename_prefix, graph, hidden.unique_id, (width, height), plan.first_key)
    plan = replace(plan, takes=PinnedTakes(folder, (height // 8, width // 8)))
    plan.require_joints(plan.schedule.snapshot())
    if continue_from:
        continue_from.require_another_folder(folder)
    rate = frame_rate_of(layout, sampler.control)
    num_start_frames = continue_from.num_frames if continue_from else 0
    max_frames = earliest_end(output.max_frames(continue_from, rate), num_start_frames, sampler.control)
    start = sampler.open_start(continue_from, layout, rate) if continue_from else None
    metadata = queued_graph.embedded_graph(hidden)
    sound = next((control.sound for control in sampler.control if control.sound), None)
    coding = replace(output.coding, frame_rate=rate)
    shown = (output.colour_strength, sampler.anchor_frame, sound, output.mark_of_frames, sampler.anchor_key)
    settings = VideoSettings(coding, metadata, continue_from, max_frames, *shown)
    return PreparedRun(plan, sampler, settings, folder, output.budget_bytes, start)


_made_files: set[Path] = set()  # results of this process; ComfyUI may cache one that is gone
_losses: dict[Path, float] = {}  # folder: when a result in it was last found missing


def _plain_run_path(filename_prefix: str) -> Path:
    return run_folder(Path(folder_paths.get_output_directory()), filename_prefix)


def remember(file: Path, instead_of: str | None = None) -> None:
    """Record `file` as a result, in place of those in its folder that match the pattern `instead_of`."""
    if instead_of:
        _made_files.difference_update([old for old in _made_files if old.parent == file.parent and old.match(instead_of)])
    _made_files.add(file)


def changed_if_gone(folder: Path | None = None) -> float | str:
    """Return when a result (in `folder`) was last found missing, or "". A new value makes ComfyUI run a node again."""
    for file in [file for file in _made_files if not file.exists()]:
        _made_files.discard(file)
        _losses[file.parent] = time.time()
    return max((noticed for parent, noticed in _losses.items() if folder in (None, parent)), default="")


def run_inputs() -> list[io.Input]:
    """Return the inputs that SVI Generate and SVI Begin Video share: links first, then widgets."""
    return [
        io.Model.Input("model", tooltip="Wan I2V model, or the high-noise expert of Wan 2.2, with the SVI LoRA applied."),
        Prompts.Input("prompts", tooltip="From SVI Prompt Stream."),
        io.Conditioning.Input("negative", tooltip="Negative prompt; not used at cfg 1."),
        io.Vae.Input("vae", tooltip="The Wan 2.1 VAE."),
        io.Latent.Input("anchor", tooltip="From SVI Anchor Encode. Sets the video size."),
        io.Sampler.Input("sampler", tooltip="From KSamplerSelect; the authors use euler."),
        io.Sigmas.Input("sigmas", tooltip="From BasicScheduler: the steps of a clip, both experts together."),
        io.Model.Input("model_low_noise", optional=True, tooltip="The low-noise expert of Wan 2.2."),
        LayoutType.Input("layout", optional=True, tooltip="From SVI Layout; 2.0 Pro with 81 frames if empty."),
        io.ClipVision.Input("clip_vision", optional=True, tooltip="CLIP vision model; Wan 2.1 I2V needs it."),
        Anchors.Input("anchors", optional=True, tooltip="From SVI Named Anchor: further images for the schedule."),
        LoraRows.Input(
            "loras", optional=True, tooltip="From SVI LoRA, in place of SVI LoRA Stack, if the schedule changes strengths."
        ),
        OutputType.Input("output", optional=True, tooltip="From SVI Output; H.264, crf 18, no space limit if empty."),
        ControlType.Input("control", optional=True, tooltip="From SVI Talk or SVI Dance: sound or poses to follow."),
        StartType.Input("continue_from", optional=True, tooltip="From SVI Continue Video: the video to continue."),
        io.Guider.Input(
            "guider",
            optional=True,
            tooltip="In place of cfg: how to guide, such as a scheduled CFG or APG guider. Each clip's model and prompts "
            "replace the guider's.",
        ),
        io.Float.Input(
            "cfg",
            default=4.0,
            min=0.0,
            max=100.0,
            step=0.1,
            tooltip="Guidance: 4 to 5; 1 with a distilled LoRA. Not read if guider is connected.",
        ),
        seed_input("Noise seed of the first clip, 0 to 2^53 - 1. Each later clip adds 42."),
        io.Combo.Input(
            "seed_mode",
            options=SeedMode,
            default=SeedMode.PER_CLIP,
            advanced=True,
            tooltip="per clip: seed + 42 for each clip, as the authors do. fixed: the same noise for all.",
        ),
        boundary_input(
            BOUNDARY, "Sigma below which the low-noise expert takes over: 0.875 as the authors; 0.9 with LightX2V.", True
        ),
        prefix_input(
            "svi/video",
            "The run's folder in ComfyUI's output folder. Another run in it reuses finished clips. May hold "
            "%date:yyyy-MM-dd%, %width% or %Title.widget%, as in Save Image; a run that began earlier goes on in its folder.",
        ),
    ]


def _with_num_clips(inputs: list[io.Input]) -> list[io.Input]:
    """Return `inputs` with num_clips as the first widget."""
    tooltip = "Number of clips; 0: one per prompt. With 2.0 Pro each adds 76 frames (4.75 s)."
    first_widget = next(index for index, entry in enumerate(inputs) if isinstance(entry, io.WidgetInput))
    return [
        *inputs[:first_widget],
        io.Int.Input("num_clips", default=0, min=0, max=MAX_CLIPS, tooltip=tooltip),
        *inputs[first_widget:],
    ]
