"""When a player shows the frames of a video: read from a file after its edit lists, and written into a file of our own.

A frame is what ffmpeg shows, not every packet: a file cut without re-encoding has packets that are never shown. Times
count from the file's zero, where its first picture or its first sound begins.
"""

import bisect
import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av

from .frame_times import TIMESCALE, DecodedFrame, decoded_frames, packet_times

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
    """

    times: tuple[float, ...]
    end: float

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
    """Return the frames that a player shows of the video file `path`, reading it only once while it is unchanged.

    They are known from its packets; a file whose packets do not tell is decoded.

    Raises:
        OSError: `path` is not a video that can be read, or its time stamps are damaged.
    """
    return _shown_frames(path, *_state(path))


def frame_hashes(path: Path) -> tuple[str, ...]:
    """Return the hash of each shown frame of `path` in its own pixel format, decoding an unchanged file only once.

    Raises:
        OSError: `path` is not a video that can be read, or has damaged frames.
    """
    hashes = tuple(frame.hash for frame in _decoded(path, *_state(path)))
    require_all_decoded(path, len(hashes))
    return hashes


def require_all_decoded(path: Path, num_decoded: int) -> None:
    """Check that as many frames of `path` were decoded as its packets say.

    Raises:
        OSError: some are damaged.
    """
    num_frames = len(shown_frames(path).times)
    if num_decoded != num_frames:
        raise OSError(
            f"{path} has packets of {num_frames} frames, but {num_decoded} can be decoded: it is damaged. Copy it again, or "
            "convert it with ffmpeg -i clip.mp4 -crf 10 new.mp4."
        )


def _state(path: Path) -> tuple[int, int]:
    """Return the size of `path` in bytes, and when it changed."""
    status = path.stat()
    return status.st_size, status.st_mtime_ns


@functools.lru_cache(maxsize=8)
def _decoded(path: Path, _size: int, _changed: int) -> tuple[DecodedFrame, ...]:
    return tuple(decoded_frames(path))


@functools.lru_cache(maxsize=8)  # the plan of a run, its node, and the writing of its video ask for the same file
def _shown_frames(path: Path, size: int, changed: int) -> ShownFrames:
    frames = packet_times(path) or _decoded(path, size, changed)
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
    return ShownFrames(tuple(times), end)


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
