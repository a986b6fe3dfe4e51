"""A video file that somebody brings: what it is, its last frames, and its unchanged frames as the beginning of a new video.

"Unchanged" is checked, not assumed: every decoded frame of what was made is compared with the source's by hash.
"""

import logging
import re
import subprocess
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import torch

from ..files.atomic_file import staged
from ..geometry import FRAME_RATE
from .video_file import CODECS, NO_WINDOW, VideoCoding, count_frames, join_videos, read_frames, write_video

_log = logging.getLogger(__name__)
_STREAM_CODECS = {"h264": "h264", "hevc": "h265"}
_MATRICES = {"bt709": "bt709", "smpte170m": "bt601", "bt470bg": "bt601", "bt470m": "bt601"}


@dataclass(frozen=True)
class SourceVideo:
    """What a video file is.

    Attributes:
        path: the file.
        width: pixels as shown, after any rotation.
        height: pixels as shown.
        num_frames: frames in the file.
        frame_rate: average frames per second.
        codec: ffmpeg's name of it.
        pixel_format: ffmpeg's name of it.
        matrix: "bt709", "bt601" or "unspecified"; how its colours are to be read.
        full_range: luma 0 .. 255 instead of 16 .. 235.
        rotated: shown turned by its metadata.
        sound_codec: ffmpeg's name, or None for a silent video.
    """

    path: Path
    width: int
    height: int
    num_frames: int
    frame_rate: float
    codec: str
    pixel_format: str
    matrix: str = "unspecified"
    full_range: bool = False
    rotated: bool = False
    sound_codec: str | None = None

    @property
    def colours(self) -> dict[str, object]:
        """The fields of a VideoCoding that keep the colours of what is joined to this video alike."""
        return {"matrix": self.matrix, "full_range": self.full_range}


def probe_video(path: Path) -> SourceVideo:
    """Return what the file `path` is.

    Raises:
        OSError: it is not a video that can be read.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-i", str(path)]
    text = _without_metadata(
        subprocess.run(command, capture_output=True, check=False, **NO_WINDOW).stderr.decode(errors="replace")
    )
    stream = re.search(r"Stream #\S+ Video: (\w+)[^\n]*?, (\w+)(?:\(([^)]*)\))?, (\d+)x(\d+)[^\n]*?([\d.]+k?) fps", text)
    if stream is None:
        raise OSError(f"{path} is not a video that can be read: it has no video stream with a frame rate.")
    codec, pixel_format, colours, width, height, rate = stream.groups()
    words = re.split(r"[,/\s]+", colours or "")
    turned = re.search(r"rotation of (-?[\d.]+) degrees", text)
    quarter = turned is not None and round(float(turned[1]) / 90) % 2 == 1
    sound = re.search(r"Stream #\S+ Audio: (\w+)", text)
    return SourceVideo(
        path,
        int(height if quarter else width),
        int(width if quarter else height),
        count_frames(path),
        float(rate.removesuffix("k")) * (1000 if rate.endswith("k") else 1),
        codec,
        pixel_format,
        next((_MATRICES[word] for word in words if word in _MATRICES), "unspecified"),
        "pc" in words or pixel_format.startswith("yuvj"),
        turned is not None,
        sound and sound[1],
    )


def _without_metadata(text: str) -> str:
    """Return what ffmpeg says of a file without its metadata: a prompt in there may sound like ffmpeg's own words."""
    kept, inside = [], None
    for line in text.splitlines():
        depth = len(line) - len(line.lstrip())
        if inside is not None and depth > inside:
            continue
        inside = depth if line.strip() == "Metadata:" else None
        kept.append(line)
    return "\n".join(kept)


def video_seconds(path: Path) -> float:
    """Return how long a video file plays.

    Raises:
        OSError: it is not a video that can be read.
    """
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-hide_banner", "-i", str(path)]
    text = subprocess.run(command, capture_output=True, check=False, **NO_WINDOW).stderr.decode(errors="replace")
    found = re.search(r"Duration: (\d+):(\d+):([\d.]+)", _without_metadata(text))
    if found is None:
        raise OSError(f"{path} is not a video that can be read: it has no duration.")
    return int(found[1]) * 3600 + int(found[2]) * 60 + float(found[3])


def read_tail(source: SourceVideo, num_frames: int, trim_end: int = 0, frame_rate: float = FRAME_RATE) -> torch.Tensor:
    """Return the last frames [n, H, W, 3] in [0, 1] of `source`, at most `num_frames`, the last one included.

    Frames are picked by the average frame rate, counted back from the end.

    Args:
        trim_end: frames of the file that are left out at its end.
        frame_rate: frames per second that are wanted, 16 as Wan is trained.

    Raises:
        OSError: the file cannot be read.
    """
    step = source.frame_rate / frame_rate
    back = [int(k * step + 0.5) for k in range(num_frames)]
    needed = min(source.num_frames, trim_end + back[-1] + 1)
    last = deque(read_frames(source.path, last_seconds=needed / source.frame_rate + 2.0), maxlen=needed)
    if len(last) < needed:  # times in the file are not what its frame rate says: read all of it
        last = deque(read_frames(source.path), maxlen=needed)
    newest = len(last) - 1 - trim_end
    frames = np.stack([last[newest - k] for k in reversed(back) if k <= newest])
    return torch.from_numpy(frames).float().div_(255.0)


def write_beginning(path: Path, source: SourceVideo, num_frames: int, coding: VideoCoding) -> None:
    """Write the first `num_frames` frames of `source` to `path`, so that clips of `coding` can be joined to it.

    The packets are copied where that works, else encoded without loss; either way every decoded frame is compared.

    Raises:
        OSError: neither way gives the same frames.
    """
    wanted = frame_hashes(source.path)[:num_frames]
    ways = [_copy_arguments(num_frames)] if _may_copy(source, coding) else []
    ways.append(_lossless_arguments(source, num_frames, coding))
    for arguments in ways:
        try:
            with staged(path) as staging:
                _convert(source.path, staging, arguments)
                _require_good_join(staging, wanted, source, coding, exact_times=arguments is ways[0] and len(ways) > 1)
            return
        except OSError as error:
            _log.info("SVI: %s cannot begin a video by %s (%s).", source.path, " ".join(arguments), error)
    raise OSError(
        f"{source.path} ({source.codec}, {source.pixel_format}) cannot begin a {coding.codec} video with its frames unchanged: "
        "convert it to H.264, yuv420p, first."
    )


def frame_hashes(path: Path) -> list[str]:
    """Return a hash of each decoded frame of `path`, in its own pixel format.

    Raises:
        OSError: `path` is not a video that can be read.
    """
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-i", str(path),
        "-map", "0:v:0", "-fps_mode", "passthrough", "-f", "framemd5", "-",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, check=False, **NO_WINDOW)
    if done.returncode:
        raise OSError(f"{path} is not a video that can be read ({done.stderr.decode(errors='replace').strip()[-200:]}).")
    return [line.rsplit(",", 1)[1].strip() for line in done.stdout.decode().splitlines() if line and not line.startswith("#")]


def _may_copy(source: SourceVideo, coding: VideoCoding) -> bool:
    return _STREAM_CODECS.get(source.codec) == coding.codec and not source.rotated


def _copy_arguments(num_frames: int) -> Sequence[str]:
    return ("-map", "0:v:0", "-c", "copy", "-frames:v", str(num_frames), "-video_track_timescale", "90000")


def _lossless_arguments(source: SourceVideo, num_frames: int, coding: VideoCoding) -> Sequence[str]:
    quality = (
        ("-qp", "0") if coding.codec == "h264" else ("-x265-params", "lossless=1:log-level=error:bframes=0", "-tag:v", "hvc1")
    )
    return (
        "-map", "0:v:0", "-frames:v", str(num_frames), "-fps_mode", "passthrough", "-c:v", CODECS[coding.codec], *quality,
        "-preset", "veryfast", "-bf", "0", "-pix_fmt", source.pixel_format, "-video_track_timescale", "90000",
    )  # fmt: skip


def copy_to_timescale(source: Path, path: Path) -> None:
    """Write `source`'s video packets to `path` with the time base of our own files, without which joins play at wrong speed.

    Raises:
        OSError: ffmpeg cannot copy them.
    """
    _convert(source, path, ("-map", "0:v:0", "-c", "copy", "-video_track_timescale", "90000"))


def _convert(source: Path, path: Path, arguments: Sequence[str]) -> None:
    command = [
        imageio_ffmpeg.get_ffmpeg_exe(),
        "-y",
        "-nostdin",
        "-loglevel",
        "error",
        "-i",
        str(source),
        *arguments,
        str(path),
    ]
    done = subprocess.run(command, capture_output=True, check=False, **NO_WINDOW)
    if done.returncode:
        raise OSError(f"ffmpeg could not write {path}: {done.stderr.decode(errors='replace').strip()[-200:]}")


def _require_good_join(beginning: Path, wanted: list[str], source: SourceVideo, coding: VideoCoding, exact_times: bool) -> None:
    """Check that `beginning` and a clip of `coding` join to a file that starts with the frames `wanted`.

    Args:
        exact_times: copied packets with B-frames can shift times by some frames, which would show at the seam: check that too.

    Raises:
        OSError: they do not.
    """
    clip, trial = (beginning.with_name(f"{beginning.stem}-{name}.mp4") for name in ("clip", "trial"))
    try:
        write_video(clip, [np.zeros((2, source.height, source.width, 3), np.uint8)], coding)
        join_videos(trial, [beginning, clip], len(wanted) + 2)
        found = frame_hashes(trial)
        if len(found) != len(wanted) + 2 or found[: len(wanted)] != wanted:
            raise OSError("its frames would change")
        seconds = len(wanted) / source.frame_rate + 2 / coding.frame_rate
        if exact_times and abs(video_seconds(trial) - seconds) > 0.6 / source.frame_rate:
            raise OSError("its times would change")
    finally:
        clip.unlink(missing_ok=True)
        trial.unlink(missing_ok=True)
