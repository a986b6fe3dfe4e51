"""A clip's frames in the colours of its anchor: matched where they were decoded, or on the host if that device lacks memory."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import torch

from ..out_of_memory import is_out_of_memory
from ..video.colour import END_FRAMES, ColourCorrection, corrected, match_colour
from .chain import DecodedClip
from .video_settings import VideoSettings

T = TypeVar("T")
_log = logging.getLogger(__name__)


def corrected_frames(
    settings: VideoSettings, decoded: DecodedClip, begin: ColourCorrection
) -> tuple[Iterator[torch.Tensor], ColourCorrection]:
    """Return the clip's frames with corrected colours, and the correction of its end, for which all are decoded first."""
    if not settings.colour_strength:
        return iter(decoded), ColourCorrection()
    assert settings.anchor_frame is not None, "colour_strength needs anchors"
    anchor, kept = settings.anchor_frame(decoded.clip.request), _KeptFrames()
    for chunk in decoded:
        kept.add(chunk)
    end = kept.where_there_is_room(lambda: match_colour(kept.end, anchor.to(kept.end.device), settings.colour_strength))
    return kept.corrected(begin, end, decoded.clip.request.layout.num_frames), end


@dataclass
class _KeptFrames:
    """All frames of a clip in half precision (194 MB at 832 x 480) on their device; on the host once that lacks memory.

    Attributes:
        chunks: [t, H, W, 3] each.
        is_on_host: whether they were moved there.
    """

    chunks: list[torch.Tensor] = field(default_factory=list[torch.Tensor])
    is_on_host: bool = False

    def add(self, chunk: torch.Tensor) -> None:
        """Keep `chunk`."""

        def half() -> torch.Tensor:
            return (chunk.cpu() if self.is_on_host else chunk).half()

        kept = self.where_there_is_room(half)  # which may replace the list
        self.chunks.append(kept)

    @property
    def end(self) -> torch.Tensor:
        """The last frames, which are compared with the anchor."""
        last = self.chunks[-END_FRAMES:]
        # a decoder that had to go on in tiles gives the rest of a clip on the host
        return torch.cat([chunk.to(last[-1].device) for chunk in last])[-END_FRAMES:].float()

    def corrected(self, begin: ColourCorrection, end: ColourCorrection, num_frames: int) -> Iterator[torch.Tensor]:
        """Yield all frames of a clip of `num_frames`, corrected."""
        position = 0

        def chunk() -> torch.Tensor:
            return corrected(self.chunks[place].float(), position, begin, end, num_frames)

        for place in range(len(self.chunks)):
            yield self.where_there_is_room(chunk)
            position += len(self.chunks[place])

    def where_there_is_room(self, work: Callable[[], T]) -> T:
        """Return what `work` does; if memory runs out, move all chunks to the host and do it once more."""
        try:
            return work()
        except Exception as error:
            if self.is_on_host or not is_out_of_memory(error):
                raise
        _log.warning("SVI: the device lacks memory to match a clip's colours; they are matched on the host.")
        self.chunks, self.is_on_host = [chunk.cpu() for chunk in self.chunks], True
        return work()
