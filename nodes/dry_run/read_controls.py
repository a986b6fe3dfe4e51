"""What the controls of a run say beforehand, as far as the queued graph and the files that it names tell: for SVI Plan."""

from collections.abc import Iterator
from dataclasses import dataclass

from ...svi_core.conditioning.pose_video import WhenPosesEnd, num_clips_for
from ...svi_core.conditioning.talk import num_clips_for as num_clips_of_sound
from ...svi_core.geometry import TRAINED_NUM_FRAMES
from ...svi_core.systems.layouts import LAYOUTS, make_layout
from ...svi_core.video.sound import sound_seconds
from ...svi_core.video.source_video import probe_video
from ..bridge.queued_graph import Link, NotKnown, QueuedGraph, find_input
from ..dance import DANCE
from ..talk import AUDIO_CFG


@dataclass(frozen=True)
class ControlOutline:
    """What is known of one control before it is made.

    Attributes:
        clip_count: the output that says how many clips the control needs.
        num_clips: what that says.
        frame_rate: as in Control.
        num_frames: as in Control.
        num_extra_passes: as in Control.
    """

    clip_count: Link
    num_clips: int
    frame_rate: float | None
    num_frames: int
    num_extra_passes: int = 0


def control_outlines(graph: QueuedGraph, node: str, not_known: list[str]) -> Iterator[ControlOutline]:
    """Yield what is known of the controls of the SVI Generate `node`; what is not is added to `not_known`.

    Raises:
        OSError: a pose video or a sound that cannot be read.
    """
    for control in graph.chain(node, "control"):
        read = _READERS.get(graph.class_of(control))
        if read is None:
            continue
        try:
            yield read(graph, control)
        except NotKnown as error:
            not_known.append(str(error))


def _read_dance(graph: QueuedGraph, node: str) -> ControlOutline:
    """Return what is known of an SVI Dance whose poses are a file.

    Raises:
        NotKnown: they are not, or another node makes a value that matters.
    """
    link = graph.link(node, "poses")
    are_loose = link is not None and graph.class_of(link.node_id) == "GetVideoComponents"
    video = graph.link(link.node_id, "video") if are_loose else link
    name = graph.value(video.node_id, "file") if video and graph.class_of(video.node_id) == "LoadVideo" else None
    path = find_input(name) if isinstance(name, str) else None
    if path is None:
        raise NotKnown(f"poses of {graph.title(node)}: how many there are is known when they are made")
    source = probe_video(path)
    num_clips = num_clips_for(source.num_frames, _frames_of_a_clip(graph, node), LAYOUTS[DANCE].overlap)
    stops = graph.value(node, "when_poses_end", WhenPosesEnd.LOOP) == WhenPosesEnd.STOP
    rate = None if are_loose else source.frame_rate
    return ControlOutline(Link(node, 1), num_clips, rate, source.num_frames if stops else 0)


def _read_talk(graph: QueuedGraph, node: str) -> ControlOutline:
    """Return what is known of an SVI Talk whose sound is a file.

    Raises:
        NotKnown: it is not, or another node makes a value that matters.
        OSError: the file has no sound.
    """
    sound = graph.link(node, "audio")
    name = graph.value(sound.node_id, "audio") if sound and graph.class_of(sound.node_id) == "LoadAudio" else None
    path = find_input(name) if isinstance(name, str) else None
    if path is None:
        raise NotKnown(f"audio of {graph.title(node)}: how long it is is known when it is made")
    layout = make_layout("Talk", _frames_of_a_clip(graph, node))
    num_clips = num_clips_of_sound(sound_seconds(path), layout)
    extra = 0 if graph.value(node, "audio_cfg", AUDIO_CFG) == 1.0 else 1
    return ControlOutline(Link(node, 1), num_clips, layout.frame_rate, 0, extra)


def _frames_of_a_clip(graph: QueuedGraph, node: str) -> int:
    """Return the frames of a clip of the layout that a control is given."""
    layout = graph.link(node, "layout")
    return graph.value(layout.node_id, "num_frames") if layout else TRAINED_NUM_FRAMES


_READERS = {"SVIDance": _read_dance, "SVITalk": _read_talk}
