"""Settings of the video that a run makes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from ..files.fingerprint import fingerprint
from ..video.colour import ColourCorrection
from ..video.seams import Showing
from ..video.sound import SoundTrack
from ..video.video_file import PIXEL_FORMATS, VideoCoding
from .chain import Clip
from .clip_plan import ClipPlan, ClipRequest
from .continuation import VideoStart


@dataclass(frozen=True)
class VideoSettings:
    """Settings of a run's video.

    Attributes:
        coding: of the clips; a continued video decides the colours.
        metadata: header entries of the joined file.
        start: the video to continue.
        max_frames: final length in frames, including the continued video; 0 for no limit.
        colour_strength: 0 (as generated) to 1 (the anchor's colours).
        sound: of the clips, from the first on; a continued video keeps its own sound.
        mark: of frames that are decoded otherwise than the VAE does by itself, for the names of their files; "" for none.
        anchor_frame: request -> its anchor image [1, H, W, 3] in [0, 1]; needed if `colour_strength` is above 0.
        anchor_key: request -> a hash of what that image is made from, got without decoding; needed with `anchor_frame`.
    """

    coding: VideoCoding = VideoCoding()
    metadata: Mapping[str, object] = field(default_factory=dict[str, object])
    start: VideoStart | None = None
    max_frames: int = 0
    colour_strength: float = 0.0
    anchor_frame: Callable[[ClipRequest], torch.Tensor] | None = field(default=None, repr=False)
    sound: SoundTrack | None = None
    mark: str = ""
    anchor_key: Callable[[ClipRequest], str] | None = field(default=None, repr=False)

    @property
    def clip_coding(self) -> VideoCoding:
        """The coding of the clips, matched to the continued video."""
        if self.start is None:
            return self.coding
        source = self.start.source
        pixel_format = source.pixel_format.replace("yuvj", "yuv")
        if pixel_format not in PIXEL_FORMATS:
            pixel_format = self.coding.pixel_format
        return replace(self.coding, pixel_format=pixel_format, colours=source.colours)

    @property
    def clip_tag(self) -> str:
        """A short name for how the clips are shown and encoded."""
        is_cut = self.start is not None and self.start.shown_size != self.start.clip_size
        size = "x".join(map(str, self.start.shown_size)) if self.start is not None and is_cut else ""
        return "-".join(part for part in (size, self.mark, self.clip_coding.tag) if part)

    def is_full(self, num_frames: int) -> bool:
        """Return whether a video of `num_frames` has its final length."""
        return 0 < self.max_frames <= num_frames

    def num_clips_of(self, plan: ClipPlan) -> int:
        """Return how many clips of `plan` the video comes to by its current schedule: the final length may come first."""
        if not self.max_frames:
            return plan.num_clips
        num_frames, num_clips = self.start.num_frames if self.start else 0, 0
        for _, showing in replace(plan, schedule=plan.schedule.snapshot()).walk():
            num_frames, num_clips = num_frames + showing.num_frames, num_clips + 1
            if self.is_full(num_frames):
                break
        return num_clips

    def segment_name(self, showing: Showing, mark: str = "") -> str:
        """Return a short name for the frames of a clip that `showing` selects, as they are shown and encoded.

        `mark` tells them from the same frames behind another clip, where they depend on it.
        """
        strength = self.colour_strength
        return f"{showing.name}{f'-colour{strength:g}' if strength else ''}{mark}-{self.clip_tag}"

    def finished_name(self, kind: str, parts: Sequence[Path]) -> str:
        """Return the name of a finished video of `kind` that is joined of `parts`: it depends on them and on the sound."""
        names = [path.name for path in parts] + ([self.sound.key] if self.sound else [])
        return f"{kind}-{fingerprint(names)[:12]}.mp4"

    def shown(self, frames: torch.Tensor) -> torch.Tensor:
        """Return the part of `frames` [T, H, W, 3] that is shown: as large as the continued video."""
        if self.start is None:
            return frames
        width, height = self.start.shown_size
        return frames[:, :height, :width]


@dataclass(frozen=True)
class LastClip:
    """The last clip, as the next one needs it.

    Attributes:
        stop: end of its shown frames.
        begin: colour correction of its first frame.
        end: colour correction of its last frame.
        mark: sets its frames apart from those of the same clip after another one.
    """

    clip: Clip
    stop: int
    begin: ColourCorrection = ColourCorrection()
    end: ColourCorrection = ColourCorrection()
    mark: str = ""
