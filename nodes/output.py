"""The output of a run: video encoding and disk space."""

from dataclasses import dataclass

from comfy_api.latest import io

from ..svi_core.clips.continuation import VideoStart
from ..svi_core.systems.layouts import Layout
from ..svi_core.video.seams import Seam
from ..svi_core.video.video_file import CODECS, PIXEL_FORMATS, VideoCoding
from .bridge.models import may_read_vision
from .bridge.queued_graph import QueuedGraph, graph_hash
from .bridge.schemas import svi_schema
from .bridge.vaes import DecodeTiles

AUTO = "auto"
OutputType = io.Custom("SVI_OUTPUT")


@dataclass(frozen=True)
class OutputSettings:
    """How a run writes its files.

    Attributes:
        coding: of the video.
        budget_bytes: disk space for stored clips; 0 for no limit.
        seam: how shared frames are joined, unless the schedule overrides it; None for the layout's best.
        colour_strength: 0 to 1, how far displayed colours move to the anchor's.
        length_seconds: final length of the video; 0 for the full length.
        tiles: when clips are decoded in tiles.
    """

    coding: VideoCoding = VideoCoding()
    budget_bytes: int = 0
    seam: Seam | None = None
    colour_strength: float = 0.0
    length_seconds: float = 0.0
    tiles: DecodeTiles = DecodeTiles.AUTO

    @property
    def mark_of_frames(self) -> str:
        """What sets files of frames in tiles apart from others in the run's folder."""
        return "tiled" if self.tiles is DecodeTiles.ALWAYS else ""

    def max_frames(self, start: VideoStart | None, frame_rate: float) -> int:
        """Return the final length in frames, 0 for no limit; a continued video counts with its own duration.

        Args:
            frame_rate: of the clips.

        Raises:
            ValueError: the continued video is already longer.
        """
        if self.length_seconds == 0.0:
            return 0
        begun = start.seconds if start else 0.0
        if begun >= self.length_seconds:
            raise ValueError(
                f"length_seconds is {self.length_seconds:g}, but the video to continue already lasts {begun:.2f} seconds: "
                "use more, or cut off its end in SVI Continue Video."
            )
        return (start.num_frames if start else 0) + max(1, round((self.length_seconds - begun) * frame_rate))


class SVIOutput(io.ComfyNode):
    """Choose how the video is encoded and how much disk space a run may use."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return svi_schema(
            node_id="SVIOutput",
            display_name="SVI Output",
            description="How SVI Generate encodes its video, and how much disk space a run's clips may use.",
            category="generate",
            search_aliases=["codec", "quality", "disk space"],
            inputs=[
                io.Combo.Input(
                    "codec", options=list(CODECS), default="h264", tooltip="h264: plays almost anywhere. h265: smaller."
                ),
                io.Int.Input("crf", default=18, min=0, max=51, tooltip="0: best, very large. 18: no visible loss. 51: worst."),
                io.Combo.Input(
                    "pixel_format",
                    options=list(PIXEL_FORMATS),
                    default="yuv420p",
                    tooltip="yuv420p plays almost everywhere, yuv444p has full colour resolution, yuv420p10le 10 bits.",
                ),
                io.Float.Input(
                    "budget_gb",
                    default=0.0,
                    min=0.0,
                    max=100_000.0,
                    step=0.5,
                    tooltip="Gigabytes for stored clips; 0: no limit. Removes the least recently used takes first, never clips "
                    "of the current video. Finished videos do not count.",
                ),
                io.Combo.Input(
                    "seam",
                    options=[AUTO, *Seam],
                    default=AUTO,
                    tooltip="Frames that two clips share. drop: show one copy. linear, eased: cross-fade. auto: linear for 2.0 "
                    "Pro (best on the demo's models), drop for others.",
                ),
                io.Float.Input(
                    "colour_match",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.05,
                    tooltip="Move displayed colours back to the anchor's: 0 not at all, 1 fully. Does not change what the next "
                    "clip is conditioned on.",
                ),
                io.Float.Input(
                    "length_seconds",
                    default=0.0,
                    min=0.0,
                    max=1_000_000.0,
                    step=0.5,
                    tooltip="Final length in seconds; generation stops there. 0: the length of all clips.",
                ),
                _decode_tiles_input(),
            ],
            outputs=[OutputType.Output("output", tooltip="For output of SVI Generate.")],
        )

    @classmethod
    def execute(cls, codec, crf, pixel_format, budget_gb, seam, colour_match, length_seconds, decode_tiles="auto"):
        shown = (seam, colour_match, length_seconds, decode_tiles)
        return io.NodeOutput(output_settings(codec, crf, pixel_format, budget_gb, *shown))


def hash_of_clips(graph: QueuedGraph, node_id: str, layout: Layout, output: OutputSettings) -> str:
    """Return ClipPlan.graph_hash of an SVI Generate: of its graph, and of tiles if clips continue from frames in tiles."""
    mark = output.mark_of_frames
    sees_frames = mark and (not layout.in_latent_space or may_read_vision(graph, node_id))
    return graph_hash(graph.nodes, node_id) + (mark if sees_frames else "")


def _decode_tiles_input() -> io.Input:
    return io.Combo.Input(
        "decode_tiles",
        options=DecodeTiles,
        default=DecodeTiles.AUTO,
        optional=True,
        advanced=True,
        tooltip="Decode clips in spatial tiles, which need less memory and can show faint seams. auto: when memory runs out. "
        "never: stop with an error instead.",
    )


def output_settings(
    codec: str,
    crf: int,
    pixel_format: str,
    budget_gb: float,
    seam: str,
    colour_match: float,
    length_seconds: float,
    decode_tiles: str,
) -> OutputSettings:
    """Return the settings that the widgets of SVI Output describe.

    Raises:
        ValueError: a number out of its range.
    """
    limits = (("budget_gb", budget_gb, 1e5), ("colour_match", colour_match, 1), ("length_seconds", length_seconds, 1e6))
    for name, value, most in limits:
        if not 0.0 <= value <= most:
            raise ValueError(f"{name} is {value}: use a number from 0 to {most:g}.")
    coding = VideoCoding(codec, crf, pixel_format)
    shown = (None if seam == AUTO else Seam(seam), colour_match, length_seconds)
    return OutputSettings(coding, int(budget_gb * 1e9), *shown, DecodeTiles(decode_tiles))
