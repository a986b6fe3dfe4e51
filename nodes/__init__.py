"""The nodes; a file is named after the svi_core file that it exposes."""

from .bridge.requirements import require_surroundings

require_surroundings()

# ruff: noqa: E402
from comfy_api.latest import ComfyExtension, io

from .clip_panel import serve_clips
from .conditioning import SVIAnchorEncode, SVIConditioning, SVIMotionLatent, SVINamedAnchor
from .continuation import SVIContinueVideo
from .dance import SVIDance
from .dry_run.plan import SVIPlan
from .english_texts import serve_english_texts
from .few_steps import SVIFewStepSigmas
from .generate import SVIGenerate
from .joining import SVIJoinVideos
from .layouts import SVILayout
from .look import SVIDriftReport, SVIFilmstrip
from .lora import SVILora, SVILoraStack
from .lora_presets import SVILoraPreset
from .output import SVIOutput
from .processed_frames import SVIClipFrames, SVIWriteFrames
from .repeat_clips import SVIRepeatClips
from .schedule import SVILiveSchedule, SVIPromptStream
from .schedule_lint import serve_lint
from .show_video import SVIShowVideo
from .step_by_step import SVIBeginVideo, SVIFinishVideo, SVINextClip, SVIUnrollClips
from .storyboard.routes import serve_storyboard
from .storyline import SVIStoryline
from .talk import SVITalk


class StableVideoInfinity(ComfyExtension):
    """The extension that gives ComfyUI our nodes."""

    async def on_load(self) -> None:
        serve_clips()
        serve_storyboard()
        serve_lint()
        serve_english_texts()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [
            SVIAnchorEncode,
            SVINamedAnchor,
            SVIMotionLatent,
            SVIConditioning,
            SVILora,
            SVILoraPreset,
            SVILoraStack,
            SVIPromptStream,
            SVIStoryline,
            SVILiveSchedule,
            SVILayout,
            SVIFewStepSigmas,
            SVIOutput,
            SVIGenerate,
            SVIShowVideo,
            SVITalk,
            SVIPlan,
            SVIContinueVideo,
            SVIJoinVideos,
            SVIBeginVideo,
            SVINextClip,
            SVIClipFrames,
            SVIWriteFrames,
            SVIRepeatClips,
            SVIUnrollClips,
            SVIFinishVideo,
            SVIFilmstrip,
            SVIDriftReport,
            SVIDance,
        ]


async def comfy_entrypoint() -> StableVideoInfinity:
    """Return the extension (ComfyUI's V3 entry point)."""
    return StableVideoInfinity()
