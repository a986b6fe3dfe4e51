"""A video file of the user: its properties, its last frames, and its unchanged frames as the beginning of a new video.

"Unchanged" is checked, not assumed: every decoded frame of the new file is compared with the source's by hash.
"""

import logging
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError

from ..files.atomic_file import staged
from ..geometry import FRAME_RATE
from .colour_tags import Colours, declared_colours
from .ffmpeg import run_ffmpeg
from .video_file import CODECS, TIMESCALE, VideoCoding, frame_hashes, join_videos, read_frames, write_video

_log = logging.getLogger(__name__)
_STREAM_CODECS = {"h264": "h264", "hevc": "h265"}
_COPY = ("-map", "0:v:0", "-c", "copy", "-video_track_timescale", TIMESCALE)


@dataclass(frozen=True)
class SourceVideo:
    """The properties of a video file.

    Attributes:
        path: the file.
        width: pixels as shown, after any rotation.
        height: pixels as shown.
        num_frames: frames in the file.
        frame_rate: average frames per second.
        codec: ffmpeg's name of it.
        pixel_format: ffmpeg's name of it.
        colours: as the file declares them.
        rotated: its metadata has players turn or mirror it.
        sound_codec: ffmpeg's name, or None for a silent video.
    """

    path: Path
    width: int
    height: int
    num_frames: int
    frame_rate: float
    codec: str
    pixel_format: str
    colours: Colours
    rotated: bool = False
    sound_codec: str | None = None


@contextmanager
def open_media(path: Path) -> Generator[InputContainer]:
    """Open the video or sound file `path` with PyAV for the length of the block.

    Raises:
        OSError: it cannot be opened, or be read in the block.
    """
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            yield container
    except FFmpegError as error:
        raise OSError(
            f"{path} is not a video or sound that can be read ({error.strerror}): it is cut off, damaged, or of another kind. "
            "Copy it again, or choose another one."
        ) from error


def probe_video(path: Path) -> SourceVideo:
    """Return the properties of the video file `path`.

    Raises:
        OSError: it is not a video that can be read.
    """
    with open_media(path) as container:
        stream = next(iter(container.streams.video), None)
        if stream is None or not stream.average_rate:
            raise OSError(f"{path} is not a video that can be read: it has no video stream with a frame rate.")
        frame, num_frames = None, 0
        for packet in container.demux(stream):
            num_frames += packet.size > 0
            with suppress(InvalidDataError):  # a recording may begin between two key frames
                frame = frame or next(iter(packet.decode()), None)
        coding, sound = stream.codec_context, next(iter(container.streams.audio), None)
        if frame is None or coding.pix_fmt is None:
            raise OSError(f"{path} is not a video that can be read: it has no frame.")
        size = coding.width, coding.height
        width, height = size[::-1] if round(frame.rotation / 90) % 2 else size
        return SourceVideo(
            path,
            width,
            height,
            num_frames,
            round(float(stream.average_rate), 2),  # two decimals, on which the keys of clips of earlier runs depend
            coding.codec.canonical_name,
            coding.pix_fmt,
            declared_colours(frame),
            frame.side_data.get("DISPLAYMATRIX") is not None,
            sound and sound.codec_context.codec.canonical_name,
        )


def video_seconds(path: Path) -> float:
    """Return how long a video file plays.

    Raises:
        OSError: it is not a video that can be read.
    """
    with open_media(path) as container:
        if container.duration is None:
            raise OSError(f"{path} is not a video that can be read: it has no duration.")
        return container.duration / av.time_base


def read_tail(source: SourceVideo, num_frames: int, trim_end: int = 0, frame_rate: float = FRAME_RATE) -> torch.Tensor:
    """Return the last frames [n, H, W, 3] in [0, 1] of `source`, at most `num_frames`, the last one included.

    Frames are picked by the average frame rate, counting back from the end.

    Args:
        trim_end: frames of the file to leave out at its end.
        frame_rate: frames per second to return, 16 as in Wan's training.

    Raises:
        OSError: the file cannot be read.
    """
    step = source.frame_rate / frame_rate
    back = [int(k * step + 0.5) for k in range(num_frames)]
    needed = min(source.num_frames, trim_end + back[-1] + 1)
    last = deque(read_frames(source.path, last_seconds=needed / source.frame_rate + 2.0), maxlen=needed)
    if len(last) < needed:  # the times in the file do not fit its frame rate: read all of it
        last = deque(read_frames(source.path), maxlen=needed)
    newest = len(last) - 1 - trim_end
    frames = np.stack([last[newest - k] for k in reversed(back) if k <= newest])
    return torch.from_numpy(frames).float().div_(255.0)


def write_beginning(path: Path, source: SourceVideo, num_frames: int, coding: VideoCoding) -> None:
    """Write the first `num_frames` frames of `source` to `path`, so that clips of `coding` can be joined to it.

    The packets are copied where that works, else the frames are encoded without loss; every decoded frame is compared.

    Raises:
        OSError: neither way gives the same frames.
    """
    hashes = frame_hashes(source.path)[:num_frames]
    may_copy = _STREAM_CODECS.get(source.codec) == coding.codec and not source.rotated
    lossless = _lossless_arguments(source, coding)
    for arguments in (_COPY, lossless) if may_copy else (lossless,):
        try:
            with staged(path) as staging:
                run_ffmpeg(staging, ("-i", source.path, "-frames:v", num_frames, *arguments), path)
                _require_good_join(staging, hashes, source, coding, exact_times=arguments is _COPY)
            return
        except OSError as error:
            _log.info("SVI: %s cannot begin a video by %s (%s).", source.path, " ".join(arguments), error)
    raise OSError(
        f"{source.path} ({source.codec}, {source.pixel_format}) cannot begin a {coding.codec} video with its frames unchanged: "
        f"{'choose h264 in SVI Output, or ' if coding.codec == 'h265' else ''}convert it to H.264, yuv420p, first."
    )


def _lossless_arguments(source: SourceVideo, coding: VideoCoding) -> Sequence[str]:
    quality = (
        ("-qp", "0") if coding.codec == "h264" else ("-x265-params", "lossless=1:log-level=error:bframes=0", "-tag:v", "hvc1")
    )
    return (  # after lossless H.264 ffmpeg misreads chroma at low crf, unless another pixel aspect makes its decoder begin anew
        "-map", "0:v:0", "-fps_mode", "passthrough", "-c:v", CODECS[coding.codec], *quality,
        "-vf", "setsar=sar",
        "-preset", "veryfast", "-bf", "0", "-pix_fmt", source.pixel_format, "-video_track_timescale", TIMESCALE,
    )  # fmt: skip


def copy_to_timescale(source: Path, path: Path) -> None:
    """Write `source`'s video packets to `path` with the time base of our own files; joins of others play at a wrong speed.

    Raises:
        OSError: ffmpeg cannot copy them.
    """
    run_ffmpeg(path, ("-i", source, *_COPY))


def _require_good_join(beginning: Path, hashes: list[str], source: SourceVideo, coding: VideoCoding, exact_times: bool) -> None:
    """Check that `beginning` and a clip of `coding` join to a file with the frames of both; those of `beginning` have `hashes`.

    Args:
        exact_times: also check times, which copied packets with B-frames can shift by some frames: the seam would show.

    Raises:
        OSError: the frames or times would change.
    """
    clip, trial = (beginning.with_name(f"{beginning.stem}-{name}.mp4") for name in ("clip", "trial"))
    try:
        write_video(clip, [_coloured_blocks(source.width, source.height)], coding)
        join_videos(trial, [beginning, clip], len(hashes) + 2)
        found = frame_hashes(trial)
        if len(found) != len(hashes) + 2 or found[: len(hashes)] != hashes:
            raise OSError("its frames would change")
        if found[len(hashes) :] != frame_hashes(clip):  # an H.265 file has one set of headers, here those of the beginning
            raise OSError("players would misread the clips after it")
        seconds = len(hashes) / source.frame_rate + 2 / coding.frame_rate
        if exact_times and abs(video_seconds(trial) - seconds) > 0.6 / source.frame_rate:
            raise OSError("its times would change")
    finally:
        clip.unlink(missing_ok=True)
        trial.unlink(missing_ok=True)


def _coloured_blocks(width: int, height: int) -> np.ndarray:
    """Return two frames [2, height, width, 3] of blocks, in which a decoder that mixes up headers shows other colours."""
    blocks = np.random.default_rng(0).integers(256, size=(2, height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    return blocks.repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width]
