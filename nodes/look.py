"""Look at a run: a filmstrip, and a report of drift and seams."""

import json
from itertools import accumulate

import torch
from comfy_api.latest import io

from ..svi_core.clips.continuation import clips_of_video
from ..svi_core.look.drift import measure_drift
from ..svi_core.look.drift_plot import draw_drift
from ..svi_core.look.filmstrip import MAX_ROWS, StripRow, draw_filmstrip, pick_frames, spread
from ..svi_core.store.records import ShownClip, read_manifest
from ..svi_core.video.frame_times import count_frames
from ..svi_core.video.video_part import VideoPart
from .bridge.schemas import svi_schema
from .bridge.video_files import open_video

_CLIP_LENGTH_TOOLTIP = "Frames per clip. 0: as recorded by SVI Generate. Other videos: 76 for 2.0 Pro, 80 for Shot."


class SVIDriftReport(io.ComfyNode):
    """Measure the drift and the seams of a video."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id="SVIDriftReport",
            display_name="SVI Drift Report",
            description="Measure brightness, contrast, saturation, sharpness, colour, motion and seams of each clip. Flags a "
            "video that stands still, repeats or runs backwards as invalid. Needs no model.",
            category="look",
            search_aliases=["quality", "colour shift", "seam"],
            inputs=[
                io.Video.Input("video", tooltip="A video file, from SVI Generate or Load Video."),
                io.Int.Input("clip_length", default=0, min=0, max=100_000, tooltip=_CLIP_LENGTH_TOOLTIP),
            ],
            outputs=[
                io.String.Output("report", tooltip="A verdict and a table in Markdown, for Preview as Text."),
                io.String.Output("data", tooltip="The same as JSON."),
                io.Image.Output("plot", tooltip="The verdict, and one chart per measure with its limits, over the clips."),
            ],
        )

    @classmethod
    def execute(cls, video, clip_length) -> io.NodeOutput:
        part = open_video(video)
        lengths = [clip.num_frames for clip in _clips_of(part, clip_length)]
        report = measure_drift(part.frames(), lengths, part.source.frame_rate)
        return io.NodeOutput(report.table(), json.dumps(report.as_dict()), as_image(draw_drift(report)))


class SVIFilmstrip(io.ComfyNode):
    """Show a run at a glance."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id="SVIFilmstrip",
            display_name="SVI Filmstrip",
            description="Show a whole run as one picture: a row per clip with some of its frames, its prompt and seed.",
            category="look",
            search_aliases=["contact sheet", "overview"],
            inputs=[
                io.Video.Input("video", tooltip="A video file, from SVI Generate or Load Video."),
                io.Int.Input("columns", default=3, min=1, max=20, tooltip="Frames to show of each clip."),
                io.Int.Input("frame_width", default=240, min=32, max=1024, tooltip="Width of each frame in pixels."),
                io.Int.Input("clip_length", default=0, min=0, max=100_000, tooltip=_CLIP_LENGTH_TOOLTIP),
            ],
            outputs=[io.Image.Output("image")],
        )

    @classmethod
    def execute(cls, video, columns, frame_width, clip_length) -> io.NodeOutput:
        part = open_video(video)
        rows = _strip_rows(part, _clips_of(part, clip_length), columns, frame_width)
        return io.NodeOutput(as_image(draw_filmstrip(rows, frame_width)))


def _clips_of(part: VideoPart, clip_length: int) -> tuple[ShownClip, ...]:
    """Return the clips of a video: those of its run, or pieces of `clip_length` frames (the last may be shorter).

    Raises:
        ValueError: `clip_length` is 0 and the video is not the last of a run.
    """
    path = part.source.path
    if clip_length == 0:
        clips = read_manifest(path)
        if clips is None:
            raise ValueError(f"{path.name} is not the last video of an SVI run, so its clips are not known: set clip_length.")
        return clips if part.is_whole else clips_of_video(part.source, part.first, part.num_after)
    total = count_frames(path, decode=True) if part.is_whole else part.num_frames
    lengths = [min(clip_length, total - start) for start in range(0, total, clip_length)]
    return tuple(ShownClip("", "", 0, length) for length in lengths)


def _strip_rows(part: VideoPart, clips: tuple[ShownClip, ...], columns: int, width: int) -> list[StripRow]:
    starts = list(accumulate((clip.num_frames for clip in clips), initial=0))
    shown = spread(len(clips), min(len(clips), MAX_ROWS))
    wanted = [[starts[k] + i for i in spread(clips[k].num_frames, columns)] for k in shown]
    frames = pick_frames(part.frames(), [index for row in wanted for index in row], width)
    titles = [f"{k + 1}  {clips[k].prompt}" for k in shown]
    notes = [f"seed {c.seed}, {c.num_frames} frames, take {c.key[:8]}" if c.key else "" for c in (clips[k] for k in shown)]
    return [StripRow(tuple(frames[i] for i in row), *texts) for row, *texts in zip(wanted, titles, notes, strict=True)]


def as_image(picture) -> torch.Tensor:
    """Return a picture [H, W, 3] uint8 as a ComfyUI IMAGE [1, H, W, 3] in [0, 1]."""
    return torch.from_numpy(picture.copy()).float().div(255.0)[None]
