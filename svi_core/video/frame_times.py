"""How many frames a video file shows, and when: as its packets tell, or as ffmpeg decodes them."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from .ffmpeg import ffmpeg_reading

TIMESCALE = "90000"  # ticks per second, divisible by every usual frame rate, so that joined clips keep exact frame times
_KEY, _CORRUPT, _NOT_SHOWN = 0x1, 0x2, 0x4  # ffmpeg's flags of a packet; an edit list leaves out those not shown
_NO_TIME = -(1 << 63)
_A_PACKET_A_FRAME = ("h264", "hevc", "vp9", "av1", "prores")  # codecs with one packet for each shown frame


@dataclass(frozen=True)
class FrameTime:
    """When ffmpeg shows one frame of a file.

    Attributes:
        seconds: its time.
        duration: of it in seconds, 0 if unknown.
    """

    seconds: float
    duration: float


@dataclass(frozen=True)
class DecodedFrame(FrameTime):
    """One frame that ffmpeg shows of a file.

    Attributes:
        hash: of its pixels in its own pixel format.
    """

    hash: str


def count_frames(path: Path, decode: bool = False) -> int:
    """Return the number of frames that `path` shows: of its shown packets, or with `decode` of the frames decoded from them.

    Raises:
        OSError: `path` is not a video that can be read.
    """
    if decode:
        return len(decoded_frames(path))
    lines = _frame_lines(path, "framecrc", ("-c", "copy"))
    return sum(not (_flags(line.split(",")) & _NOT_SHOWN) for line in lines if not line.startswith("#"))


def packet_times(path: Path) -> list[FrameTime] | None:
    """Return when `path` shows its frames, by its packets alone; None if only decoding can tell.

    That is so if a codec has packets without a frame, packets have no times or are damaged, or the first one is no key frame or
    not the first to be shown, as in a recording that begins anywhere.

    Raises:
        OSError: `path` is not a video that can be read.
    """
    lines = _frame_lines(path, "framecrc", ("-c", "copy", "-copyinkf"))
    header = dict(line[1:].split(" 0: ", 1) for line in lines if line.startswith("#") and " 0: " in line)
    packets = [line.split(",") for line in lines if not line.startswith("#")]
    if not packets or header.get("codec_id") not in _A_PACKET_A_FRAME or not _flags(packets[0]) & _KEY:
        return None
    shown = sorted((int(fields[2]), int(fields[3])) for fields in packets if not _flags(fields) & _NOT_SHOWN)
    times = [int(fields[2]) for fields in packets]
    if _NO_TIME in times or min(times) < times[0] or len(set(times)) < len(times):
        return None
    if any(_flags(fields) & _CORRUPT or int(fields[2]) < int(fields[1]) for fields in packets):  # shown before it is decoded
        return None
    base, tick = Fraction(header["tb"]) * int(TIMESCALE), 1.0 / float(TIMESCALE)
    return [FrameTime(_rounded(time * base) * tick, _rounded(length * base) * tick) for time, length in shown]


def decoded_frames(path: Path) -> list[DecodedFrame]:
    """Return the frames that ffmpeg shows of `path`, after edit lists.

    Raises:
        OSError: `path` is not a video that can be read.
    """
    lines = _frame_lines(path, "framemd5", ("-enc_time_base", f"1:{TIMESCALE}"))
    fields, tick = (line.split(",") for line in lines if not line.startswith("#")), 1.0 / float(TIMESCALE)
    return [DecodedFrame(int(line[2]) * tick, int(line[3]) * tick, line[5].strip()) for line in fields]


def _frame_lines(path: Path, muxer: str, codec: Sequence[str]) -> list[str]:
    """Return the lines that ffmpeg's `muxer` (framecrc or framemd5) writes of `path`: one for each frame, after those of "#".

    Raises:
        OSError: `path` is not a video that can be read.
    """
    arguments = ["-map", "0:v:0", *codec, "-fps_mode", "passthrough", "-f", muxer]
    with ffmpeg_reading(path, arguments) as output:
        return [line for line in output.read().decode().splitlines() if line]


def _flags(fields: Sequence[str]) -> int:
    """Return the flags of a packet in a line of framecrc, which leaves out those of a plain key frame."""
    return next((int(text.strip()[2:], 16) for text in fields if text.strip().startswith("F=")), _KEY)


def _rounded(number: Fraction) -> int:
    """Return the nearest integer; halves are rounded up as in ffmpeg."""
    return (2 * number.numerator + number.denominator) // (2 * number.denominator)
