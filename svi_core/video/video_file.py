"""Frames to finished video files: one file per clip, and their join without re-encoding.

Each file is moved into place only after its frames were counted back, so a file under its final name is whole; a crash
loses at most the clip in work (a streaming mp4 would lose all its frames, a fragmented one can truncate silently).
"""

import hashlib
import json
import queue
import re
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import torch

from ..files.atomic_file import staged
from ..geometry import FRAME_RATE

_TIMESCALE = 90_000  # divisible by every usual frame rate, so that joined clips keep exact frame times
_QUEUED_CHUNKS = 4  # chunks of about 8 frames that wait for the encoder at most
NO_WINDOW = {"creationflags": getattr(subprocess, "CREATE_NO_WINDOW", 0)}  # Windows would open a console for each call
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
        matrix: how colours become luma and chroma, and what the file says of it: "bt709", "bt601", or "unspecified" (BT.601
            without saying so, as files that carry no such mark are read).
        full_range: luma 0 .. 255 instead of 16 .. 235.
    """

    codec: str = "h264"
    crf: int = 18
    pixel_format: str = "yuv420p"
    frame_rate: float = FRAME_RATE
    matrix: str = "bt709"
    full_range: bool = False

    def __post_init__(self):
        if self.codec not in CODECS:
            raise ValueError(f"codec is {self.codec!r}: use one of {', '.join(CODECS)}.")
        if self.pixel_format not in PIXEL_FORMATS:
            raise ValueError(f"pixel_format is {self.pixel_format!r}: use one of {', '.join(PIXEL_FORMATS)}.")
        if not 0 <= self.crf <= 51:
            raise ValueError(f"crf is {self.crf}: use 0 (best) to 51, 18 by default.")

    @property
    def tag(self) -> str:
        """A short name that tells files of different codings apart."""
        colours = "" if self.matrix == "bt709" else f"-{self.matrix}"
        rate = "" if self.frame_rate == FRAME_RATE else f"-{self.frame_rate:g}fps"
        return f"{self.codec}-{self.pixel_format}-crf{self.crf}{colours}{'-full' if self.full_range else ''}{rate}"


@dataclass(frozen=True)
class Sound:
    """The sound of a video.

    Attributes:
        path: a sound or video file.
        codec: ffmpeg's name of its first sound stream's codec; copied where an mp4 can hold it, else encoded as AAC.
        seconds: how much of it is heard.
    """

    path: Path
    codec: str
    seconds: float


@dataclass(frozen=True)
class WrittenFrames:
    """What went into a file: the number of frames and the sha256 of their uint8 RGB bytes in order."""

    num_frames: int
    sha256: str


def to_uint8(frames: torch.Tensor) -> np.ndarray:
    """Return `frames` [T, H, W, 3] in [0, 1] as uint8 on the CPU, rounded to nearest before they leave the device."""
    return frames.mul(255.0).round_().clamp_(0.0, 255.0).to(torch.uint8).cpu().numpy()


def write_video(path: Path, chunks: Iterable[np.ndarray], coding: VideoCoding) -> WrittenFrames:
    """Encode `chunks` of frames, each [t, H, W, 3] uint8 with even H and W, into the finished file `path`.

    Frames are encoded in a thread with a short queue, while `chunks` makes the next ones.

    Raises:
        OSError: ffmpeg failed or the file holds other than the frames it got (a full disk, say); `path` is left as it was.
    """
    with staged(path) as staging:
        encoder = _FrameEncoder(staging, coding)
        try:
            for chunk in chunks:
                encoder.put(chunk)
            written = encoder.finish()
        finally:
            encoder.abandon()
        _require_frames(staging, written.num_frames, path, decode=True)
    return written


def join_videos(
    path: Path,
    segments: Iterable[Path],
    num_frames: int,
    metadata: Mapping[str, object] | None = None,
    sound: Sound | None = None,
) -> None:
    """Join files of equal size and codec into `path` by stream copy.

    Args:
        segments: the files in order.
        num_frames: frames that the join must hold.
        metadata: header entries; values other than text are stored as JSON. ComfyUI restores a graph from "workflow".
        sound: what is heard from the beginning on.

    Raises:
        OSError: ffmpeg failed or frames are missing; `path` is left as it was.
    """
    entries = {key: value if isinstance(value, str) else json.dumps(value) for key, value in (metadata or {}).items()}
    with staged(path) as staging:
        listing, header = staging.with_suffix(".txt"), staging.with_suffix(".ffmeta")
        try:
            listing.write_text("".join(f"file {_quoted(segment)}\n" for segment in segments), encoding="utf-8")
            header.write_text(_ffmetadata(entries), encoding="utf-8")
            done = subprocess.run(_join_command(staging, listing, header, sound), capture_output=True, check=False, **NO_WINDOW)
        finally:
            listing.unlink(missing_ok=True)
            header.unlink(missing_ok=True)
        if done.returncode:
            raise OSError(f"ffmpeg could not write {path} ({_last_line(done.stderr)}): check free space and permissions.")
        _require_frames(staging, num_frames, path)


def count_frames(path: Path, decode: bool = False) -> int:
    """Return the number of frames in `path`: of its packets, or with `decode` of what really comes out of them.

    Raises:
        OSError: `path` is not a video that can be read.
    """
    coding = [] if decode else ["-c", "copy"]
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-i", str(path),
        "-map", "0:v:0", *coding, "-fps_mode", "passthrough", "-f", "framecrc", "-",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=False, **NO_WINDOW)
    count = len(re.findall(rb"^\d", done.stdout, re.MULTILINE))  # a line for each; ffmpeg 7.0 does not count what it copies
    if done.returncode or not count:
        raise OSError(f"{path} cannot be read back as a video: the disk may be full. Free space and run again.")
    return count


def read_frames(path: Path, last_seconds: float | None = None) -> Iterator[np.ndarray]:
    """Yield the frames [H, W, 3] uint8 of a video file in order, one at a time, each once whatever its duration.

    Args:
        last_seconds: begin at most a few frames before so many seconds before the end.

    Raises:
        OSError: `path` is not a video that can be read.
    """
    seek = [] if last_seconds is None else ["-sseof", f"-{last_seconds:.3f}"]
    reader = imageio_ffmpeg.read_frames(
        str(path), pix_fmt="rgb24", input_params=seek, output_params=["-fps_mode", "passthrough"]
    )
    try:
        width, height = next(reader)["size"]
        for frame in reader:
            yield np.frombuffer(frame, np.uint8).reshape(height, width, 3)
    except (RuntimeError, OSError, StopIteration) as error:
        raise OSError(f"{path} is not a video that can be read ({error}): choose another file.") from error


class _FrameEncoder:
    """One ffmpeg process, fed by one thread from a bounded queue."""

    def __init__(self, path: Path, coding: VideoCoding):
        self._path = path
        self._coding = coding
        self._chunks: queue.Queue[np.ndarray | None] = queue.Queue(_QUEUED_CHUNKS)
        self._process: subprocess.Popen | None = None
        self._digest = hashlib.sha256()
        self._num_frames = 0
        self._failed = threading.Event()
        self._thread = threading.Thread(target=self._feed, name="svi-video-encoder", daemon=True)
        self._messages = tempfile.TemporaryFile()  # a pipe that nobody reads could fill up and block ffmpeg

    def put(self, chunk: np.ndarray) -> None:
        """Queue frames [t, H, W, 3]; waits while the encoder is behind."""
        if len(chunk) == 0:
            return
        if self._process is None:
            self._start(chunk.shape[1], chunk.shape[2])
        self._enqueue(chunk)

    def finish(self) -> WrittenFrames:
        """Wait until all frames are encoded.

        Raises:
            OSError: ffmpeg failed.
            ValueError: there was no frame.
        """
        if self._process is None:
            raise ValueError(f"{self._path} got no frames to encode.")
        self._enqueue(None)
        self._thread.join()
        if self._process.wait() or self._failed.is_set():
            self._raise_failure()
        return WrittenFrames(self._num_frames, self._digest.hexdigest())

    def abandon(self) -> None:
        """Stop the process if it still runs. Harmless after :meth:`finish`."""
        if self._process is not None:
            self._failed.set()
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()
            self._thread.join()
        self._messages.close()

    def _start(self, height: int, width: int) -> None:
        self._process = subprocess.Popen(
            _encode_command(self._path, width, height, self._coding),
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._messages, **NO_WINDOW,
        )  # fmt: skip
        self._thread.start()

    def _enqueue(self, chunk: np.ndarray | None) -> None:
        """Queue a chunk, or None for the end; never waits for an encoder that is gone."""
        while not self._failed.is_set():
            try:
                self._chunks.put(chunk, timeout=0.2)
                return
            except queue.Full:
                continue
        self._raise_failure()

    def _feed(self) -> None:
        try:
            while not self._failed.is_set():
                try:
                    chunk = self._chunks.get(timeout=0.2)
                except queue.Empty:
                    continue
                if chunk is None:
                    break
                data = np.ascontiguousarray(chunk).data
                self._process.stdin.write(data)
                self._digest.update(data)
                self._num_frames += len(chunk)
            self._process.stdin.close()
        except OSError:
            self._failed.set()  # ffmpeg went away; its own message says why
        except BaseException:
            self._failed.set()
            raise

    def _raise_failure(self) -> None:
        self._process.wait()
        self._messages.seek(0)
        reason = _last_line(self._messages.read())
        raise OSError(f"ffmpeg could not write {self._path.parent} ({reason}): check free space and permissions of the folder.")


def _encode_command(path: Path, width: int, height: int, coding: VideoCoding) -> list[str]:
    """Return ffmpeg's arguments: raw RGB on standard input to BT.709 video without B-frames, which joins frame-exactly."""
    return [
        imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-loglevel", "error",
        "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(coding.frame_rate), "-i", "-",
        "-vf", _colour_filter(coding), "-c:v", CODECS[coding.codec], "-preset", "medium",
        "-crf", str(coding.crf), "-pix_fmt", coding.pixel_format, "-bf", "0",
        *(["-x265-params", "log-level=error:bframes=0", "-tag:v", "hvc1"] if coding.codec == "h265" else []),
        "-video_track_timescale", str(_TIMESCALE), "-movflags", "+faststart", str(path),
    ]  # fmt: skip


def _colour_filter(coding: VideoCoding) -> str:
    """Return the ffmpeg filter that turns RGB into the coding's luma and chroma and marks the frames accordingly."""
    matrix, mark = {"bt709": ("bt709", "bt709"), "bt601": ("bt601", "smpte170m")}.get(coding.matrix, ("bt601", "unknown"))
    extent = "pc" if coding.full_range else "tv"
    return (
        f"scale=out_color_matrix={matrix}:out_range={extent},"
        f"setparams=range={extent}:colorspace={mark}:color_primaries={mark}:color_trc={mark}"
    )


def _join_command(path: Path, listing: Path, header: Path, sound: Sound | None) -> list[str]:
    """Return ffmpeg's arguments: the listed files one after the other, packets copied, with the header's metadata."""
    return [
        imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-nostdin", "-loglevel", "error",
        "-f", "concat", "-safe", "0", "-i", str(listing), "-f", "ffmetadata", "-i", str(header),
        *(["-t", f"{sound.seconds:.6f}", "-i", str(sound.path)] if sound else []),
        "-map", "0:v", *(["-map", "2:a:0"] if sound else []), "-map_metadata", "1", "-c:v", "copy",
        *(["-c:a", "copy" if sound.codec in _MP4_SOUND else "aac"] if sound else []), "-video_track_timescale", str(_TIMESCALE),
        "-movflags", "+faststart+use_metadata_tags", str(path),
    ]  # fmt: skip


def _require_frames(staging: Path, num_frames: int, final: Path, decode: bool = False) -> None:
    found = count_frames(staging, decode)
    if found != num_frames:
        raise OSError(f"{final} holds {found} frames instead of {num_frames}: the disk may be full. Free space and run again.")


def _last_line(message: bytes) -> str:
    return (message.decode(errors="replace").strip().splitlines() or ["no message"])[-1]


def _quoted(path: Path) -> str:
    """Return `path` in the quoting of ffmpeg's concat list."""
    return "'" + str(path.resolve()).replace("'", "'\\''") + "'"


def _ffmetadata(entries: Mapping[str, str]) -> str:
    """Return `entries` in ffmpeg's metadata file format."""

    def escaped(text: str) -> str:
        return "".join("\\" + c if c in "=;#\\\n" else c for c in text)

    return ";FFMETADATA1\n" + "".join(f"{escaped(key)}={escaped(value)}\n" for key, value in entries.items())
