"""Frames of each clip for other nodes, and what those made of them into a video that grows clip by clip."""

from dataclasses import replace

import comfy.model_management
from comfy_api.latest import InputImpl, io

from ..svi_core.clips.processed_frames import Stage, add_processed, frames_of_clip, is_processed
from ..svi_core.clips.step_by_step import RunState
from .bridge.node_ids import CLIP_FRAMES, NEXT_CLIP, WRITE_FRAMES
from .bridge.queued_graph import QueuedGraph, ancestors_first, executed_graph, stage_hash
from .bridge.schemas import svi_schema
from .generate import changed_if_gone, remember
from .output import OutputSettings, OutputType
from .step_by_step import StateType

_MAX_CONTEXT = 81


class SVIClipFrames(io.ComfyNode):
    """Return the frames that one clip adds to the video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id=CLIP_FRAMES,
            display_name="SVI Clip Frames",
            description="The frames that the last clip adds to the video, for nodes that upscale, interpolate or correct them. "
            "SVI Write Frames takes what they made.",
            category="loop",
            search_aliases=["frames of a clip", "per clip", "upscale", "interpolate"],
            inputs=[
                StateType.Input("state", tooltip="From SVI Next Clip."),
                io.Int.Input(
                    "context_frames",
                    default=0,
                    min=0,
                    max=_MAX_CONTEXT,
                    tooltip="Frames of the clip before that come first, for nodes that look at neighbours: 1 for frame "
                    "interpolation. SVI Write Frames drops what was made of them. None after a cut.",
                ),
            ],
            outputs=[
                StateType.Output("next_state", display_name="state", tooltip="For SVI Write Frames."),
                io.Image.Output("images", tooltip="The frames, one clip in memory at a time."),
            ],
        )

    @classmethod
    def execute(cls, state, context_frames) -> io.NodeOutput:
        return io.NodeOutput(*frames_of_clip(state, context_frames))


class SVIWriteFrames(io.ComfyNode):
    """Write processed frames of one clip into a growing video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id=WRITE_FRAMES,
            display_name="SVI Write Frames",
            description="Writes the processed frames of each clip into a video in the run's folder, playable after every clip. "
            "A clip whose frames are on disk is not processed again.",
            category="loop",
            search_aliases=["save frames", "growing video", "upscale", "interpolate"],
            inputs=[
                StateType.Input("state", tooltip="From SVI Clip Frames, or from SVI Next Clip if its clip is processed."),
                io.Image.Input("images", lazy=True, tooltip="What other nodes made of the clip's frames: all, or a multiple."),
                OutputType.Input(
                    "output", optional=True, tooltip="From SVI Output: codec and quality; those of the run if empty."
                ),
            ],
            outputs=[
                StateType.Output("next_state", display_name="state", tooltip="For SVI Next Clip or SVI Finish Video."),
                io.Video.Output("clip", tooltip="The processed frames of this clip, a file."),
            ],
            hidden=[io.Hidden.dynprompt, io.Hidden.unique_id],
        )

    @classmethod
    def fingerprint_inputs(cls, **_) -> float | str:
        """Run again if the file of a cached part is gone."""
        return changed_if_gone()

    @classmethod
    def check_lazy_status(cls, state, images=None, output=None) -> list[str]:
        """Ask for the images unless what would be made of them is on disk."""
        return [] if images is not None or is_processed(state, _stage(cls.hidden, state, output)) else ["images"]

    @classmethod
    def execute(cls, state, images=None, output=None) -> io.NodeOutput:
        stop = comfy.model_management.throw_exception_if_processing_interrupted
        after = add_processed(state, _stage(cls.hidden, state, output), images, stop)
        path = after.processed[-1].path
        remember(path)
        return io.NodeOutput(after, InputImpl.VideoFromFile(str(path)))


def _stage(hidden, state: RunState, output: OutputSettings | None) -> Stage:
    """Return what stands between the clip and the images of the node of `hidden`."""
    graph = executed_graph(hidden.dynprompt)
    source = graph.link(hidden.unique_id, "images")
    assert source is not None, hidden.unique_id
    coding = output.coding if output else state.settings.coding
    key = stage_hash(graph, source, _given(graph, hidden.unique_id))
    return Stage(key, replace(coding, frame_rate=state.settings.coding.frame_rate))


def _given(graph: QueuedGraph, node_id: str) -> list[str]:
    """Return the nodes on the way of the node's state that give its clip: what they give is named by the clip's files.

    A stage may use other clips too, through nodes that are not on that way. These are hashed with all that they depend on.
    """
    state = graph.link(node_id, "state")
    assert state is not None, node_id
    passed = ancestors_first(graph, state.node_id, {node: graph.inputs(node) for node in graph.of_class(NEXT_CLIP)})
    return [node for node in passed if graph.class_of(node) in (NEXT_CLIP, CLIP_FRAMES)]
