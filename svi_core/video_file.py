"""A video that grows clip by clip and is playable at every moment.

Each clip's new frames become one finished file, moved into place only after its frames were counted back; the video is
their stream-copy join, without re-encoding. So a crash loses at most the clip in work (a streaming mp4 would lose all).
"""

import os
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import imageio_ffmpeg
import numpy as np
import torch

from .geometry import FRAME_RATE

MAX_NAME_LENGTH = 120
_TIMESCALE = 90_000  # divisible by every usual frame rate, so that joined clips keep exact frame times


def check_output_prefix(prefix: str) -> PurePosixPath:
    """Return `prefix` as a relative path that stays inside the output folder on every system.

    Raises:
        ValueError: empty, absolute, containing ``..``, a backslash, a colon or control characters, or too long.
    """
    path = PurePosixPath(prefix)
    bad = next((part for part in path.parts if part in ("..", "~") or len(part.encode()) > MAX_NAME_LENGTH), None)
    if not prefix.strip() or not path.parts or path.is_absolute() or bad or re.search(r'[\\:*?"<>|\x00-\x1f]', prefix):
        raise ValueError(
            f"filename_prefix is {prefix!r}: use a relative name such as 'svi/story', without '..', backslashes, ':' or "
            f"other special characters, each part at most {MAX_NAME_LENGTH} bytes."
        )
    return path


def new_run_folder(output_root: Path, prefix: str) -> Path:
    """Create and return the next free ``<output_root>/<prefix>_00001`` folder; two callers never get the same one.

    Raises:
        ValueError: a prefix that :func:`check_output_prefix` refuses, or a symlink that leads out of `output_root`.
        OSError: the folder cannot be created.
    """
    wanted = output_root / check_output_prefix(prefix)
    if not wanted.parent.resolve().is_relative_to(output_root.resolve()):
        raise ValueError(f"filename_prefix {prefix!r} leads out of the output folder {output_root}: choose another.")
    wanted.parent.mkdir(parents=True, exist_ok=True)
    taken = [int(m[1]) for p in wanted.parent.iterdir() if (m := re.fullmatch(re.escape(wanted.name) + r"_(\d{5,})", p.name))]
    number = max(taken, default=0) + 1
    while True:
        folder = wanted.with_name(f"{wanted.name}_{number:05d}")
        try:
            folder.mkdir()
            return folder
        except FileExistsError:
            number += 1


def to_uint8(frames: torch.Tensor) -> np.ndarray:
    """Return `frames` [T, H, W, 3] in [0, 1] as uint8 on the CPU, rounded to nearest; converted before they leave the GPU."""
    return frames.mul(255.0).round_().clamp_(0.0, 255.0).to(torch.uint8).cpu().numpy()


class GrowingVideo:
    """Clips on disk under one folder and their join ``video.mp4``."""

    def __init__(self, folder: Path, frame_rate: int = FRAME_RATE, crf: int = 18):
        self.folder = folder
        self.frame_rate = frame_rate
        self.crf = crf
        self.segments: list[Path] = []
        self.num_frames = 0

    @property
    def path(self) -> Path:
        """The joined video of all clips so far."""
        return self.folder / "video.mp4"

    def append(self, frames: np.ndarray) -> Path:
        """Encode `frames` [T, H, W, 3] uint8 as the next clip, then refresh the join. Returns the clip's file.

        Raises:
            OSError: the encoder failed (a full disk, say); the video of the clips before is left as it was.
        """
        segment = self.folder / f"clip_{len(self.segments) + 1:04d}.mp4"
        staging = segment.with_suffix(".tmp.mp4")
        try:
            encode_h264(staging, frames, self.frame_rate, self.crf)
            _move_into_place(staging, segment, len(frames))
        finally:
            staging.unlink(missing_ok=True)
        self.segments.append(segment)
        self.num_frames += len(frames)
        self._join()
        return segment

    def _join(self) -> None:
        staging, listing = self.path.with_suffix(".tmp.mp4"), self.folder / "join.txt"
        try:
            join_by_copy(staging, self.segments, listing)
            _move_into_place(staging, self.path, self.num_frames)
        finally:
            staging.unlink(missing_ok=True)
            listing.unlink(missing_ok=True)


def encode_h264(path: Path, frames: np.ndarray, frame_rate: int, crf: int) -> None:
    """Write `frames` [T, H, W, 3] uint8 (even height and width) as an H.264 mp4, yuv420p, BT.709.

    Raises:
        OSError: ffmpeg could not write the file.
    """
    height, width = frames.shape[1:3]
    colour = ["-vf", "scale=out_color_matrix=bt709:out_range=tv", "-color_primaries", "bt709", "-color_trc", "bt709"]
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-nostdin", "-loglevel", "error",
        "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(frame_rate), "-i", "-",
        *colour, "-colorspace", "bt709", "-color_range", "tv",
        "-c:v", "libx264", "-preset", "medium", "-crf", str(crf), "-pix_fmt", "yuv420p", "-bf", "0",
        "-video_track_timescale", str(_TIMESCALE), "-movflags", "+faststart", str(path),
    ]  # fmt: skip
    _run(command, path, np.ascontiguousarray(frames).data)


def join_by_copy(path: Path, segments: Iterable[Path], listing: Path) -> None:
    """Join mp4 files of equal size and coding into `path` without re-encoding.

    Args:
        listing: where ffmpeg's list of inputs is written, beside the segments: names in it are relative.

    Raises:
        OSError: ffmpeg could not write the file.
    """
    listing.write_text("".join(f"file '{segment.name}'\n" for segment in segments), encoding="utf-8")
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-nostdin", "-loglevel", "error", "-f", "concat", "-i", str(listing),
        "-c", "copy", "-video_track_timescale", str(_TIMESCALE), "-movflags", "+faststart", str(path),
    ]  # fmt: skip
    _run(command, path, None)


def count_frames(path: Path) -> int:
    """Return the number of frames that `path` really decodes to.

    Raises:
        OSError: `path` is not a video that can be read.
    """
    try:
        return imageio_ffmpeg.count_frames_and_secs(str(path))[0]
    except RuntimeError as error:
        raise OSError(f"{path} cannot be read back as a video: the disk may be full. Free space and run again.") from error


def _run(command: list[str], path: Path, stdin: memoryview | None) -> None:
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    if done.returncode:
        reason = done.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
        raise OSError(f"ffmpeg could not write {path} ({reason[0]}): check free space and permissions of the folder.")


def _move_into_place(staging: Path, final: Path, num_frames: int) -> None:
    """Rename `staging` to `final` once it is on the disk and holds `num_frames` frames."""
    found = count_frames(staging)
    if found != num_frames:
        raise OSError(f"{final} holds {found} frames instead of {num_frames}: the disk may be full. Free space and run again.")
    with staging.open("rb+") as file:
        os.fsync(file.fileno())
    os.replace(staging, final)
