"""A run: clips become segments, segments become one video that is playable while it grows."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from .clips import Clip, ClipMaker, ClipPlan, cut_frames, generate_clips
from .fingerprint import fingerprint
from .run_store import RunStore, ShownClip
from .video_file import VideoCoding, count_frames, join_videos, to_uint8, write_video

_log = logging.getLogger(__name__)
JOIN_SHARE = 0.05  # of the run's time that refreshing the growing video may take


@dataclass
class GrowingVideo:
    """The segments of a run in order, and their join on disk.

    The join is refreshed after a clip unless that would take more than 5 % of the time so far, so that a thousand clips do
    not mean a thousand copies; it is always refreshed when the run ends, is interrupted, or fails.
    """

    store: RunStore
    coding: VideoCoding
    metadata: Mapping[str, object] = field(default_factory=dict)
    clips: list[ShownClip] = field(default_factory=list)
    segments: list[Path] = field(default_factory=list)
    _started: float = field(default_factory=time.monotonic)
    _join_seconds: float = 0.0
    _joined: int = 0

    @property
    def num_frames(self) -> int:
        """Frames of the video of all clips so far."""
        return sum(clip.num_frames for clip in self.clips)

    @property
    def path(self) -> Path:
        """The video of all clips so far."""
        return self.store.folder / "video.mp4"

    def add(self, clip: Clip, shown: range) -> None:
        """Add the frames `shown` of `clip` and its held last frame, from the finished segment where there is one.

        Raises:
            OSError: the segment could not be written.
        """
        hold = clip.request.spec.hold
        name = f"{shown.start}-{shown.stop}-{hold}-{self.coding.tag}"
        if self.store.segment(clip.key, name) is None:
            chunks = cut_frames(clip.frames(), shown, hold)
            frames = (to_uint8(chunk) for chunk in chunks)
            written = write_video(self.store.segment_path(clip.key, name), frames, self.coding)
            self.store.add_segment(clip.key, name, written.num_frames, written.sha256)
        self.store.mark_used(clip.key)
        num_frames = self.store.record(clip.key).segments[name]["num_frames"]
        self.clips.append(ShownClip(clip.key, clip.request.spec.prompt, clip.request.seed, num_frames))
        self.segments.append(self.store.segment_path(clip.key, name))
        if self._join_seconds <= JOIN_SHARE * (time.monotonic() - self._started):
            self.try_join()

    def join(self) -> None:
        """Refresh the video unless it holds all segments already."""
        if self._joined == len(self.segments):
            return
        began = time.monotonic()
        join_videos(self.path, self.segments, self.num_frames, self.metadata)
        self.store.write_manifest(self.clips, self.path.name)
        self._joined = len(self.segments)
        self._join_seconds += time.monotonic() - began

    def try_join(self) -> None:
        """Refresh the video; if that fails (it is open in a player on Windows, say), tell the log and leave it for later."""
        try:
            self.join()
        except OSError as error:
            _log.warning("SVI: the growing video could not be refreshed (%s); its clips are safe.", error)

    def finish(self) -> Path:
        """Join all clips and give the video a name of its own, by its content: another video never replaces it.

        Raises:
            OSError: the video could not be written.
        """
        final = self.store.folder / f"video-{fingerprint([path.name for path in self.segments])[:12]}.mp4"
        if not self._is_sound(final):
            self.join()
            os.replace(self.path, final)
        self.path.unlink(missing_ok=True)
        self.store.write_manifest(self.clips, final.name)
        return final

    def _is_sound(self, video: Path) -> bool:
        """Whether `video` is there already, as an earlier run with the same clips made it."""
        try:
            return video.exists() and count_frames(video) == self.num_frames
        except OSError:
            return False


def make_video(
    plan: ClipPlan, maker: ClipMaker, video: GrowingVideo, on_clip: Callable[[Clip], None] = lambda clip: None
) -> tuple[Path, torch.Tensor]:
    """Make all clips of `plan` and return the finished video's path and the last clip's latent [1, 16, F, h, w].

    Whatever stops the run, the clips finished so far are stored and joined into a playable file.
    """
    try:
        for clip in generate_clips(plan, maker, video.store):
            video.add(clip, plan.shown_frames(clip.request))
            on_clip(clip)
    except BaseException:
        video.try_join()
        raise
    return video.finish(), clip.latent
