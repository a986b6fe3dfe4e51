"""Videos whose times matter, and what a player shows and plays of a file, decoded without the product.

In a video with a flash and a click both come at the same second of their streams.
"""

import math
import subprocess
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np

from tests.training.synthetic_clips import write_clip

DAY = 86_400
FLASH = "color=black:size=64x64:rate=30:duration=3,drawbox=color=white:t=fill:enable='between(n,30,32)'"
CLICK = "aevalsrc='0.8*sin(2000*t)*between(t,1,1.05)':d={}:s=48000"
H264 = ("-c:v", "libx264", "-pix_fmt", "yuv420p")
DELAY = {
    "video late": ("-itsoffset", "0.5", "-i", "{0}", "-i", "{0}"),
    "sound late": ("-i", "{0}", "-itsoffset", "0.5", "-i", "{0}"),
}


def ffmpeg(*arguments: object) -> None:
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-y", "-nostdin", "-loglevel", "error", *map(str, arguments)]
    subprocess.run(command, check=True, capture_output=True)


def flash_and_click(path: Path, seconds_of_sound: float = 3.0, *coding: str) -> Path:
    """Write 3 s at 30 frames per second with a flash and a click at 1 s."""
    sound = CLICK.format(seconds_of_sound)
    ffmpeg("-f", "lavfi", "-i", FLASH, "-f", "lavfi", "-i", sound, *(coding or (*H264, "-c:a", "aac")), path)
    return path


def one_late(source: Path, path: Path, which: str) -> Path:
    """Copy a video; the stream named in `which` begins 0.5 s late."""
    ffmpeg(*(word.format(source) for word in DELAY[which]), "-map", "0:v", "-map", "1:a", "-c", "copy", path)
    return path


def cut(source: Path, path: Path, seconds: float) -> Path:
    """Cut off the first `seconds` without encoding: an edit list hides the packets before."""
    ffmpeg("-ss", seconds, "-i", source, "-map", "0", "-c", "copy", path)
    return path


def uneven(path: Path, times: list[float]) -> Path:
    """Write numbered frames at `times`, at most 80."""
    grey = (np.full((64, 64, 3), 8 + 3 * number, np.uint8) for number in range(len(times)))
    return write_clip(path, list(grey), times=times, codec="libx264")


def number_of(picture: np.ndarray) -> int:
    """Return the number of a frame [H, W, 3] uint8 of an uneven video, whose grey gets up to 2 darker with each encoding."""
    return math.ceil((float(picture.mean()) - 8.5) / 3)


def sixty_then_ten() -> list[float]:
    """The times of 60 frames in the first second and of 20 in the next two."""
    return [index / 60 for index in range(60)] + [1 + index / 10 for index in range(20)]


def with_late_stamps(source: Path, path: Path, first: int, seconds: float, kind: str = "video") -> Path:
    """Copy a file; packets of `kind` from number `first` on come `seconds` later."""
    with av.open(str(source)) as given, av.open(str(path), "w") as made:
        streams = {stream.index: made.add_stream_from_template(stream) for stream in given.streams}
        counts = dict.fromkeys(streams, 0)
        for packet in given.demux():
            if packet.dts is None:
                continue
            if packet.stream.type == kind and counts[packet.stream.index] >= first:
                packet.pts += round(seconds / packet.time_base)
                packet.dts += round(seconds / packet.time_base)
            counts[packet.stream.index] += 1
            packet.stream = streams[packet.stream.index]
            made.mux(packet)
    return path


@dataclass(frozen=True)
class Played:
    """What a player shows and plays.

    Attributes:
        times: seconds of each frame.
        numbers: of each frame, if it is numbered.
        flashes, clicks: seconds.
    """

    times: list[float]
    numbers: list[int]
    flashes: list[float]
    clicks: list[float]


def played(path: Path) -> Played:
    """Decode `path` with PyAV."""
    with av.open(str(path)) as container:
        zero = Fraction(container.start_time or 0, av.time_base)
        shown = [
            (float(frame.pts * frame.time_base - zero), frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)
        ]
    times, bright = [time for time, _ in shown], [picture.mean() > 150 for _, picture in shown]
    flashes = [time for time, now, before in zip(times, bright, [False, *bright], strict=False) if now and not before]
    return Played(times, [number_of(picture) for _, picture in shown], flashes, _clicks(path, zero))


def _clicks(path: Path, zero: Fraction) -> list[float]:
    found = list[float]()
    with av.open(str(path)) as container:
        if not container.streams.audio:
            return found
        to_floats = av.AudioResampler("fltp", "mono")
        for frame in container.decode(audio=0):
            for piece in to_floats.resample(frame):
                loud = np.nonzero(np.abs(piece.to_ndarray()[0]) > 0.3)[0]
                begin = float(frame.pts * frame.time_base - zero)
                found += [begin + loud[0] / frame.sample_rate] if len(loud) else []
    return [time for time, before in zip(found, [-1.0, *found], strict=False) if time - before > 0.3]
