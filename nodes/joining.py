"""Join two videos."""

from comfy_api.latest import InputImpl, io

from ..svi_core.clips.joining import Joint, Piece, join_into_folder
from ..svi_core.video.seams import Seam
from ..svi_core.video.video_part import VideoPart
from .bridge import queued_graph
from .bridge.queued_graph import QueuedGraph
from .bridge.run_path import run_path
from .bridge.schemas import prefix_input, svi_schema
from .bridge.video_files import open_video
from .generate import VideoNode, remember
from .output import OutputSettings, OutputType


class SVIJoinVideos(VideoNode):
    """Append one video to another."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        frames = {"default": 0, "min": 0, "max": 1_000_000}
        return svi_schema(
            node_id="SVIJoinVideos",
            display_name="SVI Join Videos",
            description="Join two videos with a plain cut or a cross-fade, and trim their ends. Whole videos of one codec in a "
            "plain cut are copied without re-encoding.",
            category="video",
            search_aliases=["concatenate videos", "merge videos", "crossfade", "trim"],
            inputs=[
                io.Video.Input("first", tooltip="The video that comes first."),
                io.Video.Input("second", tooltip="The video that follows, of the same size."),
                io.Combo.Input(
                    "seam",
                    options=Seam,
                    default=Seam.DROP,
                    tooltip="drop: a plain cut. linear, eased: a cross-fade of blend_frames frames.",
                ),
                io.Int.Input("blend_frames", tooltip="Frames of the cross-fade, taken from both videos.", **frames),
                io.Int.Input("trim_end", tooltip="Frames to cut off the end of the first video.", **frames),
                io.Int.Input("trim_start", tooltip="Frames to cut off the start of the second video.", **frames),
                OutputType.Input("output", optional=True, tooltip="From SVI Output: codec and quality for re-encoding."),
                prefix_input("svi/joined", "The result's folder in ComfyUI's output folder."),
            ],
            outputs=[io.Video.Output("video", tooltip="The joined video, a file.")],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo, io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, first, second, seam, blend_frames, trim_end, trim_start, filename_prefix, output=None) -> io.NodeOutput:
        earlier, later = (open_video(video) for video in (first, second))
        joint = Joint(_piece(earlier, 0, trim_end), _piece(later, trim_start, 0), Seam(seam), blend_frames)
        metadata = queued_graph.embedded_graph(cls.hidden)
        coding = (output or OutputSettings()).coding
        size = earlier.source.width, earlier.source.height
        folder = run_path(filename_prefix, QueuedGraph(cls.hidden.prompt or {}), cls.hidden.unique_id, size, "")
        path = join_into_folder(folder, joint, coding, metadata)
        remember(path, instead_of="video-*.mp4")
        return io.NodeOutput(InputImpl.VideoFromFile(str(path)))


def _piece(part: VideoPart, trim_start: int, trim_end: int) -> Piece:
    return Piece(part.source, part.first + trim_start, part.num_after + trim_end)
