"""Join two finished videos, with optional trims and a cross-fade.

Whole videos of one codec that meet in a plain cut are joined by stream copy, and every decoded frame is compared. All others
are encoded again, frame by frame, in constant memory.
"""

import logging
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from ..files.atomic_file import STAGING_MARK, staged
from ..files.fingerprint import fingerprint, large_file_fingerprint
from ..store.run_store import RunStore
from ..video.colour_tags import BT709, RGB, Colours, require_convertible, with_primaries
from ..video.ffmpeg import run_ffmpeg
from ..video.seams import Seam, blend_weights
from ..video.source_video import SourceVideo, copy_to_timescale, video_seconds
from ..video.video_file import Sound, VideoCoding, frame_hashes, join_videos, read_frames, write_video
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
    def is_whole(self) -> bool:
        """Whether nothing is cut off."""
        return self.trim_start == self.trim_end == 0

    def frames(self, colours: Colours) -> Iterator[np.ndarray]:
        """Yield its frames [H, W, 3] uint8, with the primaries of `colours`."""
        for index, frame in enumerate(read_frames(self.source.path)):
            if self.trim_start <= index < self.trim_start + self.num_frames:
                yield with_primaries(frame, self.source.colours, colours)


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
        if not 0 <= self.num_blended <= min(self.first.num_frames, self.second.num_frames):
            raise ValueError(
                f"blend_frames is {self.num_blended}, but the pieces have {self.first.num_frames} and {self.second.num_frames} "
                "frames: use fewer."
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
    def num_frames(self) -> int:
        """Frames of the joined video."""
        return self.first.num_frames + self.second.num_frames - self.overlap

    @property
    def overlap(self) -> int:
        """Frames that both pieces share in the joined video."""
        return 0 if self.seam is Seam.DROP else self.num_blended

    def frames(self) -> Iterator[np.ndarray]:
        """Yield the joined frames [H, W, 3] uint8 in order; no more than a cross-fade is in memory."""
        waiting: deque[np.ndarray] = deque()
        for frame in self.first.frames(self.colours):
            waiting.append(frame)
            if len(waiting) > self.overlap:
                yield waiting.popleft()
        weights = list(map(float, blend_weights(self.seam, self.overlap)))
        for index, frame in enumerate(self.second.frames(self.colours)):
            if index < self.overlap:
                mixed = waiting.popleft() * np.float32(1 - weights[index]) + frame * np.float32(weights[index])
                frame = np.rint(mixed).astype(np.uint8)
            yield frame


def join_into_folder(folder: Path, joint: Joint, coding: VideoCoding, metadata: dict[str, object]) -> Path:
    """Write the joined video into `folder` under a name of its own, with a manifest of its clips, and return its path.

    Raises:
        ValueError, OSError: as :func:`write_joint`, or another process uses the folder.
    """
    facts = [(large_file_fingerprint(p.source.path), p.trim_start, p.trim_end) for p in (joint.first, joint.second)]
    path = folder / f"video-{fingerprint(facts, joint.seam, joint.overlap, coding.tag)[:12]}.mp4"
    clips = [*clips_of_video(joint.first.source, joint.first.trim_start, joint.first.trim_end)]
    clips += clips_of_video(joint.second.source, joint.second.trim_start + joint.overlap, joint.second.trim_end)
    with RunStore(folder) as store:
        write_joint(path, joint, coding, metadata)
        store.write_manifest(clips, path.name, is_final=True)
    return path


def write_joint(path: Path, joint: Joint, coding: VideoCoding, metadata: dict[str, object]) -> bool:
    """Write the joined video to `path`; return whether it is a stream copy.

    Raises:
        ValueError: the videos need encoding, and differ in frame rate, have colours that cannot be converted or an odd size.
        OSError: a file cannot be read or written.
    """
    if joint.is_plain and _try_copy(path, joint, metadata):
        return True
    joint.require_encodable()
    first, second = joint.first.source, joint.second.source
    if abs(first.frame_rate - second.frame_rate) > 0.01 * first.frame_rate:
        raise ValueError(
            f"{first.path.name} has {first.frame_rate:g} frames per second and {second.path.name} {second.frame_rate:g}: "
            "convert one of them, or join them whole and without a blend."
        )
    if (first.width % 2 or first.height % 2) and coding.pixel_format != "yuv444p":
        raise ValueError(
            f"{first.path.name} has {first.width} x {first.height} pixels, but {coding.pixel_format} takes even sizes only: "
            "choose yuv444p in SVI Output, or crop both videos."
        )
    coding = replace(coding, frame_rate=first.frame_rate, colours=joint.colours)
    silent = path.with_name(f"{path.stem}-frames{STAGING_MARK}.mp4")
    try:
        write_video(silent, (frame[None] for frame in joint.frames()), coding)
        _join_with_sound(path, [silent], joint, metadata)
    finally:
        silent.unlink(missing_ok=True)
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
        _join_with_sound(path, parts, joint, metadata)
        wanted = [digest for source in sources for digest in frame_hashes(source.path)]
        seconds = sum(source.num_frames / source.frame_rate for source in sources)
        if frame_hashes(path) == wanted and abs(video_seconds(path) - seconds) < 0.6 / max(s.frame_rate for s in sources):
            return True
    except OSError as error:
        _log.info("SVI: %s cannot be joined by copying (%s); encoding it instead.", path.name, error)
    finally:
        for part in parts:
            part.unlink(missing_ok=True)
    path.unlink(missing_ok=True)
    return False


def _join_with_sound(path: Path, files: list[Path], joint: Joint, metadata: dict[str, object]) -> None:
    if joint.first.source.sound_codec is None and joint.second.source.sound_codec is None:
        join_videos(path, files, joint.num_frames, metadata)
        return
    sound = path.with_name(f"{path.stem}-sound{STAGING_MARK}.m4a")
    try:
        seconds = _write_sound(sound, joint)
        join_videos(path, files, joint.num_frames, metadata, Sound(sound, "aac", seconds))
    finally:
        sound.unlink(missing_ok=True)


def _write_sound(path: Path, joint: Joint) -> float:
    """Write the sound of both pieces as AAC, with silence for a piece without sound; return its seconds."""
    inputs, filters, total = list[object](), list[str](), 0.0
    for index, piece in enumerate((joint.first, joint.second)):
        rate = piece.source.frame_rate
        frames = piece.num_frames - (joint.overlap if index == 1 else 0)  # the cross-fade has the sound of the first piece
        begin, seconds = (piece.trim_start + piece.num_frames - frames) / rate, frames / rate
        silent = piece.source.sound_codec is None
        inputs += ["-f", "lavfi", "-i", "anullsrc=r=48000:cl=stereo"] if silent else ["-i", piece.source.path]
        filters.append(
            f"[{index}:a:0]aresample=48000,aformat=channel_layouts=stereo,atrim=start={0 if silent else begin:.6f},"
            f"asetpts=PTS-STARTPTS,apad=whole_dur={seconds:.6f},atrim=end={seconds:.6f}[s{index}]"
        )
        total += seconds
    graph = ";".join(filters) + ";[s0][s1]concat=n=2:v=0:a=1[out]"
    with staged(path) as staging:
        run_ffmpeg(staging, [*inputs, "-filter_complex", graph, "-map", "[out]", "-c:a", "aac", "-b:a", "192k"], path)
    return total
