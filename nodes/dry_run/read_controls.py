"""Read a run's controls from the queued graph and the files that it names."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...svi_core.geometry import TALK_FRAME_RATE
from ...svi_core.systems.layouts import Layout
from ...svi_core.systems.lora_variant import AutoLayout
from ...svi_core.video.sound import sound_seconds
from ...svi_core.video.source_video import probe_video
from ..bridge.queued_graph import Link, NotKnown, find_input
from ..dance import SVIDance, end_of_poses, num_dance_clips
from ..layouts import SVILayout, ask_layout
from ..talk import SVITalk, num_silent_passes, num_talk_clips
from .graph_reader import STOCK, GraphReader


@dataclass(frozen=True)
class RequestedControl:
    """What is known of a control before its node runs.

    Attributes:
        clip_count: the node's output for the number of clips.
        num_clips: the value of that output.
        frame_rate, num_frames, num_extra_passes: as in Control.
    """

    clip_count: Link
    num_clips: int
    frame_rate: float | None
    num_frames: int = 0
    num_extra_passes: int = 0


def read_controls(reader: GraphReader, loop: str) -> Iterator[RequestedControl]:
    """Yield the controls of the SVI Generate `loop` as far as they are known; record the rest.

    Raises:
        OSError: an unreadable pose video or sound.
        ValueError: a layout that does not fit.
    """
    for node in reader.graph.chain(loop, "control"):
        try:
            if reader.is_a(node, SVIDance):
                yield _read_dance(reader, node)
            elif reader.is_a(node, SVITalk):
                yield _read_talk(reader, node)
        except NotKnown as error:
            reader.not_known.append(str(error))


def _read_dance(reader: GraphReader, node: str) -> RequestedControl:
    """Return an SVI Dance whose poses are a file."""
    link = reader.graph.link(node, "poses")
    are_loose = link is not None and reader.graph.class_of(link.node_id) == "GetVideoComponents"
    video = reader.graph.link(link.node_id, "video") if are_loose else link
    path = _input_file(reader, video, "LoadVideo", lambda file: file)
    if path is None:
        raise NotKnown(f"poses of {reader.graph.title(node)}: their number is not known yet")
    source = probe_video(path)
    rate = None if are_loose else source.frame_rate
    num_poses = source.num_frames if rate is None else len(source.shown.at_rate(rate))
    num_clips = num_dance_clips(num_poses, _read_layout(reader, node))
    return RequestedControl(Link(node, 1), num_clips, rate, reader.read(node, SVIDance, end_of_poses, num_poses))


def _read_talk(reader: GraphReader, node: str) -> RequestedControl:
    """Return an SVI Talk whose sound is a file."""
    path = _input_file(reader, reader.graph.link(node, "audio"), "LoadAudio", lambda audio: audio)
    if path is None:
        raise NotKnown(f"audio of {reader.graph.title(node)}: its length is not known yet")
    num_clips = num_talk_clips(sound_seconds(path), _read_layout(reader, node))
    num_extra_passes = reader.read(node, SVITalk, num_silent_passes)
    return RequestedControl(Link(node, 1), num_clips, TALK_FRAME_RATE, num_extra_passes=num_extra_passes)


def _read_layout(reader: GraphReader, node: str) -> Layout | AutoLayout | None:
    """Return the layout that is connected to a control, or None."""
    if reader.graph.link(node, "layout") is None:
        return None
    layout = reader.source(node, "layout", SVILayout)
    if layout is None:
        raise NotKnown(f"layout: comes from {reader.origin(node, 'layout')}")
    return reader.read(layout, SVILayout, ask_layout)


def _input_file(reader: GraphReader, link: Link | None, loader: str, widget: Callable[..., str]) -> Path | None:
    """Return the file in the `widget` of the stock `loader` behind `link`, or None without such a loader."""
    if link is None or reader.graph.class_of(link.node_id) != loader:
        return None
    return find_input(reader.read(link.node_id, STOCK, widget))
