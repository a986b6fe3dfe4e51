"""A video file of the user: its properties, its last frames, and its unchanged frames as the beginning of a new video.

"Unchanged" is checked, not assumed: every frame that the new file shows is compared with the source's by hash and time.
"""

import logging
from collections import deque
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
import torch
from av import AudioStream, VideoFrame, VideoStream
from av.container import InputContainer
from av.error import FFmpegError, InvalidDataError
from av.format import Flags

from ..files.atomic_file import staged
from ..files.fingerprint import large_file_fingerprint
from ..geometry import FRAME_RATE
from .colour_tags import Colours, declared_colours
from .ffmpeg import run_ffmpeg
from .frame_times import TIMESCALE, decoded_frames
from .shown_frames import EARLY, TIME_ERROR, ShownFrames, frame_hashes, require_all_decoded, shown_frames
from .video_file import CODECS, Sound, VideoCoding, join_videos, read_frames, write_video

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
        frame_rate: frames per second, on average if the rate varies.
        codec: ffmpeg's name of it.
        pixel_format: ffmpeg's name of it.
        colours: as the file declares them.
        rotated: its metadata has players turn or mirror it.
        sound_codec: ffmpeg's name, or None for a silent video.
        sound_late: seconds by which ffmpeg reads the sound too early if it reads it alone.
        shown: when its frames are shown; the first one late if its sound begins before it.
        identity: a hash of what the file was made from, if it is a temporary one; it may be coded otherwise elsewhere.
        exact: a file with the same frames without loss, if `path` has lost some.
    """

    path: Path
    width: int
    height: int
    frame_rate: float
    codec: str
    pixel_format: str
    colours: Colours
    rotated: bool = False
    sound_codec: str | None = None
    sound_late: float = 0.0
    shown: ShownFrames = field(kw_only=True, repr=False)
    identity: str = field(default="", kw_only=True)
    exact: Path | None = field(default=None, kw_only=True)

    @property
    def key(self) -> str:
        """A hash of its content."""
        return self.identity or large_file_fingerprint(self.path)

    @property
    def frames_path(self) -> Path:
        """The file to read its frames from."""
        return self.exact or self.path

    @property
    def num_frames(self) -> int:
        """Frames that a player shows."""
        return len(self.shown.times)

    @property
    def late(self) -> float:
        """Seconds from the file's zero to the first frame."""
        return self.shown.times[0]

    def sound(self, num_frames: int) -> Sound | None:
        """Return the sound up to the end of the first `num_frames` frames; None for a silent video."""
        if self.sound_codec is None:
            return None
        return Sound(self.path, self.sound_codec, self.shown.end_of(num_frames), self.sound_late)


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
        OSError: it is not a video that can be read, or its time stamps are damaged.
    """
    with open_media(path) as container:
        stream = next(iter(container.streams.video), None)
        if stream is None or not stream.average_rate:
            raise OSError(f"{path} is not a video that can be read: it has no video stream with a frame rate.")
        frame = _first_frame(container, stream)
        coding, sound = stream.codec_context, next(iter(container.streams.audio), None)
        if frame is None or coding.pix_fmt is None:
            raise OSError(f"{path} is not a video that can be read: it has no frame.")
        size = coding.width, coding.height
        width, height = size[::-1] if round(frame.rotation / 90) % 2 else size
        shown = shown_frames(path)
        rate = shown.rate_near(float(stream.average_rate))
        return SourceVideo(
            path,
            width,
            height,
            round(rate, 2),  # two decimals, on which the keys of clips of earlier runs depend
            coding.codec.canonical_name,
            coding.pix_fmt,
            declared_colours(frame),
            frame.side_data.get("DISPLAYMATRIX") is not None,
            sound and sound.codec_context.codec.canonical_name,
            _read_too_early(container, sound) if sound else 0.0,
            shown=shown.shifted(_read_too_early(container, stream) if sound else -shown.times[0]),
        )


def _first_frame(container: InputContainer, stream: VideoStream) -> VideoFrame | None:
    """Return the first frame that can be decoded; a recording may begin between two key frames."""
    for packet in container.demux(stream):
        with suppress(InvalidDataError):
            for frame in packet.decode():
                return frame
    return None


def _read_too_early(container: InputContainer, stream: VideoStream | AudioStream) -> float:
    """Return by how many seconds ffmpeg reads `stream` too early if it reads it alone.

    It begins such a stream at 0 where a container's times may jump, as in a transport stream.
    """
    begin, base = stream.start_time, stream.time_base
    if not container.format.flags & Flags.ts_discont.value or container.start_time is None or begin is None or base is None:
        return 0.0
    return round(float(begin * base) - container.start_time / av.time_base, 5)


def read_tail(source: SourceVideo, num_frames: int, trim_end: int = 0, frame_rate: float = FRAME_RATE) -> torch.Tensor:
    """Return the last frames [n, H, W, 3] in [0, 1] of `source`, at most `num_frames`, the last one included.

    They are counted back from the last one: in a video of constant rate in steps of frames, rounded; in another one by what is
    on screen at each tick.

    Args:
        trim_end: frames of the file to leave out at its end.
        frame_rate: frames per second to return, 16 as in Wan's training.

    Raises:
        OSError: the file cannot be read.
    """
    newest = source.num_frames - 1 - trim_end
    wanted = [index for k in reversed(range(num_frames)) if (index := _frame_before(source, newest, k, frame_rate)) >= 0]
    needed = source.num_frames - wanted[0]
    seconds = source.shown.end - source.shown.times[wanted[0]]
    last = deque(read_frames(source.frames_path, last_seconds=seconds + 2.0), maxlen=needed)
    if len(last) < needed:  # its sound ends long after its last frame, say: read all of it
        numbered = deque(enumerate(read_frames(source.frames_path), start=1), maxlen=needed)
        require_all_decoded(source.path, numbered[-1][0] if numbered else 0)
        last = [frame for _, frame in numbered]
    frames = np.stack([last[index - wanted[0]] for index in wanted])
    return torch.from_numpy(frames).float().div_(255.0)


def _frame_before(source: SourceVideo, newest: int, num_ticks: int, frame_rate: float) -> int:
    """Return the frame that is shown `num_ticks` ticks of `frame_rate` before frame `newest`; negative if there is none."""
    shown = source.shown
    if shown.is_even:
        return newest - int(num_ticks * source.frame_rate / frame_rate + 0.5)
    if num_ticks == 0:
        return newest
    seconds = shown.times[newest] - (num_ticks - EARLY) / frame_rate
    return shown.on_screen(seconds) if seconds >= shown.times[0] else -1


def write_beginning(path: Path, source: SourceVideo, num_frames: int, coding: VideoCoding) -> None:
    """Write the first `num_frames` frames of `source` to `path`, so that clips of `coding` can be joined to it.

    The packets are copied where that works, else the frames are encoded without loss; every frame and its time are compared.

    Raises:
        OSError: neither way gives the same frames, or the source has damaged ones.
    """
    hashes = frame_hashes(source.path)[:num_frames]
    may_copy = _STREAM_CODECS.get(source.codec) == coding.codec and not source.rotated
    lossless = _lossless_arguments(source, coding)
    limit = ("-frames:v", num_frames) if num_frames < source.num_frames else ()  # ffmpeg would count hidden packets too
    for arguments in (_COPY, lossless) if may_copy else (lossless,):
        try:
            with staged(path) as staging:
                run_ffmpeg(staging, ("-i", source.path, *limit, *arguments), path)
                _require_good_join(staging, source, hashes, coding)
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
        "-map", "0:v:0", "-fps_mode", "passthrough", "-enc_time_base", f"1:{TIMESCALE}", "-c:v", CODECS[coding.codec], *quality,
        "-vf", "setsar=sar",
        "-preset", "veryfast", "-bf", "0", "-pix_fmt", source.pixel_format, "-video_track_timescale", TIMESCALE,
    )  # fmt: skip


def copy_to_timescale(source: Path, path: Path) -> None:
    """Write `source`'s video packets to `path` with the time base of our own files; joins of others play at a wrong speed.

    Raises:
        OSError: ffmpeg cannot copy them.
    """
    run_ffmpeg(path, ("-i", source, *_COPY))


def _require_good_join(beginning: Path, source: SourceVideo, hashes: Sequence[str], coding: VideoCoding) -> None:
    """Check that `beginning` and a clip of `coding` join to a file that shows frames of `hashes` at their times in `source`.

    Copied packets with B-frames, for example, can shift by some frames: the seam would show.

    Raises:
        OSError: the frames or times would change.
    """
    clip, trial = (beginning.with_name(f"{beginning.stem}-{name}.mp4") for name in ("clip", "trial"))
    num_frames, shown = len(hashes), source.shown
    end = shown.end_of(num_frames)
    try:
        write_video(clip, [_coloured_blocks(source.width, source.height)], coding)
        join_videos(trial, [beginning, clip], num_frames + 2, lengths=[end - source.late], late=source.late)
        found = require_shown(trial, hashes, (*shown.times[:num_frames], end, end + 1 / coding.frame_rate))
        if found[num_frames:] != frame_hashes(clip):  # an H.265 file has one set of headers
            raise OSError("players would misread the clips after it")
    finally:
        clip.unlink(missing_ok=True)
        trial.unlink(missing_ok=True)


def _coloured_blocks(width: int, height: int) -> np.ndarray:
    """Return two frames [2, height, width, 3] of blocks, in which a decoder that mixes up headers shows other colours."""
    blocks = np.random.default_rng(0).integers(256, size=(2, height // 16 + 1, width // 16 + 1, 3), dtype=np.uint8)
    return blocks.repeat(16, axis=1).repeat(16, axis=2)[:, :height, :width]


def require_shown(path: Path, hashes: Sequence[str], times: Sequence[float]) -> tuple[str, ...]:
    """Check that the video `path` shows frames that begin with `hashes` at `times`, counted from the first of them.

    The frames are decoded: the packets of a join may all be there, but not its frames. Return the hashes of all of them.

    Raises:
        OSError: it shows others, or at other times.
    """
    frames = decoded_frames(path)
    found = tuple(frame.hash for frame in frames)
    if len(found) != len(times) or found[: len(hashes)] != tuple(hashes):
        raise OSError("its frames would change")
    shift = times[0] - frames[0].seconds
    if max(abs(frame.seconds + shift - wanted) for frame, wanted in zip(frames, times, strict=True)) > TIME_ERROR:
        raise OSError("its times would change")
    return found
