"""The clip loop as separate nodes (begin, next clip, finish), for generic loop nodes and node expansion.

The state of a run between two clips is one small immutable value, so ComfyUI may cache each of them.
"""

from comfy_api.latest import InputImpl, io
from comfy_execution.graph_utils import ExecutionBlocker

from ..svi_core.clips.processed_frames import finish_processed
from ..svi_core.clips.step_by_step import RunState, finish_video, next_clip
from ..svi_core.files.output_folder import check_output_prefix
from ..svi_core.schedule.doubts import length_doubt
from ..svi_core.schedule.spec import MAX_CLIPS
from .bridge.browsers import warn
from .bridge.expansion import MAX_ROW, longest_ways, require_row
from .bridge.node_ids import BEGIN_VIDEO, NEXT_CLIP, REPEAT_CLIPS, WRITE_FRAMES
from .bridge.queued_graph import QueuedGraph, ancestors_first, as_link, executed_graph
from .bridge.schemas import svi_schema
from .bridge.validation import complaint
from .generate import changed_if_gone, prepare_run, remember, run_inputs

StateType = io.Custom("SVI_STATE")


class SVIBeginVideo(io.ComfyNode):
    """Check the inputs and return the state before the first clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id=BEGIN_VIDEO,
            display_name="SVI Begin Video",
            description="Start a loop of your own: SVI Begin Video, any number of SVI Next Clip, SVI Finish Video. Takes the "
            "inputs of SVI Generate, except the number of clips.",
            category="loop",
            search_aliases=["loop start", "for loop", "while loop"],
            inputs=run_inputs(),
            outputs=[StateType.Output("state", tooltip="For SVI Next Clip, or as the initial value of a loop.")],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo, io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, filename_prefix=None) -> bool | str:
        return complaint(check_output_prefix, filename_prefix)

    @classmethod
    def execute(cls, prompts, **inputs) -> io.NodeOutput:
        _require_known_end(QueuedGraph(cls.hidden.prompt or {}))
        run = prepare_run(cls.hidden, MAX_CLIPS, prompts, **inputs)
        state = RunState(run.plan, run.sampler, run.folder, run.settings, run.start, budget_bytes=run.budget_bytes)
        return io.NodeOutput(state)


class SVINextClip(io.ComfyNode):
    """Make one clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id=NEXT_CLIP,
            display_name="SVI Next Clip",
            description="The body of a loop: makes one clip, or reuses a stored one, and returns the state after it.",
            category="loop",
            search_aliases=["loop body", "one clip"],
            inputs=[
                StateType.Input("state", tooltip="From SVI Begin Video or the previous SVI Next Clip."),
                io.Boolean.Input(
                    "is_last",
                    default=False,
                    optional=True,
                    tooltip="No clip follows: show this one to its end. SVI Write Frames needs it; without it SVI Finish Video "
                    "adds the end. Link is_last of Start Loop.",
                ),
            ],
            outputs=[
                StateType.Output("next_state", display_name="state", tooltip="For SVI Next Clip or SVI Finish Video."),
                io.Video.Output("clip", tooltip="The frames that this clip adds to the video, a file."),
                io.Latent.Output("latent", tooltip="The clip's latent from the sampler."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_) -> float | str:
        """Run again if the file of a cached clip is gone."""
        return changed_if_gone()

    @classmethod
    def execute(cls, state, is_last=False) -> io.NodeOutput:
        state.maker.progress.restart(0)
        after, clip = next_clip(state, is_last)
        if after is not state:  # else the video has its final length
            state.maker.progress.end_clip(clip.reused)
        remember(after.segments[-1])
        return io.NodeOutput(after, InputImpl.VideoFromFile(str(after.segments[-1])), {"samples": clip.latent})


class SVIFinishVideo(io.ComfyNode):
    """Join the clips of a loop."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id="SVIFinishVideo",
            display_name="SVI Finish Video",
            description="The end of a loop: joins the clips into one video without re-encoding.",
            category="loop",
            search_aliases=["loop end"],
            inputs=[StateType.Input("state", tooltip="The state after the last clip.")],
            outputs=[
                io.Video.Output("video", tooltip="The finished video, a file."),
                io.Video.Output("processed", tooltip="The finished video of the frames from SVI Write Frames, a file."),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_) -> float | str:
        return changed_if_gone()

    @classmethod
    def execute(cls, state) -> io.NodeOutput:
        path = finish_video(state)
        if doubt := length_doubt(state.num_clips, len(state.plan.schedule.snapshot()), "the loop made"):
            warn("SVI Finish Video", doubt)
        remember(path, instead_of="video-*.mp4")
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)), _processed(state))


class SVIUnrollClips(io.ComfyNode):
    """Expand into one SVI Next Clip per clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id="SVIUnrollClips",
            display_name="SVI Unroll Clips",
            description="Expands into one SVI Next Clip per clip, each cached by ComfyUI and shown with its own progress. SVI "
            "Generate does the same in one node.",
            category="loop",
            search_aliases=["node expansion", "loop"],
            inputs=[
                StateType.Input("state", raw_link=True, tooltip="From SVI Begin Video."),
                io.Int.Input("num_clips", default=3, min=1, max=MAX_ROW, tooltip="Number of clips."),
            ],
            outputs=[StateType.Output("last_state", display_name="state", tooltip="For SVI Finish Video.")],
            hidden=[io.Hidden.dynprompt, io.Hidden.unique_id],
            enable_expand=True,
        )

    @classmethod
    def execute(cls, state, num_clips) -> io.NodeOutput:
        graph, begin = executed_graph(cls.hidden.dynprompt), as_link(state)
        assert begin is not None, state
        ways = longest_ways(graph, ancestors_first(graph, begin.node_id, {}))
        require_row(num_clips, 1, ways[begin.node_id], "SVI Generate, which needs no row")
        names = [f"{cls.hidden.unique_id}.clip{number}" for number in range(1, num_clips + 1)]
        links = [state, *([name, 0] for name in names)]
        nodes = {n: {"class_type": NEXT_CLIP, "inputs": {"state": link}} for n, link in zip(names, links, strict=False)}
        return io.NodeOutput(links[-1], expand=nodes)


def _processed(state):
    """Return the finished video of the processed frames, or what tells a node behind the output that there are none."""
    if not state.processed:
        return ExecutionBlocker(
            "there are no processed frames: put SVI Write Frames between SVI Next Clip and SVI Finish Video."
        )
    path = finish_processed(state)
    remember(path, instead_of="processed-*.mp4")
    return InputImpl.VideoFromFile(str(path))


def _require_known_end(graph: QueuedGraph) -> None:
    """Refuse a graph that writes processed frames and never says which clip is the last: its end would be missing.

    Raises:
        ValueError: with both fixes.
    """
    classes = {node: graph.class_of(node) for node in graph.nodes}
    says = any(graph.inputs(node).get("is_last") for node, name in classes.items() if name == NEXT_CLIP)
    if WRITE_FRAMES in classes.values() and REPEAT_CLIPS not in classes.values() and not says:
        raise ValueError(
            "SVI Write Frames must get the end of the last clip, but no SVI Next Clip is the last one: switch is_last on for "
            "the last, or link is_last of Start Loop to it."
        )
