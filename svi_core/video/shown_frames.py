"""When a player shows the frames of a video: read from a file after its edit lists, and written into a file of our own.

A frame is what ffmpeg decodes and shows, not a packet: a file cut without re-encoding has packets that are never shown. Times
count from the file's zero, where its first picture or its first sound begins.
"""

import bisect
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path

import av

from .video_file import TIMESCALE, decoded_frames

EARLY = 0.25  # of a tick: how early a frame counts as shown, so that time stamps rounded to milliseconds do not jitter
TIME_ERROR = 0.002  # seconds by which a frame may be shown at another time than before
_RATE_ERROR = 0.01  # by which a stated rate may differ from that of the frames' times
_LONGEST_PICTURE = 600.0  # seconds: longest plausible time of one picture
_LONGEST_STEP_BACK = 1.0  # seconds by which a time stamp may lie before the last one
_TICK = 1.0 / float(TIMESCALE)


@dataclass(frozen=True)
class ShownFrames:
    """The frames of a video in the order in which a player shows them.

    Attributes:
        times: seconds from the file's zero to each frame, ascending.
        end: seconds from the file's zero to the end of the last frame.
        hashes: of each frame in its own pixel format.
    """

    times: tuple[float, ...]
    end: float
    hashes: tuple[str, ...] = field(repr=False)

    @functools.cached_property
    def rate(self) -> float | None:
        """Frames per second by the frames' times, or None for a single frame."""
        span = self.times[-1] - self.times[0]
        return (len(self.times) - 1) / span if span else None

    @functools.cached_property
    def is_even(self) -> bool:
        """Whether the rate is constant: every frame lies within half a frame of an even grid."""
        first, rate = self.times[0], self.rate
        return rate is None or all(abs((time - first) * rate - index) <= 0.5 for index, time in enumerate(self.times))

    def rate_near(self, stated: float) -> float:
        """Return the rate that a header states, or that of the frames' times, rounded, if they differ by more than 1 %."""
        return stated if self.rate is None or abs(stated - self.rate) <= _RATE_ERROR * self.rate else round(self.rate, 2)

    def shifted(self, seconds: float) -> "ShownFrames":
        """Return the frames `seconds` later."""
        return replace(self, times=tuple(time + seconds for time in self.times), end=self.end + seconds) if seconds else self

    def end_of(self, num_frames: int) -> float:
        """Return the seconds from the file's zero to the end of the first `num_frames` frames."""
        return self.times[num_frames] if num_frames < len(self.times) else self.end

    def on_screen(self, seconds: float) -> int:
        """Return the index of the frame on screen `seconds` after the file's zero; the first one before it begins."""
        return max(0, bisect.bisect_right(self.times, seconds) - 1)

    def at_rate(self, rate: float) -> Sequence[int]:
        """Return the frame on screen at each tick of a clock of `rate` ticks per second, from the first frame to the end.

        A video of constant rate, within 1 % of `rate`, gives each frame once.
        """
        if self.is_even and self.rate_near(rate) == rate:
            return range(len(self.times))
        first, indices = self.times[0], list[int]()
        while (seconds := first + (len(indices) + EARLY) / rate) < self.end:
            indices.append(self.on_screen(seconds))
        return indices


def shown_frames(path: Path) -> ShownFrames:
    """Return the frames that a player shows of the video file `path`, decoding them all, but only once for an unchanged file.

    Raises:
        OSError: `path` is not a video that can be read, or its time stamps are damaged.
    """
    status = path.stat()
    return _shown_frames(path, status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=8)  # the plan of a run, its node, and the writing of its video ask for the same file
def _shown_frames(path: Path, _size: int, _changed: int) -> ShownFrames:
    frames = decoded_frames(path)
    if not frames:
        raise OSError(f"{path} is not a video that can be read: it has no frame.")
    times, previous = list[float](), -_TICK
    for frame in frames:
        _require_plausible(path, max(0.0, previous), frame.seconds)
        previous = max(frame.seconds, previous + _TICK)
        times.append(previous)
    usual = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
    end = times[-1] + (frames[-1].duration or usual or 1.0)
    _require_plausible(path, times[-1], end)
    return ShownFrames(tuple(times), end, tuple(frame.hash for frame in frames))


def fault_in_times(before: float, time: float) -> str | None:
    """Return what is wrong with a time stamp of `time` seconds after one of `before`, and the fix; None if it is plausible."""
    if time < before - _LONGEST_STEP_BACK:
        fault = f"after {before:.2f} s they go back to {time:.2f} s"
    elif time > before + _LONGEST_PICTURE:
        fault = f"nothing changes from {before:.2f} s to {time:.2f} s"
    else:
        return None
    return f"{fault}; give it new ones, for 16 frames per second with ffmpeg -i clip.mp4 -vf setpts=N/16/TB -r 16 new.mp4"


def retime(source: Path, path: Path, times: Sequence[float]) -> None:
    """Write the packets of our own video `source` to `path` with other times.

    Args:
        times: seconds from the first frame to each frame and to the end of the last one, ascending.
    """
    options = {"video_track_timescale": TIMESCALE}
    with av.open(str(source)) as encoded, av.open(str(path), "w", options=options) as output:
        (stream,) = encoded.streams.video
        copy = output.add_stream_from_template(stream)
        copy.codec_tag = stream.codec_context.codec_tag
        packets = (packet for packet in encoded.demux(stream) if packet.size)
        ticks = [round(time / _TICK) for time in times]
        for packet, (begin, stop) in zip(packets, itertools.pairwise(ticks), strict=True):
            packet.stream, packet.time_base = copy, Fraction(1, int(TIMESCALE))
            packet.pts = packet.dts = begin
            packet.duration = stop - begin
            output.mux(packet)


def _require_plausible(path: Path, before: float, time: float) -> None:
    if fault := fault_in_times(before, time):
        raise OSError(f"{path} has damaged time stamps: {fault}.")
