"""A run step by step: make one clip at a time, then finish the video."""

import time
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..store.records import ShownClip
from ..store.run_store import RunStore
from ..store.space import prune
from ..video.stage_frames import ProcessedPart
from .chain import Clip, ClipMaker, Predecessor, make_clip
from .clip_plan import ClipPlan, ClipRequest, shown_part
from .growing_video import GrowingVideo
from .video_settings import LastClip, VideoSettings


@dataclass(frozen=True)
class RunState:
    """The state of a run between two clips, an immutable value of constant size for a generic loop.

    Attributes:
        plan: its number of clips is ignored: the loop decides.
        maker: the model side.
        folder: of the run store.
        settings: of the video.
        start: the end of the continued video, if any.
        num_clips: made so far.
        clips: shown so far.
        segments: files of the video so far.
        last: the last clip, by key; its latent is in the run store.
        following: request of the next clip, which decides what of the last one is shown; None before the first.
        budget_bytes: room for stored clips, see `space.prune`.
        started: time.monotonic() when the first clip began.
        join_seconds: time spent on refreshing the growing video.
        processed: what a stage made of each clip so far, see processed_frames.
        processed_join_seconds: time spent on refreshing the video of these.
        num_context: frames of the clip before that the stage gets with those of the last clip.
        is_ended: the last clip was made as the last one.
    """

    plan: ClipPlan
    maker: ClipMaker = field(repr=False)
    folder: Path
    settings: VideoSettings = VideoSettings()
    start: Predecessor | None = field(default=None, repr=False)
    num_clips: int = 0
    clips: tuple[ShownClip, ...] = ()
    segments: tuple[Path, ...] = ()
    last: LastClip | None = None
    following: ClipRequest | None = None
    budget_bytes: int = 0
    started: float = field(default_factory=time.monotonic)
    join_seconds: float = 0.0
    processed: tuple[ProcessedPart, ...] = ()
    processed_join_seconds: float = 0.0
    num_context: int = 0
    is_ended: bool = False

    @property
    def is_full(self) -> bool:
        """Whether the video has its final length."""
        return self.settings.is_full(sum(clip.num_frames for clip in self.clips))


def next_clip(state: RunState, is_last: bool = False) -> tuple[RunState, Clip]:
    """Make one clip; return the new state and the clip. A video of final length stays as it is.

    Args:
        is_last: no clip follows, so the clip is shown to its end. Otherwise the frames that it shares with the next clip may
            wait until that is made, or the video is finished.

    Raises:
        ValueError: the clip before is no longer in the run store, or was the last one; or as :func:`make_clip`.
    """
    with RunStore(state.folder) as store:
        video = _video_of(state, store)
        before = video.last.clip if video.last else None
        if before is None:
            video.begin()
        elif video.is_full:
            return state, before
        elif state.is_ended:
            raise ValueError(
                f"clip {state.num_clips} was made with is_last, so no clip can follow it: switch is_last on for the last "
                "SVI Next Clip only."
            )
        request = state.following or state.plan.request(state.num_clips, before and before.request)
        clip = make_clip(state.plan, state.maker, store, request, before, state.start)
        following = None if is_last else state.plan.following(request)
        video.add(clip, shown_part(request, following))
        video.wait()
    assert video.last is not None
    last = replace(video.last, clip=replace(clip, latent=None, last_frames=None))
    made = {"clips": tuple(video.clips), "segments": tuple(video.segments), "join_seconds": video.join_seconds}
    after = replace(state, num_clips=state.num_clips + 1, last=last, following=following, is_ended=is_last, **made)
    return replace(after, num_context=0), clip


def finish_video(state: RunState) -> Path:
    """Join the clips of `state` into a finished video and return its path.

    Raises:
        ValueError: no clip yet.
    """
    if state.last is None:
        raise ValueError("the run has no clip yet: make at least one before the video is finished.")
    with RunStore(state.folder) as store:
        video = _video_of(state, store)
        video.add_rest()
        path = video.finish()
        shown = {*video.segments, *(part.path for part in state.processed)}
        keys = {clip.key for clip in video.clips}
        prune(store.folder, state.budget_bytes, keys | state.plan.schedule.snapshot().pinned, shown)
    return path


def _video_of(state: RunState, store: RunStore) -> GrowingVideo:
    """Return the growing video after the last clip of `state`; raise ValueError if the store no longer has that clip."""
    last = state.last
    if last is not None:
        latent = store.load_latent(last.clip.key)
        if latent is None:
            raise ValueError(f"clip {state.num_clips} is no longer in {store.folder}: run the graph from its first clip again.")
        last = replace(last, clip=replace(last.clip, latent=latent))
    clips, segments = list(state.clips), list(state.segments)
    return GrowingVideo(store, state.settings, clips, segments, last, state.started, state.join_seconds)
