"""Poses of a training clip: resampled and cropped like the clip, stored compressed.

Source: docs/METHOD.md, 8.1 (pose frames scaled by nearest neighbours, [0, 1], no interpolation between colours).
"""

import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.data.crops import Crop
from training.data.video_reading import read_ticks

_SAME_SHAPE = 0.02  # by which the aspect ratios of a clip and its pose video may differ, from rounding to even sizes
_PACKING = 1  # zlib's level; every level compresses black well


def read_poses(
    path: Path, rate: float, ticks: Sequence[int], crop: Crop, clip_size: tuple[int, int], max_held_frames: int
) -> Tensor:
    """Return the poses at `ticks`, [T, height, width, 3] uint8.

    Args:
        path: the pose video, which begins when its clip begins.
        rate: ticks per second.
        ticks: ascending; equal ticks give the same pose.
        crop: the clip's crop.
        clip_size: (width, height) of the clip's picture, to which `crop` refers; the pose video may have another size.
        max_held_frames: how often the last pose may be repeated if the pose video is slightly shorter than its clip.

    Raises:
        ValueError: the pose video cannot be read, has another aspect ratio than its clip, or is too short.
    """
    poses, seen, pose = [], None, None
    try:
        for tick, frame in read_ticks(path, rate, ticks[0]):
            if frame is not seen:
                seen, pose = frame, torch.from_numpy(cut_pose(frame.to_rgb(), crop, clip_size))
            poses += [pose] * ticks[len(poses) :].count(tick)
            if len(poses) == len(ticks):
                return torch.stack(poses)
    except ValueError as error:
        raise ValueError(f"has a pose video, {path.name}, that {error}") from error
    missing = len(ticks) - len(poses)
    if not poses or missing > max_held_frames:
        raise ValueError(
            f"has a pose video, {path.name}, that is too short: it ends {missing} frames (at {rate:g} per second) before the "
            "example does; draw a pose for every frame of the clip"
        )
    return torch.stack(poses + poses[-1:] * missing)


def cut_pose(picture: np.ndarray, crop: Crop, clip_size: tuple[int, int]) -> np.ndarray:
    """Crop a pose picture [h, w, 3] like its clip and resize it by nearest neighbours: [height, width, 3].

    Nothing is mirrored: a pose's colours distinguish left from right, so `DataConfig` refuses `flip` with poses.

    Raises:
        ValueError: the picture has another aspect ratio than the clip.
    """
    (rows, columns), (clip_columns, clip_rows) = picture.shape[:2], clip_size
    if abs(columns * clip_rows / (rows * clip_columns) - 1.0) > _SAME_SHAPE:
        raise ValueError(
            f"is {columns} x {rows} pixels, another shape than its clip's {clip_columns} x {clip_rows}: draw poses on the "
            "clip's whole picture"
        )
    from_rows = (crop.top * crop.height + np.arange(crop.height) * crop.box_height) * rows // (crop.height * clip_rows)
    from_columns = (crop.left * crop.width + np.arange(crop.width) * crop.box_width) * columns // (crop.width * clip_columns)
    return picture[from_rows[:, None], from_columns]


def packed_poses(poses: Tensor) -> dict[str, Tensor]:
    """Return `poses` [T, H, W, 3] uint8 as tensors for a file: the losslessly compressed bytes, and the shape."""
    packed = zlib.compress(poses.contiguous().numpy().tobytes(), _PACKING)
    return {"pose": torch.frombuffer(bytearray(packed), dtype=torch.uint8), "pose_shape": torch.tensor(poses.shape)}


def unpacked_poses(stored: Mapping[str, Tensor]) -> Tensor:
    """Return the poses that :func:`packed_poses` compressed."""
    shape = stored["pose_shape"].tolist()
    raw = zlib.decompress(stored["pose"].numpy().tobytes())
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8).view(shape)
