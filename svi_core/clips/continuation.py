"""A finished video that a new run continues: the file, its last frames, and their latent.

The last clip of one of our own runs is loaded from its run folder, bit for bit, as if that run had never ended. Any other
video is encoded: a whole clip's window of frames, because in a causal VAE a slot depends on the frames before it.
Source: docs/METHOD.md, 3.3 (motion latent) and 9.9 (motion = last slot of the frames before).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..conditioning.build_y import motion_window
from ..files.fingerprint import fingerprint, large_file_fingerprint
from ..geometry import FRAME_RATE, TRAINED_NUM_FRAMES
from ..store.records import MANIFEST, ShownClip, read_clip_latent, read_manifest
from ..video.source_video import SourceVideo, read_tail
from ..video.video_file import Sound

Decode = Callable[[torch.Tensor], Iterator[torch.Tensor]]


@dataclass(frozen=True)
class VideoStart:
    """The video that a run continues.

    Attributes:
        trim_end: frames to cut off its end.
        named_folder: the run folder whose latest video is continued; None if the video itself was chosen.
    """

    source: SourceVideo
    trim_end: int = 0
    named_folder: Path | None = None

    def __post_init__(self):
        if not 0 <= self.trim_end < self.source.num_frames:
            raise ValueError(
                f"trim_end is {self.trim_end}, but {self.source.path.name} has {self.source.num_frames} frames: keep some."
            )

    @property
    def num_frames(self) -> int:
        """Frames of the video that are kept."""
        return self.source.num_frames - self.trim_end

    @property
    def seconds(self) -> float:
        """How long the kept part plays."""
        return self.source.shown.end_of(self.num_frames)

    @property
    def plan_key(self) -> str:
        """A hash of the kept part, for ClipPlan.continues."""
        return fingerprint("start", large_file_fingerprint(self.source.path), self.trim_end)

    @property
    def sound(self) -> Sound | None:
        """The video's sound, as long as its kept frames."""
        return self.source.sound(self.num_frames)

    @property
    def clips(self) -> tuple[ShownClip, ...]:
        """The clips of the kept part."""
        return clips_of_video(self.source, 0, self.trim_end)

    @property
    def num_clips_made(self) -> int:
        """The number of those that SVI runs made."""
        return sum(bool(clip.key) for clip in self.clips)

    def require_another_folder(self, folder: Path) -> None:
        """Refuse to continue the run in `folder` itself, whose latest video changes each time it is queued.

        Raises:
            ValueError: `folder` is the run to continue.
        """
        if self.named_folder is not None and self.named_folder.resolve() == folder.resolve():
            raise ValueError(
                f"continue_from names the run {folder.name!r}, which is this run itself: whenever it is queued, it would go on "
                "after what it made last time. Give SVI Generate another filename_prefix, for instance that name with '_2'."
            )

    @property
    def is_foreign(self) -> bool:
        """Whether the video is continued from its frames, because there is no stored latent of its last clip."""
        return self.stored_latent() is None

    def stored_latent(self) -> torch.Tensor | None:
        """Return the latent [1, 16, F, h, w] of the last clip if our own run ended with it, else None."""
        last = self.clips[-1]
        return read_clip_latent(self.source.path.parent, last.key) if last.key and last.whole_end else None


def clips_of_video(source: SourceVideo, trim_start: int = 0, trim_end: int = 0) -> tuple[ShownClip, ...]:
    """Return the clips of a trimmed video: those of its run, or one clip for a foreign video."""
    path = source.path
    known = read_manifest(path) if (path.parent / MANIFEST).exists() else None
    if known is None or sum(clip.num_frames for clip in known) != source.num_frames:
        known = (ShownClip("", path.name, 0, source.num_frames, whole_end=False),)
    kept, position = list[ShownClip](), 0
    for clip in known:
        begin = max(position, trim_start)
        end = min(position + clip.num_frames, source.num_frames - trim_end)
        position += clip.num_frames
        if begin < end:
            kept.append(replace(clip, num_frames=end - begin, whole_end=clip.whole_end and end == position))
    return tuple(kept)


@dataclass(frozen=True)
class VideoEnd:
    """The end of a video not made by our own runs, as svi_core.clips.chain.Predecessor.

    Attributes:
        key: a hash of its last frames.
        latent: [1, 16, F, h, w], un-normalised.
        frames: its last frames [n, H, W, 3] in [0, 1].
        frame_rate: of `frames`, per second.
    """

    key: str
    latent: torch.Tensor
    frames: torch.Tensor
    frame_rate: float = FRAME_RATE

    def tail(self, num_frames: int) -> torch.Tensor:
        """Return the last `num_frames` frames [n, H, W, 3].

        Raises:
            ValueError: the video is shorter.
        """
        if len(self.frames) < num_frames:
            raise ValueError(
                f"the video to continue has {len(self.frames)} frame(s) at {self.frame_rate:g} per second, but {num_frames} "
                "carry motion: use a longer video or fewer motion frames."
            )
        return self.frames[-num_frames:]


@dataclass(frozen=True)
class RunEnd:
    """The last clip of one of our own runs, as svi_core.clips.chain.Predecessor.

    Attributes:
        key: of the clip.
        latent: [1, 16, F, h, w].
        decode: latent -> chunks of frames [t, H, W, 3] in [0, 1].
    """

    key: str
    latent: torch.Tensor
    decode: Decode

    def tail(self, num_frames: int) -> torch.Tensor:
        """Return the last `num_frames` frames [n, H, W, 3]."""
        return torch.cat(list(self.decode(self.latent)))[-num_frames:]


def open_start(
    start: VideoStart,
    encode: Callable[[torch.Tensor], torch.Tensor],
    decode: Decode,
    frame_rate: float = FRAME_RATE,
) -> VideoEnd | RunEnd:
    """Return the end of `start`, which the first clip continues.

    Args:
        encode: frames [T, H, W, 3] -> latent [1, 16, F, h, w], un-normalised; only called for foreign videos.
        decode: latent -> chunks of frames.
        frame_rate: frames per second of the first clip.

    Raises:
        OSError: the file cannot be read.
    """
    latent = start.stored_latent()
    if latent is not None:
        return RunEnd(start.clips[-1].key, latent, decode)
    frames = read_tail(start.source, TRAINED_NUM_FRAMES, start.trim_end, frame_rate)
    return VideoEnd(fingerprint("video", frames), encode(motion_window(frames)), frames, frame_rate)
