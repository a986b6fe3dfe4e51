"""Continue an existing video: one of our runs, or any video file."""

import logging
import time
from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..svi_core.clips.continuation import VideoStart
from ..svi_core.files.name_pattern import with_values
from ..svi_core.files.output_folder import check_output_prefix
from ..svi_core.store.records import read_last_video, require_unchanged
from ..svi_core.store.run_folders import newest_run_folder
from ..svi_core.video.source_video import probe_video
from ..svi_core.video.video_part import VideoPart
from .bridge.schemas import svi_schema
from .bridge.validation import complaint
from .bridge.video_files import open_video, part_as_file

StartType = io.Custom("SVI_START")


class SVIContinueVideo(io.ComfyNode):
    """Choose the video that a run continues."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id="SVIContinueVideo",
            display_name="SVI Continue Video",
            description="Continue an existing video: its frames stay unchanged, and new clips follow its end. A video from SVI "
            "Generate continues from the latent of its last clip.",
            category="video",
            search_aliases=["extend video", "continue", "append"],
            inputs=[
                io.Video.Input(
                    "video",
                    optional=True,
                    tooltip="A video file from Load Video or SVI Generate. Encode the anchor at its size, rounded up to "
                    "multiples of 16. Or name a run instead.",
                ),
                io.String.Input(
                    "run",
                    default="",
                    tooltip="Instead of video: the filename_prefix of a run. Its last video continues from the stored latent, "
                    "which a copy made by Save Video lacks.",
                ),
                io.Int.Input("trim_end", default=0, min=0, max=1_000_000, tooltip="Frames to cut off the end first."),
            ],
            outputs=[StartType.Output("start", tooltip="For continue_from of SVI Generate.")],
        )

    @classmethod
    def validate_inputs(cls, run=None) -> bool | str:
        return complaint(lambda run: check_output_prefix(run, "run"), run or None)

    @classmethod
    def fingerprint_inputs(cls, run=None, **_) -> str:
        """Run again when the run has a new last video."""
        return str(last_video(Path(folder_paths.get_output_directory()), run)) if run else ""

    @classmethod
    def execute(cls, run, trim_end, video=None) -> io.NodeOutput:
        start = video_start(None if video is None else open_video(video, require_unchanged), run, trim_end)
        origin = "its frames, encoded" if start.is_foreign else "its last latent"
        logging.info("SVI: %s continues from %s.", start.source.path.name, origin)
        return io.NodeOutput(start)


def video_start(video: VideoPart | None, run: str, trim_end: int) -> VideoStart:
    """Return the end of `video`, or of the last video of `run`, as the start of a run.

    Raises:
        ValueError: both or neither, a run without a video or with a damaged one, or nothing left after `trim_end`.
    """
    if bool(run) == (video is not None):
        raise ValueError("SVI Continue Video needs either video or run: connect a video, or name a run, not both.")
    if video is None:
        path = last_video(Path(folder_paths.get_output_directory()), run)
        require_unchanged(path)
        return VideoStart(probe_video(path), trim_end, path.parent)
    if video.first:
        return VideoStart(part_as_file(video), trim_end)
    return VideoStart(video.source, trim_end + video.num_after)


def last_video(output_root: Path, run: str) -> Path:
    """Return the last finished video of the run called `run`; if the name holds the time, of the newest run of that name.

    Raises:
        ValueError: no such run, or a run without a video.
    """

    def refused(name: str) -> object:
        raise ValueError(f"run is {run!r}, but only SVI Generate knows %{name}%: write the name of the folder.")

    folder = newest_run_folder(output_root, with_values(run, refused), time.localtime())
    video = read_last_video(folder)
    if video is None:
        raise ValueError(f"run is {run!r}, but {folder} holds no video of a run: use the filename_prefix of SVI Generate.")
    return video
