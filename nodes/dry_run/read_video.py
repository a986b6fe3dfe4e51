"""Read a run's output settings, start, size, steps and guidance from the queued graph."""

from PIL import Image, UnidentifiedImageError

from ...svi_core.clips.continuation import VideoStart
from ...svi_core.conditioning.images import SizeRule, video_size
from ...svi_core.store.records import require_unchanged
from ...svi_core.video.source_video import probe_video
from ...svi_core.video.video_part import part_between
from ..bridge.queued_graph import Link, find_input
from ..conditioning import SVIAnchorEncode
from ..continuation import SVIContinueVideo, video_start
from ..few_steps import SVIFewStepSigmas, num_few_steps
from ..generate import SVIGenerate
from ..output import OutputSettings, SVIOutput, output_settings
from .graph_reader import STOCK, GraphReader

_STEPPED_SCHEDULERS = {  # stock nodes whose widget `steps` is exact
    "BasicScheduler", "BetaSamplingScheduler", "ExponentialScheduler", "KarrasScheduler", "LaplaceScheduler",
    "PolyexponentialScheduler", "SDTurboScheduler", "VPScheduler",
}  # fmt: skip
NOT_KNOWN = "not known"  # a start that another node makes


def read_output(reader: GraphReader, loop: str) -> OutputSettings:
    """Return the settings of SVI Output, with defaults for unknown values."""
    output = reader.source(loop, "output", SVIOutput)
    if output is not None:
        return reader.or_default(output, SVIOutput, output_settings)
    if reader.graph.link(loop, "output") is not None:
        reader.not_known.append(f"output: comes from {reader.origin(loop, 'output')}")
    return OutputSettings()


def read_start(reader: GraphReader, loop: str) -> VideoStart | str:
    """Return the video that the run continues: "" for none, NOT_KNOWN for one that another node makes.

    Raises:
        ValueError: a missing file, or nothing left after trim_end.
    """
    link = reader.graph.link(loop, "continue_from")
    if link is None:
        return ""
    video = reader.graph.link(link.node_id, "video")
    if video is None or reader.graph.class_of(video.node_id) != "LoadVideo":
        origin = reader.graph.title((video or link).node_id)
        reader.not_known.append(f"continue_from: its length and its stored clips are not known before {origin} has run")
        return NOT_KNOWN
    path = find_input(reader.required(video.node_id, STOCK, lambda file: file))
    if path is None:
        raise ValueError(f"file of {reader.graph.title(video.node_id)} is not in ComfyUI's input folder: choose another.")
    require_unchanged(path)
    return reader.required(link.node_id, SVIContinueVideo, video_start, part_between(probe_video(path)))


def read_num_steps(reader: GraphReader, loop: str) -> int | None:
    """Return the sampler steps of a clip, or record them as not known and return None."""
    link = reader.graph.link(loop, "sigmas")
    if link is None:
        return None
    if reader.graph.class_of(link.node_id) in _STEPPED_SCHEDULERS:
        return reader.known(link.node_id, STOCK, lambda steps: steps)
    if reader.is_a(link.node_id, SVIFewStepSigmas):
        return reader.known(link.node_id, SVIFewStepSigmas, num_few_steps)
    reader.not_known.append(f"steps: sigmas come from {reader.graph.title(link.node_id)}")
    return None


def read_cfg(reader: GraphReader, loop: str) -> float | None:
    """Return the guidance scale of a run, or record it as not known and return None."""
    link = reader.graph.link(loop, "guider")
    if link is None:
        return reader.known(loop, SVIGenerate, lambda cfg: cfg)
    kind = reader.graph.class_of(link.node_id)
    if kind == "BasicGuider":
        return 1.0
    if kind == "CFGGuider":
        return reader.known(link.node_id, STOCK, lambda cfg: cfg)
    reader.not_known.append(f"cfg: {reader.graph.title(link.node_id)} guides by settings of its own")
    return None


def read_size(reader: GraphReader, loop: str) -> tuple[int, int] | None:
    """Return (width, height) of the video in pixels, or record it as not known and return None.

    Raises:
        ValueError: an invalid size.
    """
    anchor = reader.source(loop, "anchor", SVIAnchorEncode)
    if anchor is None:
        reader.not_known.append(f"size: the anchor comes from {reader.origin(loop, 'anchor')}")
        return None
    asked = reader.known(
        anchor,
        SVIAnchorEncode,
        lambda width, height, size_rule, megapixels: (width, height, SizeRule(size_rule), megapixels),
    )
    if asked is None:
        return None
    image = (1, 1) if asked[2] is SizeRule.EXACT else _image_size(reader, reader.graph.link(anchor, "image"))
    if image is None:
        origin = reader.origin(anchor, "image")
        reader.not_known.append(f"size: size_rule {asked[2].value!r} needs the image, which {origin} makes")
        return None
    return video_size(*image, *asked)


def _image_size(reader: GraphReader, link: Link | None) -> tuple[int, int] | None:
    """Return the size of a Load Image's file from its header; None for other nodes and for rotated pictures."""
    if link is None or reader.graph.class_of(link.node_id) != "LoadImage":
        return None
    path = find_input(str(reader.known(link.node_id, STOCK, lambda image: image)))
    try:
        with Image.open(path) as image:
            is_turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientation: 5 to 8 swap the sides
            return None if is_turned else image.size
    except (OSError, AttributeError, UnidentifiedImageError):
        return None
