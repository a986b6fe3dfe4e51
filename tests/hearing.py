"""What is heard in a file, and by how much it comes later than it should."""

import subprocess
from pathlib import Path

import imageio_ffmpeg
import numpy as np

RATE = 16_000  # samples per second


def heard(path: Path, rate: int = RATE) -> np.ndarray:
    """Return the sound of a file, mixed to one channel."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path)]
    command += ["-ac", "1", "-ar", str(rate), "-f", "f32le", "-"]
    return np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.float32)


def delay_and_likeness(found: np.ndarray, source: np.ndarray, rate: int = RATE) -> tuple[float, float]:
    """Return by how many seconds `found` comes after `source`, by cross-correlation, and the correlation there."""
    size = 1 << (len(found) + len(source)).bit_length()
    product = np.fft.irfft(np.fft.rfft(found, size) * np.conj(np.fft.rfft(source, size)), size)
    best = int(product.argmax())
    norm = np.linalg.norm(found) * np.linalg.norm(source)
    return (best if best < size // 2 else best - size) / rate, float(product[best] / norm)
