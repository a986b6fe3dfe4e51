"""Show a finished video where it lies, without another copy of it."""

from pathlib import Path

import folder_paths
from comfy_api.latest import InputImpl, io, ui

from .bridge.schemas import svi_schema
from .bridge.video_files import require_uncropped


class SVIShowVideo(io.ComfyNode):
    """Show a video of the output folder on the page, and list it among the results."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id="SVIShowVideo",
            display_name="SVI Show Video",
            category="video",
            description="Shows the finished video and lists it among ComfyUI's results, as Save Video does, but writes no "
            "numbered copy: a run keeps one file for each different video that it made.",
            search_aliases=["preview video", "save video", "watch"],
            inputs=[io.Video.Input("video", tooltip="From SVI Generate, SVI Finish Video, SVI Join Videos or SVI Plan.")],
            outputs=[io.Video.Output("shown_video", display_name="video", tooltip="The same video.")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, video) -> io.NodeOutput:
        output, path = Path(folder_paths.get_output_directory()).resolve(), _whole_file(video)
        if path is None or not path.is_relative_to(output):
            raise ValueError(
                f"video is {'no whole file' if path is None else path}, but this node shows files in ComfyUI's output folder, "
                "where they are: write it there with Save Video."
            )
        place = path.relative_to(output)
        file = ui.SavedResult(place.name, place.parent.as_posix(), io.FolderType.output)
        return io.NodeOutput(video, ui=ui.PreviewVideo([file]))


def _whole_file(video) -> Path | None:
    """Return the file that a VIDEO shows from its beginning to its end, or None if it is none."""
    source = video.get_stream_source() if isinstance(video, InputImpl.VideoFromFile) else None
    if not isinstance(source, str) or any(video.get_active_trim_window()):
        return None
    path = Path(source).resolve()
    require_uncropped(video, path)
    return path
