"""Clips made on the fly whose every frame says its own number, for tests of reading, windows and the cache.

The left half of frame n has the grey level 16 + n; the right half is a fixed pattern, so that no frame is blank.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

FIRST_LEVEL = 16


def picture(number: int, width: int = 64, height: int = 64) -> np.ndarray:
    """Return frame `number` [H, W, 3] uint8."""
    pixels = np.empty((height, width, 3), np.uint8)
    pixels[:, : width // 2] = FIRST_LEVEL + number
    pixels[:, width // 2 :] = np.linspace(0, 255, height, dtype=np.uint8)[:, None, None]
    return pixels


def number_of(pixels: np.ndarray) -> int:
    """Return the number of a frame [H, W, 3] from the middle of its left half, in whichever size."""
    height, width = pixels.shape[:2]
    return round(float(pixels[height // 4 : -height // 4, width // 8 : width * 3 // 8].mean())) - FIRST_LEVEL


def write_clip(
    path: Path,
    pictures: Sequence[np.ndarray],
    rate: Fraction | int = 16,
    times: Sequence[float] | None = None,
    codec: str = "libx264rgb",
    gop: int = 12,
    pixel_aspect: Fraction | None = None,
) -> Path:
    """Write pictures losslessly, at a constant rate or at the given times in seconds (to the millisecond)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = {"libx264rgb": "rgb24", "ffv1": "bgr0", "libx264": "yuv420p", "mpeg4": "yuv420p"}[codec]
        stream.codec_context.gop_size = gop
        stream.codec_context.thread_count = 1
        if codec.startswith("libx264"):
            stream.options = {"qp": "0", "preset": "ultrafast"}
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        for index, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = round(times[index] * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_numbered(path: Path, num_frames: int, rate: Fraction | int = 16, width: int = 64, height: int = 64, **how) -> Path:
    """Write `num_frames` numbered frames."""
    return write_clip(path, [picture(number, width, height) for number in range(num_frames)], rate, **how)


def write_sound(path: Path) -> Path:
    """Write a file that holds sound only."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
