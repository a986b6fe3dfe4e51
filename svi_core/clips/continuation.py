"""A finished video that a new run continues: the file, its last frames, and their latent.

The last clip of one of our own runs is loaded from its run folder, bit for bit, as if that run had never ended. Any other
video is encoded: a whole clip's window of frames, because in a causal VAE a slot depends on the frames before it.
Source: docs/METHOD.md, 3.3 (motion latent) and 9.9 (motion = last slot of the frames before).
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..conditioning.build_y import motion_window
from ..files.fingerprint import fingerprint
from ..geometry import FRAME_RATE, TEMPORAL_STRIDE, TRAINED_NUM_FRAMES, enclosing_size
from ..store.records import ShownClip, read_clip_latent, read_manifest
from ..video.colour_tags import require_ordinary
from ..video.source_video import SourceVideo, read_tail
from ..video.video_file import Sound

_log = logging.getLogger(__name__)
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
        require_ordinary(self.source.path, self.source.colours)
        source = self.source
        if (source.width % 2 or source.height % 2) and "444" not in source.pixel_format:
            raise ValueError(
                f"{source.path.name} has {source.width} x {source.height} pixels, but clips can be joined to even sizes only: "
                f"crop or scale it to {source.width // 2 * 2} x {source.height // 2 * 2} first."
            )

    @property
    def num_frames(self) -> int:
        """Frames of the video that are kept."""
        return self.source.num_frames - self.trim_end

    @property
    def clip_size(self) -> tuple[int, int]:
        """(width, height) of the clips: the video's, rounded up to multiples of 16; what is added is not shown."""
        return enclosing_size(self.source.width, self.source.height)

    @property
    def shown_size(self) -> tuple[int, int]:
        """(width, height) of the joined video, in pixels."""
        return self.source.width, self.source.height

    @property
    def seconds(self) -> float:
        """How long the kept part plays."""
        return self.source.shown.end_of(self.num_frames)

    @property
    def plan_key(self) -> str:
        """A hash of the kept part, for ClipPlan.continues."""
        return fingerprint("start", self.source.key, self.trim_end)

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

    def require_clip_size(self, width: int, height: int) -> None:
        """Refuse clips of another size than :attr:`clip_size`, in pixels.

        Raises:
            ValueError: the message names the size to encode the anchor at.
        """
        source, size = self.source, self.clip_size
        if (width, height) != size:
            raise ValueError(
                f"the video to continue ({source.path.name}) has {source.width} x {source.height} pixels, but the anchor has "
                f"{width} x {height}: encode the anchor at {size[0]} x {size[1]}, or scale the video first."
            )

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
    """Return the clips of a trimmed video: those of its run, or one clip for a foreign video.

    Raises:
        ValueError: its manifest is damaged.
    """
    path = source.path
    known = read_manifest(path)
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
        """Return the last `num_frames` frames [n, H, W, 3]; before the first frame it stands still."""
        return still_before(self.frames, num_frames)[-num_frames:]


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
    num_frames: int = TEMPORAL_STRIDE + 1,
) -> VideoEnd | RunEnd:
    """Return the end of `start`, which the first clip continues, with frames of :attr:`VideoStart.clip_size`.

    Args:
        encode: frames [T, H, W, 3] -> latent [1, 16, F, h, w], un-normalised; only called for foreign videos.
        decode: latent -> chunks of frames.
        frame_rate: frames per second of the first clip.
        num_frames: frames that the first clip needs; in a shorter video the first frame stands still before it.

    Raises:
        OSError: the file cannot be read.
    """
    latent = start.stored_latent()
    if latent is not None:
        return RunEnd(start.clips[-1].key, latent, decode)
    frames = read_tail(start.source, TRAINED_NUM_FRAMES, start.trim_end, frame_rate)
    key = fingerprint("video", frames)
    frames = _enlarged(frames, *start.clip_size)
    if len(frames) < num_frames:
        _log.warning(
            "SVI: %s has %d frame(s) at %g per second, but motion needs %d: the first one stands still before them.",
            *(start.source.path.name, len(frames), frame_rate, num_frames),
        )
    window = still_before(frames, num_frames)
    return VideoEnd(key, encode(motion_window(window)), frames, frame_rate)


def still_before(frames: torch.Tensor, num_frames: int) -> torch.Tensor:
    """Return `frames` [T, H, W, 3] with the first one repeated before them, so that there are at least `num_frames`."""
    return torch.cat([frames[:1].expand(max(0, num_frames - len(frames)), -1, -1, -1), frames])


def _enlarged(frames: torch.Tensor, width: int, height: int) -> torch.Tensor:
    """Return `frames` [T, H, W, 3] with their last row and column repeated up to [T, height, width, 3]."""
    rows, columns = (
        torch.arange(side).clamp_max(have - 1) for side, have in ((height, frames.shape[1]), (width, frames.shape[2]))
    )
    return frames[:, rows][:, :, columns]
