"""Join two finished videos, with optional trims and a cross-fade.

Whole videos of one codec that meet in a plain cut are joined by stream copy, and every shown frame is compared. All others, and
two from memory, are encoded, frame by frame, in constant memory. Every frame keeps its time, so that the joined video lasts as
long as its parts. Where the second video's sound begins before its picture, the last picture of the first one stays until then.
"""

import bisect
import functools
import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..files.atomic_file import STAGING_MARK, staged
from ..files.fingerprint import fingerprint
from ..store.run_store import RunStore
from ..video.blending import blend_weights
from ..video.colour_tags import BT709, RGB, Colours, require_convertible, with_primaries
from ..video.ffmpeg import run_ffmpeg
from ..video.seams import Seam
from ..video.shown_frames import EARLY, TIME_ERROR, frame_hashes, require_all_decoded, retime
from ..video.sound import heard_until
from ..video.source_video import SourceVideo, copy_to_timescale, require_shown
from ..video.video_file import Sound, VideoCoding, join_videos, read_frames, write_video
from .continuation import clips_of_video

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Piece:
    """A part of a video.

    Attributes:
        source: the video.
        trim_start: frames cut off its start.
        trim_end: frames cut off its end.
    """

    source: SourceVideo
    trim_start: int = 0
    trim_end: int = 0

    def __post_init__(self):
        if min(self.trim_start, self.trim_end) < 0 or self.num_frames < 1:
            raise ValueError(
                f"{self.source.path.name} has {self.source.num_frames} frames, of which {self.trim_start} are cut off its "
                f"start and {self.trim_end} off its end: keep some."
            )

    @property
    def num_frames(self) -> int:
        """Frames after trimming."""
        return self.source.num_frames - self.trim_start - self.trim_end

    @property
    def times(self) -> tuple[float, ...]:
        """Seconds from its first frame to each frame."""
        shown = self.source.shown.times[self.trim_start : self.trim_start + self.num_frames]
        return tuple(time - shown[0] for time in shown)

    @property
    def seconds(self) -> float:
        """How long its frames are shown."""
        return self.end - self.source.shown.times[self.trim_start]

    @property
    def end(self) -> float:
        """Seconds from the zero of its file to the end of its last frame."""
        return self.source.shown.end_of(self.trim_start + self.num_frames)

    @property
    def late(self) -> float:
        """Seconds from its beginning, which may be a sound, to its first frame."""
        return self.source.late if self.trim_start == 0 else 0.0

    @property
    def is_whole(self) -> bool:
        """Whether nothing is cut off."""
        return self.trim_start == self.trim_end == 0

    def frames(self, colours: Colours) -> Iterator[np.ndarray]:
        """Yield its frames [H, W, 3] uint8, with the primaries of `colours`."""
        index = -1
        for index, frame in enumerate(read_frames(self.source.frames_path)):
            if self.trim_start <= index < self.trim_start + self.num_frames:
                yield with_primaries(frame, self.source.colours, colours)
        require_all_decoded(self.source.path, index + 1)


@dataclass(frozen=True)
class Joint:
    """Two pieces and the seam between them.

    Attributes:
        seam: DROP for a plain cut, else the kind of cross-fade.
        num_blended: frames of the cross-fade, taken from both pieces.
    """

    first: Piece
    second: Piece
    seam: Seam = Seam.DROP
    num_blended: int = 0

    def __post_init__(self):
        sizes = [(piece.source.width, piece.source.height) for piece in (self.first, self.second)]
        if sizes[0] != sizes[1]:
            names = [f"{p.source.path.name} ({w} x {h})" for p, (w, h) in zip((self.first, self.second), sizes, strict=True)]
            raise ValueError(f"the videos differ in size: {names[0]} and {names[1]} pixels; scale one of them first.")
        if not 0 <= self.num_blended <= self.first.num_frames or self.fade_seconds > self.second.seconds + self.early:
            raise ValueError(
                f"blend_frames is {self.num_blended}, but the pieces have {self.first.num_frames} and {self.second.num_frames} "
                f"frames ({self.first.seconds:.2f} s and {self.second.seconds:.2f} s): use fewer."
            )
        if not self.is_plain:
            self.require_encodable()

    def require_encodable(self) -> None:
        """Refuse videos whose frames cannot be encoded anew in one file.

        Raises:
            ValueError: HDR or other colours that cannot be converted.
        """
        first, second = self.first.source, self.second.source
        require_convertible(second.path, second.colours, self.colours)
        require_convertible(first.path, first.colours, second.colours)

    @property
    def colours(self) -> Colours:
        """The colours of the joined video where it is encoded anew: those of the first; RGB becomes BT.709."""
        colours = self.first.source.colours
        return replace(colours, matrix=BT709, full_range=False) if colours.matrix == RGB else colours

    @property
    def is_plain(self) -> bool:
        """Whether both videos are whole and meet in a plain cut."""
        return self.overlap == 0 and self.first.is_whole and self.second.is_whole

    @property
    def overlap(self) -> int:
        """Frames of the first piece that are mixed with frames of the second one."""
        return 0 if self.seam is Seam.DROP else self.num_blended

    @functools.cached_property
    def fade_seconds(self) -> float:
        """How long the cross-fade lasts."""
        return self.first.seconds - self.first.times[-self.overlap] if self.overlap else 0.0

    @property
    def early(self) -> float:
        """Seconds by which a frame of the second piece counts as shown before its time."""
        return EARLY / self.first.source.frame_rate

    @functools.cached_property
    def partners(self) -> tuple[int, ...]:
        """The frame of the second piece that is mixed into each of the last frames of the first one: that of its time."""
        mixed = self.first.times[len(self.first.times) - self.overlap :]
        return tuple(bisect.bisect_right(self.second.times, time - mixed[0] + self.early) - 1 for time in mixed)

    @functools.cached_property
    def num_faded(self) -> int:
        """Frames of the second piece that are over when the cross-fade ends."""
        if not self.overlap:
            return 0
        ends = (*self.second.times[1:], self.second.seconds)
        return bisect.bisect_right(ends, self.fade_seconds + self.early)

    @property
    def times(self) -> tuple[float, ...]:
        """Seconds from the first frame of the joined video to each of its frames, and to their end."""
        first, second = self.first, self.second
        begin = first.seconds - self.fade_seconds + (0.0 if self.overlap else second.late)
        rest = (begin + max(time, self.fade_seconds) for time in (*second.times[self.num_faded :], second.seconds))
        return (*first.times, *rest)

    @property
    def num_frames(self) -> int:
        """Frames of the joined video."""
        return self.first.num_frames + self.second.num_frames - self.num_faded

    def frames(self) -> Iterator[np.ndarray]:
        """Yield the joined frames [H, W, 3] uint8 in order; no more than a cross-fade is in memory."""
        waiting: deque[np.ndarray] = deque()
        for frame in self.first.frames(self.colours):
            waiting.append(frame)
            if len(waiting) > self.overlap:
                yield waiting.popleft()
        mixes = deque(zip(self.partners, map(float, blend_weights(self.seam, self.overlap)), strict=True))
        for index, frame in enumerate(self.second.frames(self.colours)):
            while mixes and mixes[0][0] == index:
                _, weight = mixes.popleft()
                mixed = waiting.popleft() * np.float32(1 - weight) + frame * np.float32(weight)
                yield np.rint(mixed).astype(np.uint8)
            if index >= self.num_faded:
                yield frame


def join_into_folder(folder: Path, joint: Joint, coding: VideoCoding, metadata: dict[str, object]) -> Path:
    """Write the joined video into `folder` under a name of its own, with a manifest of its clips, and return its path.

    Raises:
        ValueError, OSError: as :func:`write_joint`, or another process uses the folder.
    """
    facts = [(p.source.key, p.trim_start, p.trim_end) for p in (joint.first, joint.second)]
    path = folder / f"video-{fingerprint(facts, joint.seam, joint.overlap, coding.tag)[:12]}.mp4"
    clips = [*clips_of_video(joint.first.source, joint.first.trim_start, joint.first.trim_end)]
    clips += clips_of_video(joint.second.source, joint.second.trim_start + joint.num_faded, joint.second.trim_end)
    with RunStore(folder) as store:
        write_joint(path, joint, coding, metadata)
        store.write_manifest(clips, path.name, is_final=True)
    return path


def write_joint(path: Path, joint: Joint, coding: VideoCoding, metadata: dict[str, object]) -> bool:
    """Write the joined video to `path`; return whether it is a stream copy.

    Raises:
        ValueError: the videos need encoding, and have colours that cannot be converted or an odd size.
        OSError: a file cannot be read or written.
    """
    all_in_memory = all(piece.source.exact for piece in (joint.first, joint.second))  # then `coding` is their first one
    if joint.is_plain and not all_in_memory and _try_copy(path, joint, metadata):
        return True
    joint.require_encodable()
    first = joint.first.source
    if (first.width % 2 or first.height % 2) and coding.pixel_format != "yuv444p":
        raise ValueError(
            f"{first.path.name} has {first.width} x {first.height} pixels, but {coding.pixel_format} takes even sizes only: "
            "choose yuv444p in SVI Output, or crop both videos."
        )
    coding = replace(coding, frame_rate=first.frame_rate, colours=joint.colours)
    silent, timed = (path.with_name(f"{path.stem}-{name}{STAGING_MARK}.mp4") for name in ("frames", "timed"))
    try:
        write_video(silent, (frame[None] for frame in joint.frames()), coding)
        if max(abs(time - index / coding.frame_rate) for index, time in enumerate(joint.times)) > TIME_ERROR:
            retime(silent, timed, joint.times)
            timed.replace(silent)
        _join_with_sound(path, [silent], [], joint, metadata)
    finally:
        silent.unlink(missing_ok=True)
        timed.unlink(missing_ok=True)
    return False


def _try_copy(path: Path, joint: Joint, metadata: dict[str, object]) -> bool:
    """Join by stream copy; return False, and leave no file, if that would change a frame or its time."""
    sources = [joint.first.source, joint.second.source]
    if len({(source.codec, source.pixel_format) for source in sources}) > 1:
        return False
    if not sources[0].colours.shown_like(sources[1].colours):
        return False
    parts = [path.with_name(f"{path.stem}-part{number}{STAGING_MARK}.mp4") for number in (1, 2)]
    try:
        for source, part in zip(sources, parts, strict=True):
            copy_to_timescale(source.path, part)
        _join_with_sound(path, parts, [joint.first.seconds + joint.second.late], joint, metadata)
        require_shown(path, [digest for source in sources for digest in frame_hashes(source.path)], joint.times[:-1])
        return True
    except OSError as error:
        _log.info("SVI: %s cannot be joined by copying (%s); encoding it instead.", path.name, error)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    return False


def _join_with_sound(path: Path, files: list[Path], lengths: list[float], joint: Joint, metadata: dict[str, object]) -> None:
    late = joint.first.late
    if joint.first.source.sound_codec is None and joint.second.source.sound_codec is None:
        join_videos(path, files, joint.num_frames, metadata, None, lengths, late)
        return
    sound = path.with_name(f"{path.stem}-sound{STAGING_MARK}.m4a")
    try:
        seconds = _write_sound(sound, joint)
        join_videos(path, files, joint.num_frames, metadata, Sound(sound, "aac", seconds), lengths, late)
    finally:
        sound.unlink(missing_ok=True)


def _write_sound(path: Path, joint: Joint) -> float:
    """Write the sound of both pieces as AAC, with silence for a piece without sound; return its seconds."""
    inputs, filters, total = list[object](), list[str](), 0.0
    for index, piece in enumerate((joint.first, joint.second)):
        begin = piece.source.shown.times[piece.trim_start] - piece.late
        if index == 1 and joint.overlap:  # the cross-fade has the sound of the first piece
            begin += piece.late + joint.fade_seconds
        seconds, sound = piece.end - begin, piece.source.sound(piece.source.num_frames)
        inputs += ["-f", "lavfi", "-i", "anullsrc=r=48000:cl=stereo"] if sound is None else sound.input
        filters.append(heard_until(piece.end, f"{index}:a:0", f"h{index}"))
        filters.append(f"[h{index}]atrim=start={begin:.6f},asetpts=PTS-STARTPTS[s{index}]")
        total += seconds
    graph = ";".join(filters) + ";[s0][s1]concat=n=2:v=0:a=1[out]"
    with staged(path) as staging:
        run_ffmpeg(staging, [*inputs, "-filter_complex", graph, "-map", "[out]", "-c:a", "aac", "-b:a", "192k"], path)
    return total
