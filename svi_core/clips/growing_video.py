"""A run: clips become segments, segments become one video that is playable while it grows."""

import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from ..files.fingerprint import fingerprint
from ..store.records import ShownClip, is_intact, read_manifest
from ..store.run_store import RunStore
from ..video.background_writer import HandOver
from ..video.colour import END_FRAMES, ColourCorrection, corrected, match_colour
from ..video.seams import Showing, cut_frames
from ..video.sound import sound_after
from ..video.source_video import write_beginning
from ..video.video_file import Sound, join_videos, to_uint8, write_video
from .chain import Clip, ClipMaker, DecodedClip, Predecessor, make_clip
from .clip_plan import ClipPlan, shown_part
from .video_settings import LastClip, VideoSettings

_log = logging.getLogger(__name__)
JOIN_SHARE = 0.05  # of the run's time that refreshing the growing video may take
WAITING_CHUNKS = 12  # for the encoder: 81 frames as bytes, 97 MB at 832 x 480, so that no clip waits for its own encoding


@dataclass
class GrowingVideo:
    """The segments of a run in order, and their join on disk.

    The join is refreshed after a clip unless that would take more than 5 % of the time so far, so that a thousand clips do
    not mean a thousand copies; it is always refreshed when the run ends, is interrupted, or fails.

    Frames are decoded by the thread that adds the clip; encoding, reading back, recording and joining them goes on in another
    while the next clip is sampled. One clip at a time is in this state, and until :meth:`wait` only that thread changes what
    is here. A crash meanwhile costs that segment, which is made again from the clip's stored latent.
    """

    store: RunStore
    settings: VideoSettings = VideoSettings()
    clips: list[ShownClip] = field(default_factory=list)
    segments: list[Path] = field(default_factory=list)
    last: LastClip | None = None
    started: float = field(default_factory=time.monotonic)
    join_seconds: float = 0.0
    _joined: int = 0
    _in_work: HandOver | None = None
    _before: tuple[int, int, LastClip | None] = (0, 0, None)  # clips, segments and last without what is in work
    _cut_short: Callable[[], None] | None = None  # adds the clip whose frames were being decoded when the run was stopped

    @property
    def num_frames(self) -> int:
        """Frames of the video of all clips so far."""
        return sum(clip.num_frames for clip in self.clips)

    @property
    def is_full(self) -> bool:
        """Whether the video has its final length."""
        return 0 < self.settings.max_frames <= self.num_frames

    @property
    def path(self) -> Path:
        """The video of all clips so far."""
        return self.store.folder / "video.mp4"

    def begin(self) -> None:
        """Begin with the video that is to be continued, if any, in a file of its own with unchanged frames.

        Raises:
            OSError: it cannot be read, or not be joined to clips of this coding.
        """
        start, coding = self.settings.start, self.settings.clip_coding
        if start is None:
            return
        path = self.store.folder / f"begin-{start.plan_key[:16]}-{coding.tag}.mp4"
        if not is_intact(path):
            write_beginning(path, start.source, start.num_frames, coding)
            self.store.write_manifest(start.clips, path.name, is_final=True)
        self.clips.extend(start.clips)
        self.segments.append(path)

    def add(self, clip: Clip, showing: Showing, on_written: Callable[[Clip], None] = lambda clip: None) -> Clip:
        """Add what `showing` says of `clip`, from the finished segment where there is one; return `clip` with its last frames.

        Args:
            on_written: called, perhaps in another thread, once the segment is a finished file and the join is refreshed.

        Raises:
            OSError: the segment before could not be written, see :meth:`wait`.
        """
        self.wait()
        assert not self.is_full
        if self.settings.max_frames:
            showing = showing.limited(self.settings.max_frames - self.num_frames)
        begin = self.last.end if self.last and not clip.request.starts_anew else ColourCorrection()
        decoded = DecodedClip(clip)
        try:
            end, finish = self._hand_over(decoded, showing, begin, lambda: self._refresh(clip, on_written))
        except OSError:
            raise
        except BaseException:
            self._cut_short = lambda: self.add(clip, showing, on_written)
            raise
        num_frames = showing.num_frames
        self.clips.append(ShownClip(clip.key, clip.request.spec.prompt, clip.request.seed, num_frames, showing.is_end))
        self.last = LastClip(decoded.clip, showing.frames.stop, begin, end)
        finish()
        return decoded.clip

    def wait(self) -> None:
        """Return when everything that was added is on disk.

        Raises:
            OSError: the segment added last could not be written; it is no longer part of the video then.
        """
        in_work, self._in_work = self._in_work, None
        if in_work is None:
            return
        try:
            in_work.wait()
        except BaseException:
            num_clips, num_segments, last = self._before
            if not (self.segments[num_segments:] and self.segments[-1].exists()):
                del self.clips[num_clips:], self.segments[num_segments:]
                self.last = last
            raise

    def show_end(self) -> None:
        """Add what is missing of the last clip, which ends the video although another one was expected to follow."""
        self.wait()
        if self.last is None or self.clips[-1].whole_end or self.is_full or self.last.clip.request.spec.hold:
            return  # after a held frame nothing more of the clip can come
        missing = Showing(range(self.last.stop, self.last.clip.request.layout.num_frames))
        if self.settings.max_frames:
            missing = missing.limited(self.settings.max_frames - self.num_frames)
        _, finish = self._hand_over(DecodedClip(self.last.clip), missing, self.last.begin, lambda: None)
        finish()
        self.wait()
        shown = self.clips[-1].num_frames + missing.num_frames
        self.clips[-1] = replace(self.clips[-1], num_frames=shown, whole_end=missing.is_end)

    def join(self) -> None:
        """Refresh the video unless it holds all segments already."""
        if self._joined == len(self.segments) or self._is_begun_again():
            return
        began = time.monotonic()
        self._spare_another()
        join_videos(self.path, self.segments, self.num_frames, self.settings.metadata, self._heard())
        self.store.write_manifest(self.clips, self.path.name)
        self._joined = len(self.segments)
        self.join_seconds += time.monotonic() - began

    def try_join(self) -> None:
        """Refresh the video; if that fails (it is open in a player on Windows, say), tell the log and leave it for later."""
        try:
            self.join()
        except OSError as error:
            _log.warning("SVI: the growing video could not be refreshed (%s); its clips are safe.", error)

    def try_end(self) -> None:
        """End a stopped run's video with all of its last clip; what fails is told in the log, since the run failed already."""
        add_cut_short, self._cut_short = self._cut_short, None
        for step in (add_cut_short, self.show_end, self.wait):
            try:
                if step is not None:
                    step()
            except BaseException as error:  # a second Cancel too: what stopped the run is raised again by the caller
                _log.warning("SVI: the end of the last clip could not be shown (%r); the clip itself is safe.", error)
        self.try_join()

    def finish(self) -> Path:
        """Join all clips under a name of the video's own, by its content: another video never replaces it.

        Raises:
            OSError: the video could not be written.
        """
        self.wait()
        final = self.store.folder / f"video-{self._content_name()}.mp4"
        if not is_intact(final):
            join_videos(final, self.segments, self.num_frames, self.settings.metadata, self._heard())
        try:
            self._spare_another()
            self.path.unlink(missing_ok=True)
        except OSError as error:  # open in a player on Windows, say
            _log.warning("SVI: %s could not be removed (%s); the finished video is %s.", self.path, error, final.name)
        self.store.write_manifest(self.clips, final.name, is_final=True)
        return final

    def _content_name(self) -> str:
        parts = [path.name for path in self.segments] + ([self.settings.sound.key] if self.settings.sound else [])
        return fingerprint(parts)[:12]

    def _earlier_keys(self) -> list[str]:
        """Return the keys of the clips in the growing video that a stopped run left; [] if there is none."""
        try:
            clips = read_manifest(self.path) if self.path.exists() and not self._joined else None
        except ValueError:
            clips = None
        return [clip.key for clip in clips or ()]

    def _is_begun_again(self) -> bool:
        """Whether a stopped run left a video of these clips and more: it is better than what there is so far."""
        earlier, keys = self._earlier_keys(), [clip.key for clip in self.clips]
        return len(earlier) > len(keys) and earlier[: len(keys)] == keys

    def _spare_another(self) -> None:
        """Give the video that a stopped run left a name of its own if this one does not go on from it."""
        earlier, keys = self._earlier_keys(), [clip.key for clip in self.clips]
        if not earlier or keys[: len(earlier)] == earlier:
            return
        spared = self.store.folder / f"stopped-{fingerprint(earlier)[:12]}.mp4"
        clips = read_manifest(self.path)
        os.replace(self.path, spared)
        self.store.write_manifest(clips, spared.name, is_final=True)

    def _heard(self) -> Sound | None:
        """Return the sound of the video of all clips so far, no longer than it."""
        start, own = self.settings.start, self.settings.sound
        if own is None:
            return start.sound if start else None
        sound, begun = own.kept_in(self.store.folder), 0.0
        if start is not None:
            begun = start.num_frames / start.source.frame_rate
            sound = sound_after(start.sound, begun, sound)
        num_new = self.num_frames - (start.num_frames if start else 0)
        return replace(sound, seconds=min(sound.seconds, begun + num_new / self.settings.coding.frame_rate))

    def _refresh(self, clip: Clip, on_written: Callable[[Clip], None]) -> None:
        if self.join_seconds <= JOIN_SHARE * (time.monotonic() - self.started):
            self.try_join()
        on_written(clip)

    def _hand_over(
        self, decoded: DecodedClip, showing: Showing, begin: ColourCorrection, then: Callable[[], None]
    ) -> tuple[ColourCorrection, Callable[[], None]]:
        """Decode the segment's frames and hand them to the encoder, unless the file is there.

        Returns (the colour correction that the segment ends with, what lets it be finished and `then` be called).
        """
        clip, coding, strength = decoded.clip, self.settings.clip_coding, self.settings.colour_strength
        name = f"{showing.name}{f'-colour{strength:g}' if strength else ''}-{coding.tag}"
        path = self.store.segment_path(clip.key, name)
        self._before = len(self.clips), len(self.segments), self.last
        if self.store.segment(clip.key, name) is not None:
            self.store.mark_used(clip.key)
            self.segments.append(path)
            return ColourCorrection(**self.store.record(clip.key).segments[name].get("colour", {})), then
        began, seconds = time.monotonic(), []
        chunks, end = self._corrected_frames(decoded, begin)

        def write(frames: Iterator[np.ndarray]) -> None:
            written = write_video(path, frames, coding)
            self.store.add_segment(clip.key, name, written.num_frames, written.sha256, vars(end))
            self.store.add_measure(clip.key, "decode_seconds", seconds[0])
            self.store.mark_used(clip.key)
            then()

        in_work = HandOver(write, WAITING_CHUNKS)
        in_work.give(to_uint8(chunk) for chunk in cut_frames(chunks, showing, self._blended_before(showing)))
        seconds.append(time.monotonic() - began)
        self.segments.append(path)
        self._in_work = in_work
        return end, in_work.end

    def _corrected_frames(
        self, decoded: DecodedClip, begin: ColourCorrection
    ) -> tuple[Iterator[torch.Tensor], ColourCorrection]:
        """Return the clip's frames as they are shown, and the colour correction of its end, which needs all of them first."""
        if not self.settings.colour_strength:
            return iter(decoded), ColourCorrection()
        clip, chunks = decoded.clip, [chunk.half().cpu() for chunk in decoded]  # one clip, so memory stays bounded
        tail = torch.cat(chunks[-END_FRAMES:])[-END_FRAMES:].float()
        end = match_colour(tail, self.settings.anchor_frame(clip.request), self.settings.colour_strength)
        return corrected((chunk.float() for chunk in chunks), begin, end, clip.request.layout.num_frames), end

    def _blended_before(self, showing: Showing) -> torch.Tensor | None:
        """Return the frames of the clip before that are mixed into this one, colours corrected as they end there."""
        if not showing.num_blended:
            return None
        before = self.last.clip.tail(showing.num_blended)
        return self.last.end(before) if self.settings.colour_strength else before


def make_video(
    plan: ClipPlan,
    maker: ClipMaker,
    video: GrowingVideo,
    start: Predecessor | None = None,
    on_clip: Callable[[Clip], None] = lambda clip: None,
    on_written: Callable[[Clip], None] = lambda clip: None,
) -> tuple[Path, torch.Tensor]:
    """Make the clips of `plan` and return the finished video's path and the last clip's latent [1, 16, F, h, w].

    `on_clip` is called after each clip is decoded; `on_written`, perhaps in another thread, after its file is finished.
    Whatever stops the run, the clips finished so far are stored and joined into a playable file.
    """
    try:
        video.begin()
        clip, request = None, plan.request(0)
        while request is not None:
            clip = make_clip(plan, maker, video.store, request, clip, start)
            following = plan.following(request)
            clip = video.add(clip, shown_part(request, following), on_written)
            on_clip(clip)
            request = None if video.is_full else following
    except BaseException:
        video.try_end()
        raise
    return video.finish(), clip.latent
