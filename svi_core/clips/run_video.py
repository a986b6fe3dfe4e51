"""The video file of a run: one file that is refreshed while the run goes on, then one under a name of its own."""

import functools
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ..files.checked_file import is_unchanged
from ..files.fingerprint import fingerprint
from ..store.records import MANIFEST, Manifest, ShownClip, parsed_manifest
from ..store.run_store import GROWING_VIDEO, RunStore
from ..video.sound import sound_after
from ..video.video_file import Sound, join_videos
from .growing_file import removing
from .video_settings import VideoSettings


@dataclass
class RunVideo:
    """The join of a run's segments on disk.

    Attributes:
        num_segments: how many segments this run has joined into the growing file.
    """

    store: RunStore
    settings: VideoSettings
    num_segments: int = 0

    @property
    def path(self) -> Path:
        """The growing file."""
        return self.store.folder / GROWING_VIDEO

    def refresh(self, clips: Sequence[ShownClip], segments: Sequence[Path]) -> None:
        """Join `segments` into the growing file, unless it holds all of them, or more from a run that was interrupted.

        Raises:
            OSError: the file could not be written.
        """
        earlier, keys = _keys(self._interrupted()), _keys(clips)
        is_longer = len(earlier) > len(keys) and earlier[: len(keys)] == keys
        if self.num_segments == len(segments) or (is_longer and self._left_is_intact):
            return
        self._set_aside_other(clips)
        self._join(self.path, clips, segments)
        self.store.write_manifest(clips, self.path.name)
        self.num_segments = len(segments)

    def finish(self, clips: Sequence[ShownClip], segments: Sequence[Path]) -> Path:
        """Join `segments` under a name that depends on their content, so that another video never replaces it.

        Raises:
            OSError: the video could not be written.
        """
        final = self.store.folder / self.settings.finished_name("video", segments)
        if not is_unchanged(final):
            self._join(final, clips, segments)
        with removing(self.path, final):
            self._set_aside_other(clips)
            self.path.unlink(missing_ok=True)
        self.store.write_manifest(clips, final.name, is_final=True)
        return final

    def _interrupted(self) -> Sequence[ShownClip]:
        """Return the clips of the growing file that an interrupted run left; none if there is no such file."""
        return self._left.clips if self._left and not self.num_segments and self.path.exists() else ()

    @functools.cached_property
    def _left(self) -> Manifest | None:
        """The manifest of the growing file, as it was before this run wrote one."""
        manifest = parsed_manifest(self.store.folder / MANIFEST)
        return manifest if manifest and manifest.video == self.path.name else None

    @functools.cached_property
    def _left_is_intact(self) -> bool:
        """Whether the growing file, which this run has not written yet, has the bytes that its manifest names."""
        return self._left is not None and self._left.fits(self.path)

    def _set_aside_other(self, clips: Sequence[ShownClip]) -> None:
        """Rename the file of an interrupted run, unless `clips` continue it."""
        earlier = self._interrupted()
        if not earlier or _keys(clips)[: len(earlier)] == _keys(earlier):
            return
        if not self._left_is_intact:
            self.store.set_aside(self.path, "its bytes are not those that its manifest names")
            return
        aside = self.store.folder / f"stopped-{fingerprint(_keys(earlier))[:12]}.mp4"
        os.replace(self.path, aside)
        self.store.write_manifest(earlier, aside.name, is_final=True)

    def _join(self, path: Path, clips: Sequence[ShownClip], segments: Sequence[Path]) -> None:
        num_frames, start = sum(clip.num_frames for clip in clips), self.settings.start
        late = start.source.late if start else 0.0
        lengths = [start.seconds - late] if start else []
        join_videos(path, segments, num_frames, self.settings.metadata, self._sound(num_frames), lengths, late)

    def _sound(self, num_frames: int) -> Sound | None:
        """Return the sound of the first `num_frames` frames of the video."""
        start, own = self.settings.start, self.settings.sound
        if own is None:
            return start.sound if start else None
        sound, begun = own.kept_in(self.store.folder), 0.0
        if start is not None:
            begun = start.seconds
            sound = sound_after(start.sound, begun, sound)
        num_new = num_frames - (start.num_frames if start else 0)
        return replace(sound, seconds=min(sound.seconds, begun + num_new / self.settings.coding.frame_rate))


def _keys(clips: Sequence[ShownClip]) -> list[str]:
    return [clip.key for clip in clips]
