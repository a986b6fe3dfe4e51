"""Write frames to video files, one per clip, join them without re-encoding, and read frames back.

A file gets its final name only after its frames have been counted, so a file under its final name is complete. A crash
loses at most the segment being written (a streaming mp4 would lose all its frames, a fragmented one can truncate silently).
"""

import hashlib
import itertools
import json
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ..files.atomic_file import staged
from ..geometry import FRAME_RATE
from .colour_tags import Colours
from .ffmpeg import ffmpeg_reading, ffmpeg_writing, run_ffmpeg
from .frame_times import TIMESCALE, count_frames

CODECS = {"h264": "libx264", "h265": "libx265"}
_MP4_SOUND = ("aac", "mp3", "ac3", "eac3", "opus", "alac")
PIXEL_FORMATS = ("yuv420p", "yuv444p", "yuv420p10le")


@dataclass(frozen=True)
class VideoCoding:
    """How frames are encoded.

    Attributes:
        codec: "h264" or "h265".
        crf: constant rate factor, 0 (best, very large) to 51; 18 shows no loss.
        pixel_format: "yuv420p" plays everywhere (with crf above 0); the others need newer players.
        frame_rate: frames per second.
        colours: of the conversion to luma and chroma, as the file declares them.
    """

    codec: str = "h264"
    crf: int = 18
    pixel_format: str = "yuv420p"
    frame_rate: float = FRAME_RATE
    colours: Colours = Colours()

    def __post_init__(self):
        if self.codec not in CODECS:
            raise ValueError(f"codec is {self.codec!r}: use one of {', '.join(CODECS)}.")
        if self.pixel_format not in PIXEL_FORMATS:
            raise ValueError(f"pixel_format is {self.pixel_format!r}: use one of {', '.join(PIXEL_FORMATS)}.")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf is {self.crf}: use 0 (best) to 51, 18 by default.")

    @property
    def tag(self) -> str:
        """A short name, different for every coding."""
        rate = "" if self.frame_rate == FRAME_RATE else f"-{self.frame_rate:g}fps"
        return f"{self.codec}-{self.pixel_format}-crf{self.crf}{self.colours.tag}{rate}"


@dataclass(frozen=True)
class Sound:
    """The sound of a video.

    Attributes:
        path: a sound or video file.
        codec: ffmpeg's name for the codec of its first sound stream; copied if an mp4 can hold it, else encoded as AAC.
        seconds: how much of it to play.
        late: seconds to wait before it, beyond the times that ffmpeg reads in its file.
    """

    path: Path
    codec: str
    seconds: float
    late: float = 0.0

    @property
    def input(self) -> tuple[object, ...]:
        """The arguments with which ffmpeg reads it, whole and at its time."""
        return (*(("-itsoffset", f"{self.late:.6f}") if self.late else ()), "-i", self.path)


@dataclass(frozen=True)
class WrittenFrames:
    """The frames that were written to a file: their number and the sha256 of their uint8 RGB bytes in order."""

    num_frames: int
    sha256: str


def to_uint8(frames: torch.Tensor) -> np.ndarray:
    """Return `frames` [T, H, W, 3] in [0, 1] as uint8 on the CPU, rounded to nearest before they leave the device."""
    return frames.mul(255.0).round_().clamp_(0.0, 255.0).to(torch.uint8).cpu().numpy()


def write_video(path: Path, chunks: Iterable[np.ndarray], coding: VideoCoding) -> WrittenFrames:
    """Encode `chunks` of frames, each [t, H, W, 3] uint8 with even H and W, into the finished file `path`.

    Raises:
        OSError: ffmpeg failed, or the file holds another number of frames than it got (on a full disk, say); `path` is
            left as it was.
        ValueError: there is no frame.
    """
    chunks = (np.ascontiguousarray(chunk) for chunk in chunks if len(chunk))
    first = next(chunks, None)
    if first is None:
        raise ValueError(f"{path} got no frames to encode.")
    digest, num_frames = hashlib.sha256(), 0
    with staged(path) as staging:
        with ffmpeg_writing(staging, _encode_arguments(first.shape[2], first.shape[1], coding), path) as write:
            for chunk in itertools.chain([first], chunks):
                write(chunk.data)
                digest.update(chunk.data)
                num_frames += len(chunk)
        _require_frames(staging, num_frames, path, decode=True)
    return WrittenFrames(num_frames, digest.hexdigest())


def join_videos(
    path: Path,
    segments: Iterable[Path],
    num_frames: int,
    metadata: Mapping[str, object] | None = None,
    sound: Sound | None = None,
    lengths: Sequence[float] = (),
    late: float = 0.0,
) -> None:
    """Join files of equal size and codec into `path` by stream copy.

    Args:
        segments: the files in order.
        num_frames: of the join as it is shown, checked.
        metadata: header entries; values other than text are stored as JSON. ComfyUI restores a graph from "workflow".
        sound: to play from the beginning.
        lengths: of the first segments, seconds from their first frame to that of the next; the others last as they say.
        late: seconds from the beginning to the first frame.

    Raises:
        OSError: ffmpeg failed or frames are missing; `path` is left as it was.
    """
    entries = {key: value if isinstance(value, str) else json.dumps(value) for key, value in (metadata or {}).items()}
    with staged(path) as staging:
        listing, header = staging.with_suffix(".txt"), staging.with_suffix(".ffmeta")
        try:
            listing.write_text(_listing(segments, lengths), encoding="utf-8")
            header.write_text(_ffmetadata(entries), encoding="utf-8")
            run_ffmpeg(staging, _join_arguments(listing, header, sound, late), path)
        finally:
            listing.unlink(missing_ok=True)
            header.unlink(missing_ok=True)
        _require_frames(staging, num_frames, path)


def read_frames(path: Path, last_seconds: float | None = None) -> Generator[np.ndarray]:
    """Yield the frames [H, W, 3] uint8 of a video file in order, each once whatever its duration.

    ffmpeg converts them to RGB, since PyAV's pixels of 10-bit videos differ: clip keys depend on every bit.

    Args:
        last_seconds: begin this many seconds before the end, or a few frames earlier.

    Raises:
        OSError: `path` is not a video that can be read.
    """
    seek = [] if last_seconds is None else ["-sseof", f"-{last_seconds:.3f}"]
    arguments = ["-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-c:v", "ppm", "-f", "image2pipe"]
    with ffmpeg_reading(path, arguments, seek) as pictures:
        while pictures.readline():  # a PPM picture: "P6", "width height", "255", then the pixels
            width, height = map(int, pictures.readline().split())
            pictures.readline()
            pixels = pictures.read(height * width * 3)
            if len(pixels) == height * width * 3:  # else ffmpeg has failed
                yield np.frombuffer(pixels, np.uint8).reshape(height, width, 3)


def _encode_arguments(width: int, height: int, coding: VideoCoding) -> list[str]:
    """Return ffmpeg's arguments: raw RGB on standard input to video without B-frames, which joins frame-exactly."""
    return [
        "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(coding.frame_rate), "-i", "-",
        "-vf", coding.colours.encode_filter, "-c:v", CODECS[coding.codec], "-preset", "medium",
        "-crf", str(coding.crf), "-pix_fmt", coding.pixel_format, "-bf", "0",
        *(["-x265-params", "log-level=error:bframes=0", "-tag:v", "hvc1"] if coding.codec == "h265" else []),
        "-video_track_timescale", TIMESCALE, "-movflags", "+faststart",
    ]  # fmt: skip


def _listing(segments: Iterable[Path], lengths: Sequence[float]) -> str:
    """Return ffmpeg's concat list of `segments`, the first of which have `lengths` in seconds."""
    lines = [f"file {_quoted(segment)}\n" for segment in segments]
    return "".join(
        line + (f"duration {length:.6f}\n" if length else "") for line, length in itertools.zip_longest(lines, lengths)
    )


def _join_arguments(listing: Path, header: Path, sound: Sound | None, late: float) -> list[object]:
    """Return ffmpeg's arguments: the listed files one after the other, packets copied, with the header's metadata."""
    return [
        *(["-itsoffset", f"{late:.6f}"] if late else []), "-f", "concat", "-safe", "0", "-i", listing,
        "-f", "ffmetadata", "-i", header,
        *(["-t", f"{sound.seconds:.6f}", *sound.input] if sound else []),
        "-map", "0:v", *(["-map", "2:a:0"] if sound else []), "-map_metadata", "1", "-c:v", "copy",
        *(["-c:a", "copy" if sound.codec in _MP4_SOUND else "aac"] if sound else []), "-video_track_timescale", TIMESCALE,
        "-movflags", "+faststart+use_metadata_tags",
    ]  # fmt: skip


def _require_frames(staging: Path, num_frames: int, final: Path, decode: bool = False) -> None:
    found = count_frames(staging, decode)
    if found != num_frames:
        raise OSError(f"{final} holds {found} frames instead of {num_frames}: the disk may be full. Free space and run again.")


def _quoted(path: Path) -> str:
    """Return `path` in the quoting of ffmpeg's concat list."""
    return "'" + str(path.resolve()).replace("'", "'\\''") + "'"


def _ffmetadata(entries: Mapping[str, str]) -> str:
    """Return `entries` in ffmpeg's metadata file format."""

    def escaped(text: str) -> str:
        return "".join("\\" + c if c in "=;#\\\n" else c for c in text)

    return ";FFMETADATA1\n" + "".join(f"{escaped(key)}={escaped(value)}\n" for key, value in entries.items())
