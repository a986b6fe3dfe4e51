"""Go on from a video that is there already: one of our own runs, or any video file."""

from pathlib import Path

from comfy_api.latest import io

from ..svi_core.continuation import VideoStart
from ..svi_core.source_video import probe_video

CATEGORY = "SVI"
StartType = io.Custom("SVI_START")


class SVIContinueVideo(io.ComfyNode):
    """Choose the video that a run begins with."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="SVIContinueVideo",
            display_name="SVI Continue Video",
            category=CATEGORY,
            description="An existing video as the beginning of the next: its frames stay exactly as they are, new clips come "
            "after them and move on from its end. A video from SVI Generate goes on from its last clip's latent.",
            search_aliases=["stable video infinity", "extend video", "continue", "append"],
            inputs=[
                io.Video.Input("video", tooltip="A video file, from Load Video or SVI Generate, at the size of the anchor."),
                io.Int.Input(
                    "trim_end", default=0, min=0, max=1_000_000, tooltip="Frames cut off its end first, if the end went wrong."
                ),
            ],
            outputs=[StartType.Output("start", tooltip="For continue_from of SVI Generate.")],
        )

    @classmethod
    def execute(cls, video, trim_end) -> io.NodeOutput:
        return io.NodeOutput(VideoStart(probe_video(video_path(video)), trim_end))


def video_path(video) -> Path:
    """Return the file of a VIDEO.

    Raises:
        ValueError: a VIDEO that is not a file.
    """
    source = video.get_stream_source()
    if not isinstance(source, str):
        raise ValueError("video is held in memory: save it first, then load the file with Load Video.")
    return Path(source)
