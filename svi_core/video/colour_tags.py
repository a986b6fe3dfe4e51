"""The colours that a video file declares, and what they mean for a video that is read, continued, or joined.

Frames are read with a video's own matrix and range, and new clips are written with the same ones, so that both sides of a
seam agree. Primaries and transfer are carried along. A model knows ordinary video only, so HDR and linear light are refused.
Source: Recommendation ITU-T H.273, https://www.itu.int/rec/T-REC-H.273 (numbers; chromaticities of table 2).
"""

import os
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np

RGB, BT709, UNKNOWN, BT601, BT2020 = 0, 1, 2, 6, 9  # BT2020: as primaries, and as the matrix of non-constant luminance
_RESERVED = (0, 3)
_HDR = {16: "HDR (PQ)", 18: "HDR (HLG)"}
_FULL_RANGE = 2  # ffmpeg's own number
_TRANSFERS = (BT709, UNKNOWN, 4, 5, 6, 7, 11, 12, 13, 14, 15)  # of ordinary video, which players show alike
_MATRICES = (BT709, UNKNOWN, 4, 5, BT601, 7, BT2020)  # that ffmpeg's scale filter reads and writes
_UNUSUAL_MATRICES = {RGB: "RGB", 8: "YCgCo", 10: "BT.2020 constant luminance", 12: "derived", 13: "derived", 14: "ICtCp"}
_UNUSUAL_TRANSFERS = {8: "linear", 9: "logarithmic", 10: "logarithmic", **_HDR}
_SMPTE_C = ((0.630, 0.340), (0.310, 0.595), (0.155, 0.070))
_CHROMATICITIES = {  # of red, green and blue; all these have the same white
    BT709: ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060)),
    5: ((0.640, 0.330), (0.290, 0.600), (0.150, 0.060)),
    BT601: _SMPTE_C,
    7: _SMPTE_C,
    BT2020: ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)),
    12: ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060)),
}
_WIDE = {BT2020: "BT.2020", 12: "P3"}  # primaries with more saturated colours than screens of ordinary video have
_WHITE = (0.3127, 0.3290)
_GAMMA = 2.4  # of a display (Recommendation ITU-R BT.1886)


@dataclass(frozen=True)
class Colours:
    """The colours of a video, by the numbers of H.273.

    Attributes:
        matrix: of the conversion to luma and chroma; an unknown one is read and written as BT.601, as ffmpeg does.
        primaries: which red, green and blue the values stand for.
        transfer: the curve from light to values.
        full_range: luma 0 .. 255 instead of 16 .. 235.
    """

    matrix: int = BT709
    primaries: int = BT709
    transfer: int = BT709
    full_range: bool = False

    @property
    def tag(self) -> str:
        """A short name, different for all colours; those with names have them since before the others were known."""
        numbers = self.matrix, self.primaries, self.transfer
        named = {(1, 1, 1): "", (2, 2, 2): "-unspecified", (6, 6, 6): "-bt601"}
        return named.get(numbers, "-h273-{}-{}-{}".format(*numbers)) + ("-full" if self.full_range else "")

    @property
    def encode_filter(self) -> str:
        """The ffmpeg filter that converts RGB to these colours and declares them."""
        matrix = BT601 if self.matrix == UNKNOWN else self.matrix
        extent = "pc" if self.full_range else "tv"
        declared = f"colorspace={self.matrix}:color_primaries={self.primaries}:color_trc={self.transfer}"
        return f"scale=out_color_matrix={matrix}:out_range={extent},setparams=range={extent}:{declared}"

    @property
    def shown_transfer(self) -> int:
        """The transfer as players show it: one for all ordinary video."""
        return BT709 if self.transfer in _TRANSFERS else self.transfer

    @property
    def shown_primaries(self) -> int:
        """The primaries, or those that players assume where the file names none."""
        if self.primaries != UNKNOWN:
            return self.primaries
        return BT2020 if self.matrix == BT2020 or self.transfer in _HDR else BT709

    @property
    def wide(self) -> str:
        """The name of wide primaries, which look pale where they are taken for BT.709; empty for others."""
        return _WIDE.get(self.shown_primaries, "")

    @property
    def fault(self) -> str:
        """What keeps frames from being read as ordinary video: an unusual transfer or matrix. Empty for ordinary video."""
        if self.transfer not in _TRANSFERS:
            return _UNUSUAL_TRANSFERS.get(self.transfer, f"transfer {self.transfer}")
        if self.matrix not in (RGB, *_MATRICES):
            return _UNUSUAL_MATRICES.get(self.matrix, f"matrix {self.matrix}")
        return ""

    def shown_like(self, other: "Colours") -> bool:
        """Whether players show the same encoded values alike."""
        mine, others = ((c.matrix, c.full_range, c.shown_primaries, c.shown_transfer) for c in (self, other))
        return mine == others


def declared_colours(frame: av.VideoFrame) -> Colours:
    """Return the colours of a decoded frame. Numbers that are reserved, and mean nothing, count as unknown."""
    matrix, primaries, transfer = int(frame.colorspace), int(frame.color_primaries), int(frame.color_trc)
    known = [UNKNOWN if number in _RESERVED else number for number in (matrix, primaries, transfer)]
    full_range = int(frame.color_range) == _FULL_RANGE or frame.format.name.startswith("yuvj")
    return Colours(RGB if matrix == RGB else known[0], known[1], known[2], full_range)


def require_ordinary(path: Path, colours: Colours, allow_rgb: bool = False) -> None:
    """Refuse HDR and other colours of the video `path` that a model's clips cannot have.

    Raises:
        ValueError: the message has a command that converts the file.
    """
    fault = colours.fault or ("" if allow_rgb or colours.matrix != RGB else _UNUSUAL_MATRICES[RGB])
    if fault:
        raise ValueError(f"{path.name} has {fault} colours, but SVI makes ordinary video: {conversion(path, colours)}")


def require_convertible(path: Path, colours: Colours, wanted: Colours) -> None:
    """Refuse a video whose frames cannot be shown in the colours `wanted`.

    Raises:
        ValueError: unusual colours, or primaries that :func:`with_primaries` does not know; the message has a command that
            converts the file.
    """
    require_ordinary(path, colours, allow_rgb=True)
    old, new = colours.shown_primaries, wanted.shown_primaries
    if old != new and old not in _CHROMATICITIES:
        raise ValueError(f"{path.name} has colours of primaries {old}, but {new} are needed: {conversion(path, colours)}")


def conversion(path: Path, colours: Colours) -> str:
    """Return the advice to convert the video `path` to BT.709, with a command for a shell. HDR is tone-mapped."""
    target = path.with_name(f"{path.stem}-bt709.mp4")
    filters = _filters_to_bt709(colours)
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-i", str(path), "-vf", filters, "-c:v", "libx264", "-crf", "14", str(target)]
    quoted = shlex.join(command) if os.name != "nt" else " ".join(map(_quoted_for_windows, command))
    return f"convert it with the following command, then use {target.name}.\n{quoted}"


def _quoted_for_windows(word: str) -> str:
    return word if re.fullmatch(r"[\w@%+=:,./\\-]+", word) else f'"{word}"'


def _filters_to_bt709(colours: Colours) -> str:
    matrix = colours.matrix if colours.matrix != UNKNOWN else BT2020 if colours.transfer in _HDR else BT601
    # zscale does not know 12, which is nearly BT.709
    transfer = BT709 if colours.transfer in (UNKNOWN, 12) else colours.transfer
    read = f"zscale=pin={colours.shown_primaries}:tin={transfer}"
    read += f":min={matrix}:rin={'full' if colours.full_range else 'limited'}"
    if colours.matrix == RGB:
        read = f"format=gbrp,zscale=pin={colours.shown_primaries}:tin={transfer}"
    mapped = ":p=bt709:t=linear:npl=100,format=gbrpf32le,tonemap=hable:desat=0,zscale=" if colours.transfer in _HDR else ":"
    return f"{read}{mapped}p=bt709:t=bt709:m=bt709:r=limited,format=yuv420p"


def with_primaries(frames: np.ndarray, old: Colours, new: Colours) -> np.ndarray:
    """Return `frames` [..., 3], uint8 RGB, from the primaries of `old` to those of `new`; clip what these cannot show."""
    if old.shown_primaries == new.shown_primaries:
        return frames
    matrix = np.linalg.inv(_to_xyz(new.shown_primaries)) @ _to_xyz(old.shown_primaries)
    light = (np.arange(256, dtype=np.float32) / 255.0) ** _GAMMA
    mixed = np.clip(light[frames] @ matrix.T.astype(np.float32), 0.0, 1.0)
    return np.rint(255.0 * mixed ** (1.0 / _GAMMA)).astype(np.uint8)


def _to_xyz(primaries: int) -> np.ndarray:
    """Return the matrix [3, 3] from linear RGB to CIE XYZ, in which RGB (1, 1, 1) is white."""
    columns = np.array([(x / y, 1.0, (1 - x - y) / y) for x, y in _CHROMATICITIES[primaries]]).T
    white = np.array([_WHITE[0] / _WHITE[1], 1.0, (1 - sum(_WHITE)) / _WHITE[1]])
    return columns * np.linalg.solve(columns, white)
