"""Read clips at a fixed frame rate: tick k is the picture on screen k / rate seconds after the first frame.

So clips of any rate, also a varying one, keep their speed, and a clip that already has the rate loses no frame. Damaged time
stamps are an error, since they could give a clip millions of ticks. PyAV, which ComfyUI ships, decodes. Decoding does not prove
that a file is intact, so cached results are keyed by a hash of the file.
Source: docs/METHOD.md, 9.3 (16 frames per second) and 9.11, item 1 (the released loader never sees frame 80 of 81).
"""

import heapq
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import Colorspace

from svi_core.video.colour_tags import Colours, conversion, declared_colours, with_primaries
from svi_core.video.shown_frames import EARLY, fault_in_times

Item = TypeVar("Item")
_REORDERED = 16  # most pictures that a codec shows in another order than it stores them
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
        """Return the picture as shown, [H, W, 3] uint8, wide primaries converted to BT.709."""
        width = round(self.raw.width * self.pixel_aspect)
        picture = self._turned(width=width, height=self.raw.height, interpolation="BICUBIC")
        colours = declared_colours(self.raw)
        return with_primaries(picture, colours, Colours()) if colours.wide else picture

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
        while (tick + EARLY) / rate < end:
            yield tick, shown[2]
            tick += 1


def usual_colours(path: Path) -> Colours:
    """Return the colours of a clip, of its first frame.

    Raises:
        ValueError: no frame can be read, or a model cannot learn from the colours, HDR for example; the message gives the
            reason without the file's name.
    """
    with _naming_faults(path) as container:
        colours = declared_colours(_first_frame(container.decode(_video_stream(container))))
    if colours.fault:
        raise ValueError(f"has {colours.fault} colours, but SVI makes ordinary video: {conversion(path, colours)}")
    return colours


def read_ticks(path: Path, rate: float, first_tick: int = 0) -> Iterator[tuple[int, Frame]]:
    """Yield (tick, frame) of a clip from `first_tick` to its end. Ticks that show one picture get the same object.

    Raises:
        ValueError: the file is not a video or is cut off; the message gives the reason without the file's name.
    """
    with _naming_faults(path) as container:
        stream = _video_stream(container)
        frames = _stamped(container, stream)
        first = _first_frame(frames)
        origin = first[0] or 0.0
        frames = itertools.chain([first], frames)
        if first[0] is not None and first_tick / rate > 2 * _SEEK_MARGIN:
            seconds = origin + first_tick / rate - _SEEK_MARGIN
            container.seek(int(seconds / stream.time_base), stream=stream)
            frames = _stamped(container, stream)
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


def _stamped(container: InputContainer, stream: av.VideoStream) -> Iterator[tuple[float | None, av.VideoFrame]]:
    """Yield (time in seconds, frame) in the order of presentation; the time is None if the file has none.

    An AVI has times of decoding only. PyAV gives them to the frames in the order of decoding: the earliest is the next one's.
    """
    stamped = ((frame.time, frame) for frame in container.decode(stream))
    if container.format.name != "avi":
        yield from stamped
        return
    times, waiting = list[float](), deque[av.VideoFrame]()
    for time, frame in itertools.chain(stamped, [(None, None)] * _REORDERED):
        if time is not None:
            heapq.heappush(times, time)
        if frame is not None:
            waiting.append(frame)
        if waiting and (frame is None or len(waiting) == _REORDERED):
            yield heapq.heappop(times) if times else None, waiting.popleft()


def _timed(
    frames: Iterable[tuple[float | None, av.VideoFrame]], stream: av.VideoStream, origin: float
) -> Iterator[tuple[float, float, Frame]]:
    """Yield (start, duration, frame) in seconds since `origin`. Frames without a time stamp follow at the average rate.

    Raises:
        ValueError: the decoder marks a picture as damaged, or a time stamp is implausible.
    """
    usual = 1.0 / float(stream.average_rate or 25)
    aspect = float(stream.sample_aspect_ratio or 1)
    start = None
    for time, frame in frames:
        follows = 0.0 if start is None else start + usual
        if frame.is_corrupt:
            raise ValueError(f"is damaged at {follows:.2f} s: copy it again from its source")
        time = follows if time is None else time - origin
        duration = float(frame.duration * frame.time_base) if frame.duration else usual
        fault = (start is not None and fault_in_times(start, time)) or fault_in_times(time, time + duration)
        if fault:
            raise ValueError(f"has damaged time stamps: {fault}")
        start = time if start is None else max(start, time)
        yield start, duration, Frame(frame, aspect)


def _first_frame(frames: Iterator[Item]) -> Item:
    first = next(frames, None)
    if first is None:
        raise ValueError("holds no picture")
    return first


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
def _naming_faults(path: Path) -> Iterator[InputContainer]:
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
