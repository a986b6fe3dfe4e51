"""A run: clips become segments, and segments become one video that is playable while it grows."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from ..files.checked_file import is_unchanged
from ..store.records import ShownClip
from ..store.run_store import RunStore
from ..store.space import within_budget
from ..video.background_writer import BackgroundWriter
from ..video.blending import cut_frames
from ..video.colour import ColourCorrection
from ..video.seams import Showing
from ..video.source_video import write_beginning
from ..video.video_file import to_uint8, write_video
from .chain import Clip, ClipMaker, DecodedClip, Predecessor, make_clip
from .clip_colours import corrected_frames
from .clip_plan import ClipPlan, shown_part
from .growing_file import is_due, timed_join
from .run_video import RunVideo
from .video_settings import LastClip, VideoSettings

_log = logging.getLogger(__name__)
WAITING_CHUNKS = 12  # in the queue: 81 frames as bytes, 97 MB at 832 x 480, so that decoding never waits for the encoder


@dataclass
class GrowingVideo:
    """The clips of a run and their segments in order, added one clip at a time.

    The thread that adds a clip decodes its frames. A background thread encodes and checks them, records the segment and
    refreshes the video file while the next clip is sampled. At most one clip is being written; a crash meanwhile costs that
    segment only, which is made again from the clip's stored latent.

    The file is refreshed after a clip unless that would take more than 5 % of the time so far, so that a thousand clips do
    not mean a thousand copies; it is always refreshed when the run ends, is interrupted, or fails.
    """

    store: RunStore
    settings: VideoSettings = VideoSettings()
    clips: list[ShownClip] = field(default_factory=list)
    segments: list[Path] = field(default_factory=list)
    last: LastClip | None = None
    started: float = field(default_factory=time.monotonic)
    join_seconds: float = 0.0
    keys: set[str] = field(default_factory=set[str])  # of the clips added, also of one whose decoding was interrupted
    _file: RunVideo = field(init=False)
    _writer: BackgroundWriter[np.ndarray] | None = None
    _before: tuple[int, int, LastClip | None] = (0, 0, None)  # clips, segments and last without the clip being written
    _add_again: Callable[[], object] | None = None  # adds the clip whose decoding was interrupted

    def __post_init__(self):
        self._file = RunVideo(self.store, self.settings)

    @property
    def num_frames(self) -> int:
        """Frames of the video of all clips so far."""
        return sum(clip.num_frames for clip in self.clips)

    @property
    def is_full(self) -> bool:
        """Whether the video has its final length."""
        return self.settings.is_full(self.num_frames)

    def begin(self) -> None:
        """Begin with the video to continue, if any: write a copy whose frames are unchanged.

        Raises:
            OSError: it cannot be read, or cannot be joined to clips of this coding.
        """
        start, coding = self.settings.start, self.settings.clip_coding
        if start is None:
            return
        path = self.store.folder / f"begin-{start.plan_key[:16]}-{coding.tag}.mp4"
        if not is_unchanged(path):
            write_beginning(path, start.source, start.num_frames, coding)
            self.store.write_manifest(start.clips, path.name, is_final=True)
        self.clips.extend(start.clips)
        self.segments.append(path)

    def add(self, clip: Clip, showing: Showing, on_written: Callable[[Clip], None] = lambda clip: None) -> Clip:
        """Add the frames of `clip` that `showing` selects, from the finished segment if there is one.

        Returns `clip`, with its last frames if it was decoded.

        Args:
            on_written: called in the background thread once the segment is complete and the file is refreshed.

        Raises:
            OSError: the segment before could not be written, see :meth:`wait`.
        """

        def then() -> None:
            if is_due(self.join_seconds, self.started):
                self._refresh()
            on_written(clip)

        self.keys.add(clip.key)
        self.wait()
        assert not self.is_full
        showing = self._limited(showing)
        begin = self.last.end if self.last and not clip.request.starts_anew else ColourCorrection()
        decoded = DecodedClip(clip)
        try:
            mark = _mark_of_take(clip, showing, self.last, self.settings)
            end, writer = self._start_segment(decoded, showing, begin, then, mark)
        except OSError:
            raise  # a full disk, say: a second attempt would fail too
        except BaseException:
            self._add_again = lambda: self.add(clip, showing, on_written)
            raise
        num_frames = showing.num_frames
        self.clips.append(ShownClip(clip.key, clip.request.spec.prompt, clip.request.seed, num_frames, showing.is_end))
        self.last = LastClip(decoded.clip, showing.frames.stop, begin, end, mark)
        writer.end()
        return decoded.clip

    def wait(self) -> None:
        """Return when everything that was added is on disk.

        Raises:
            OSError: the segment added last could not be written; it is no longer part of the video then.
        """
        writer, self._writer = self._writer, None
        if writer is None:
            return
        try:
            writer.wait()
        except BaseException:
            num_clips, num_segments, last = self._before
            if not (self.segments[num_segments:] and self.segments[-1].exists()):
                del self.clips[num_clips:], self.segments[num_segments:]
                self.last = last
            raise

    def add_rest(self, may_decode: bool = True) -> None:
        """Add the frames of the last clip that the next clip was to show; those to be decoded for it only if `may_decode`."""
        self.wait()
        if self.last is None or self.is_full or not has_rest(self.clips[-1], self.last):
            return
        rest = self._limited(Showing(range(self.last.stop, self.last.clip.request.layout.num_frames)))
        clip, mark = self.last.clip, self.last.mark
        if not may_decode and self.store.segment(clip.key, self.settings.segment_name(rest, mark)) is None:
            if self.settings.colour_strength or not clip.keeps_frames_from(rest.frames.start):
                return
            clip = clip.with_end_only()
        _, writer = self._start_segment(DecodedClip(clip), rest, self.last.begin, lambda: None, mark)
        writer.end()
        self.wait()
        shown = self.clips[-1].num_frames + rest.num_frames
        self.clips[-1] = replace(self.clips[-1], num_frames=shown, whole_end=rest.is_end)

    def end_early(self, at_once: bool = False) -> None:
        """End the video of a failed or cancelled run with its whole last clip; log errors, since the run ended already.

        `at_once` decodes nothing, since the user waits; the next run finds the latent of a clip that was being decoded.
        """
        add_again, self._add_again = self._add_again, None
        steps = (lambda: self.add_rest(may_decode=False),) if at_once else (add_again, self.add_rest)
        for step in (*steps, self.wait):
            try:
                if step is not None:
                    step()
            except BaseException as error:  # a second Cancel too: the caller raises what stopped the run
                _log.warning("SVI: the end of the last clip could not be shown (%r); the clip itself is safe.", error)
        self._refresh()

    def finish(self) -> Path:
        """Join all clips into the finished video and return its path.

        Raises:
            OSError: the video could not be written.
        """
        self.wait()
        return self._file.finish(self.clips, self.segments)

    def _refresh(self) -> None:
        """Refresh the file; if that fails, leave it for later."""
        self.join_seconds += timed_join(lambda: self._file.refresh(self.clips, self.segments), "the growing video")

    def _limited(self, showing: Showing) -> Showing:
        """Return `showing` without frames beyond the final length of the video."""
        return showing.limited(self.settings.max_frames - self.num_frames) if self.settings.max_frames else showing

    def _start_segment(
        self, decoded: DecodedClip, showing: Showing, begin: ColourCorrection, then: Callable[[], None], mark: str = ""
    ) -> tuple[ColourCorrection, BackgroundWriter[np.ndarray]]:
        """Decode a segment's frames for the background writer, unless its file exists; return its last colour correction.

        The caller ends the writer's items. The writer then completes the segment and calls `then`.
        """
        clip, coding, seconds = decoded.clip, self.settings.clip_coding, list[float]()
        name = self.settings.segment_name(showing, mark)
        made, began = self.store.segment(clip.key, name), time.monotonic()
        if made is not None:
            frames, end = (), ColourCorrection(**made.get("colour", {}))
        else:
            chunks, end = corrected_frames(self.settings, decoded, begin)
            frames = cut_frames(chunks, showing, self._blended_before(showing))
        path = self.store.segment_path(clip.key, name)

        def write(frames: Iterator[np.ndarray]) -> None:
            if made is not None:
                next(frames, None)  # returns at the end of the items
            else:
                written = write_video(path, frames, coding)
                self.store.add_segment(clip.key, name, written.num_frames, written.sha256, vars(end))
                if not clip.is_end_only:
                    self.store.add_measure(clip.key, "decode_seconds", seconds[0])
            self.store.mark_used(clip.key)
            then()

        self._before = len(self.clips), len(self.segments), self.last
        writer = BackgroundWriter(write, WAITING_CHUNKS)
        writer.give(to_uint8(self.settings.shown(chunk)) for chunk in frames)
        seconds.append(time.monotonic() - began)
        self.segments.append(path)
        self._writer = writer
        return end, writer

    def _blended_before(self, showing: Showing) -> torch.Tensor | None:
        """Return the frames of the clip before that are mixed into this one, with the colour correction of its end."""
        if self.last is None or not showing.num_blended:
            return None
        before = self.last.clip.tail(showing.num_blended)
        return self.last.end(before) if self.settings.colour_strength else before


def _mark_of_take(clip: Clip, showing: Showing, last: LastClip | None, settings: VideoSettings) -> str:
    """Return what sets frames of a pinned take apart: a clip before that it does not continue, and the anchor of their colours.

    Neither is in the key of a take, which was made before.
    """
    take = clip.request.take
    if take is None or not (showing.num_blended or settings.colour_strength):
        return ""
    before = last.clip.key if last and not clip.request.starts_anew else ""
    after = "" if before == take.parent else f"-after{before[:12] or 'none'}"
    if not settings.colour_strength:
        return after
    assert settings.anchor_key is not None, "colour_strength needs anchors"
    return f"{after}-like{settings.anchor_key(clip.request)[:12]}"


def has_rest(shown: ShownClip, last: LastClip) -> bool:
    """Whether the end of the last clip waits for a clip after it; no frame of a clip can follow one that is held."""
    return not (shown.whole_end or last.clip.request.spec.hold)


def make_video(
    plan: ClipPlan,
    maker: ClipMaker,
    video: GrowingVideo,
    start: Predecessor | None = None,
    on_clip: Callable[[Clip], None] = lambda clip: None,
    on_written: Callable[[Clip], None] = lambda clip: None,
    budget_bytes: int = 0,
) -> tuple[Path, torch.Tensor]:
    """Make the clips of `plan` and return the finished video's path and the last clip's latent [1, 16, F, h, w].

    `on_clip` is called after each clip is decoded; `on_written`, in another thread, after its segment is complete. At the end
    stored clips beyond `budget_bytes` (0: no limit) are removed, except those of the video and the takes that `plan` pins.
    Whatever stops the run, the clips finished so far are stored and joined into a playable file.
    """
    with within_budget(video.store.folder, budget_bytes, lambda: video.keys | plan.schedule.snapshot().pinned, video.segments):
        try:
            video.begin()
            clip, request = None, plan.request(0)
            while True:
                clip = make_clip(plan, maker, video.store, request, clip, start)
                following = plan.following(request)
                clip = video.add(clip, shown_part(request, following), on_written)
                on_clip(clip)
                if video.is_full or following is None:
                    break
                request = following
        except BaseException as error:
            video.end_early(at_once=not isinstance(error, Exception))  # as ComfyUI's Cancel and KeyboardInterrupt are
            raise
        return video.finish(), clip.latent
