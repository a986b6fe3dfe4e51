"""Small videos to score: a camera that moves over blocks, one that stands still, and one that plays a clip again."""

from pathlib import Path

import numpy as np

from svi_core.video.video_file import VideoCoding, write_video

HEIGHT, WIDTH = 32, 48


def moving(seed: int = 0, num_frames: int = 30) -> np.ndarray:
    """Return frames [T, 32, 48, 3] of a camera that moves to the right by a pixel a frame."""
    random = np.random.default_rng(seed)
    blocks = random.integers(40, 200, (HEIGHT // 8, (WIDTH + num_frames) // 8 + 1, 3))
    wide = np.kron(blocks, np.ones((8, 8, 1))) + random.integers(0, 30, (HEIGHT, blocks.shape[1] * 8, 3))
    return np.stack([wide[:, step : step + WIDTH] for step in range(num_frames)]).astype(np.uint8)


def still(num_frames: int = 30) -> np.ndarray:
    return np.repeat(moving(99, 1), num_frames, axis=0)


def repeated(num_frames: int = 30) -> np.ndarray:
    """Return a video whose second clip of three is the first again."""
    clip = num_frames // 3
    frames = moving(7, num_frames)
    return np.concatenate([frames[:clip], frames[:clip], frames[2 * clip :]])


def reversed_(num_frames: int = 30) -> np.ndarray:
    """Return a video whose second clip of three is the first, played backwards."""
    clip = num_frames // 3
    frames = moving(8, num_frames)
    return np.concatenate([frames[:clip], frames[:clip][::-1], frames[2 * clip :]])


def save(path: Path, frames: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, iter([frames]), VideoCoding(crf=0, pixel_format="yuv444p"))  # so small a picture bears no loss
    return path
