"""Which frames a clip gives to a video: of those that two clips share the copy of one of them, or a blend of both.

A 2.0 Pro clip replays its anchor in frame 0, so that frame never enters a blend: mixed into the seam it flashes. Only the
frames that both clips show of the same moments are mixed. Pixel-space layouts begin with real frames and blend all of them.

Source: docs/METHOD.md, 5.1 (overlaps of 1.0, 2.0 and Pro); the blends are ours.
"""

from dataclasses import dataclass, replace
from enum import StrEnum

from ..systems.layouts import Layout


class Seam(StrEnum):
    """How a video shows the frames that two neighbouring clips share."""

    DROP = "drop"  # one copy is shown, the other dropped
    LINEAR = "linear"  # cross-fade at constant speed
    EASED = "eased"  # cross-fade that starts and ends softly


def measured_seam(layout: Layout) -> Seam:
    """Return the default seam: the best one measured, or the released code's for layouts that were not measured.

    2.0 Pro: on the demo's tiny models a linear blend had a smaller jump than a drop at 24 of 24 seams (benchmarks/RESULTS.md).
    """
    return Seam.LINEAR if layout.in_latent_space else Seam.DROP


@dataclass(frozen=True)
class Showing:
    """The frames that one clip gives to the video.

    Attributes:
        frames: indices of the clip's frames that are shown, in order.
        num_blended: how many of the first of them are mixed with as many last frames of the clip before.
        seam: how they are mixed.
        hold: how many times the last shown frame is repeated.
        is_end: the clip's own last frame is shown, so that a video can be continued from the clip's latent.
    """

    frames: range
    num_blended: int = 0
    seam: Seam = Seam.DROP
    hold: int = 0
    is_end: bool = True

    @property
    def num_frames(self) -> int:
        """Frames of the video that the clip gives."""
        return len(self.frames) + self.hold

    @property
    def name(self) -> str:
        """A short name, different for every showing of one clip."""
        blend = f"-{self.seam}{self.num_blended}" if self.num_blended else ""
        return f"{self.frames.start}-{self.frames.stop}-{self.hold}{blend}"

    def limited(self, num_frames: int) -> "Showing":
        """Return this showing cut to at most `num_frames` frames, >= 1."""
        if self.num_frames <= num_frames:
            return self
        shown = self.frames[:num_frames]
        return replace(self, frames=shown, hold=num_frames - len(shown), is_end=self.is_end and shown == self.frames)
