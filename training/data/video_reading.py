"""Read clips at a fixed frame rate: tick k is the picture on screen k / rate seconds after the first frame.

So clips of any rate, also a varying one, keep their speed, and a clip that already has the rate loses no frame. PyAV, which
ComfyUI ships, decodes. Decoding does not prove that a file is intact, so cached results are keyed by a hash of the file.
Source: docs/METHOD.md, 9.3 (16 frames per second) and 9.11, item 1 (the released loader never sees frame 80 of 81).
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
from av.video.reformatter import Colorspace

Item = TypeVar("Item")
_EARLY = 0.25  # of a tick: how early a frame may count, so that time stamps rounded to milliseconds do not jitter
_SEEK_MARGIN = 1.0  # seconds before the first wanted frame where reading starts
_UNSPECIFIED = 2  # colour space number of video without one
_HD_HEIGHT = 720  # players assume BT.709 from this height on, if video names no colour space


@dataclass(frozen=True, eq=False)
class Frame:
    """A decoded picture, still in the pixel format of its file.

    Attributes:
        raw: the decoder's frame.
        pixel_aspect: width of a pixel over its height, as shown.
    """

    raw: av.VideoFrame
    pixel_aspect: float

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the picture as shown: upright and with square pixels."""
        size = round(self.raw.width * self.pixel_aspect), self.raw.height
        return size[::-1] if self.raw.rotation % 180 else size

    def to_rgb(self) -> np.ndarray:
        """Return the picture as shown, [H, W, 3] uint8."""
        width = round(self.raw.width * self.pixel_aspect)
        return self._turned(width=width, height=self.raw.height, interpolation="BICUBIC")

    def to_thumbnail(self, side: int) -> np.ndarray:
        """Return the picture stretched to [side, side, 3] uint8, every pixel the mean of its area."""
        return self._turned(width=side, height=side, interpolation="AREA")

    def _turned(self, **form) -> np.ndarray:
        if self.raw.colorspace == _UNSPECIFIED and self.raw.height >= _HD_HEIGHT:
            form["src_colorspace"] = Colorspace.ITU709
        picture = self.raw.reformat(format="rgb24", **form).to_ndarray()
        return np.ascontiguousarray(np.rot90(picture, self.raw.rotation // 90))


def on_ticks(timed: Iterable[tuple[float, float, Item]], rate: float, first_tick: int = 0) -> Iterator[tuple[int, Item]]:
    """Yield (tick, item on screen) for each tick from `first_tick` on, `rate` ticks per second.

    Args:
        timed: (start in seconds since tick 0, duration in seconds, item), ascending. An item stays until the next one begins;
            only the last item's duration counts.
        rate: ticks per second.
        first_tick: the first tick to yield.
    """
    tick = first_tick
    for shown, following in itertools.pairwise(itertools.chain(timed, [None])):
        end = shown[0] + shown[1] if following is None else following[0]
        while (tick + _EARLY) / rate < end:
            yield tick, shown[2]
            tick += 1


def read_ticks(path: Path, rate: float, first_tick: int = 0) -> Iterator[tuple[int, Frame]]:
    """Yield (tick, frame) of a clip from `first_tick` to its end. Ticks that show one picture get the same object.

    Raises:
        ValueError: the file is not a video or is cut off; the message gives the reason without the file's name.
    """
    with _naming_faults(path) as container:
        stream = _video_stream(container)
        frames = container.decode(stream)
        first = next(frames, None)
        if first is None:
            raise ValueError("holds no picture")
        origin = first.time or 0.0
        frames = itertools.chain([first], frames)
        if first.pts is not None and first_tick / rate > 2 * _SEEK_MARGIN:
            seconds = origin + first_tick / rate - _SEEK_MARGIN
            container.seek(int(seconds / stream.time_base), stream=stream)
            frames = container.decode(stream)
        yield from on_ticks(_timed(frames, stream, origin), rate, first_tick)


def read_pictures(path: Path, rate: float, ticks: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (tick, picture [H, W, 3] uint8) for each of `ticks` in ascending order, once each.

    Raises:
        ValueError: see :func:`read_ticks`; or the clip ends before the last of `ticks`.
    """
    wanted = sorted(set(ticks))
    position, seen, picture = 0, None, None
    for tick, frame in read_ticks(path, rate, wanted[0]):
        if tick == wanted[position]:
            if frame is not seen:
                seen, picture = frame, frame.to_rgb()
            yield tick, picture
            position += 1
            if position == len(wanted):
                return
    raise ValueError(f"ends before frame {wanted[position]} at {rate} frames per second: it has changed since it was scanned")


def _timed(frames: Iterable[av.VideoFrame], stream: av.VideoStream, origin: float) -> Iterator[tuple[float, float, Frame]]:
    """Yield (start, duration, frame) in seconds since `origin`. Frames without a time stamp follow at the average rate.

    Raises:
        ValueError: the decoder marks a picture as damaged.
    """
    usual = 1.0 / float(stream.average_rate or 25)
    aspect = float(stream.sample_aspect_ratio or 1)
    start = -usual
    for frame in frames:
        if frame.is_corrupt:
            raise ValueError(f"is damaged at {start + usual:.2f} s: copy it again from its source")
        start = max(start, frame.time - origin) if frame.pts is not None else start + usual
        yield start, float(frame.duration * frame.time_base) if frame.duration else usual, Frame(frame, aspect)


def _video_stream(container: av.container.InputContainer) -> av.VideoStream:
    """Return the first video stream, set to decode on several threads.

    Raises:
        ValueError: the file holds no video.
    """
    if not container.streams.video:
        kinds = ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
        raise ValueError(f"holds no video, only {kinds}: it is another kind of file, or cut off")
    stream = container.streams.video[0]
    stream.thread_type = "AUTO"
    return stream


@contextmanager
def _naming_faults(path: Path) -> Iterator[av.container.InputContainer]:
    """Open `path`, and turn errors while reading it into a ValueError with the reason."""
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            yield container
    except av.error.FFmpegError as error:
        raise ValueError(
            f"cannot be read as a video ({error.strerror}): it is cut off, damaged, or another kind of file"
        ) from error
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror}): check that the file is there, and its permissions") from error
