"""Measures against true videos: PSNR and SSIM by torchmetrics, and FVD by features of an I3D network on disk.

FVD takes the TorchScript file that StyleGAN-V's authors made of the Kinetics-400 network, which most papers use
(https://github.com/universome/stylegan-v): put `i3d_torchscript.pt` into `SVI_SCORE_MODELS` or ~/.cache/svi_score.
"""

from __future__ import annotations

import functools
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from batch.scoring.kept import kept_array
from batch.scoring.sample import VIDEO_SUFFIXES, Sample
from svi_core.files.fingerprint import file_sha256

if TYPE_CHECKING:
    import torch

I3D = "i3d_torchscript.pt"
MOST_PSNR = 100.0  # dB, in place of infinity for equal frames
WINDOW = 16  # frames of one feature
_NONE = np.empty((0, 1))  # features of a video without a window
_SIDE = 224  # pixels that the network sees
_RATE_TOLERANCE = 0.011  # frames per second; rates are rounded to two decimals
_SHAPE_TOLERANCE = 0.02  # of width / height

Features = Callable[["torch.Tensor"], "torch.Tensor"]  # [1, 3, 16, 224, 224] in [-1, 1] -> [1, 400]
Pair = Callable[[np.ndarray, np.ndarray], tuple[float, float]]  # frames [H, W, 3] uint8, ours and true -> PSNR, SSIM


def models_folder() -> Path:
    """Return the folder of the networks that no package brings."""
    return Path(os.environ.get("SVI_SCORE_MODELS") or Path.home() / ".cache" / "svi_score")


def true_videos(samples: Sequence[Sample], folder: Path | None) -> dict[str, Path]:
    """Return the true videos of `samples` by name: the videos of the same name in `folder`.

    Raises:
        OSError: the folder cannot be read.
        ValueError: none has the name of a sample, or two have the name of one.
    """
    if folder is None:
        return {}
    names = {sample.name for sample in samples}
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.stem not in names or path.suffix.lower() not in VIDEO_SUFFIXES or not path.is_file():
            continue
        if path.stem in found:
            raise ValueError(f"{folder}: {found[path.stem].name} and {path.name} have one name: keep one of them there")
        found[path.stem] = path
    if not found:
        raise ValueError(f"{folder} holds no video of the name of one of these: give true videos the names of ours")
    return found


def missing_for_pairs(truth: dict[str, Path]) -> str | None:
    """Return what PSNR and SSIM lack; None if they can be measured."""
    if not truth:
        return "no true videos: name their folder with --references"
    if importlib.util.find_spec("torchmetrics") is None:
        return "the package torchmetrics is not installed"
    return None


def missing_for_fvd(truth: dict[str, Path]) -> str | None:
    """Return what FVD lacks; None if it can be measured."""
    if not truth:
        return "no true videos: name their folder with --references"
    path = models_folder() / I3D
    return None if path.is_file() else f"{path} is not there"


def psnr_and_ssim(ours: Path, true: Path, pair: Pair | None = None) -> tuple[float, float, int]:
    """Return the means over the frames that both videos have, and their number; true frames are scaled to the size of ours.

    Raises:
        OSError: a video cannot be read.
        ValueError: the videos differ in frame rate or shape.
    """
    _require_alike(ours, true)
    measure = pair or _torchmetrics()
    values = [
        measure(own, _scaled(other, own.shape[1], own.shape[0])) for own, other in zip(*_frames(ours, true), strict=False)
    ]
    psnr, ssim = np.minimum(values, [MOST_PSNR, 1.0]).mean(axis=0)
    return float(psnr), float(ssim), len(values)


def _require_alike(ours: Path, true: Path) -> None:
    """Refuse two videos whose frames of one number show different times, or would be stretched."""
    from svi_core.video.source_video import probe_video

    own, other = probe_video(ours), probe_video(true)
    if abs(own.frame_rate - other.frame_rate) > _RATE_TOLERANCE:
        raise ValueError(f"{true.name} has {other.frame_rate:g} frames per second and the video {own.frame_rate:g}: convert it")
    if abs(own.width * other.height / (own.height * other.width) - 1) > _SHAPE_TOLERANCE:
        sizes = f"{other.width} x {other.height} pixels and the video {own.width} x {own.height}"
        raise ValueError(f"{true.name} has {sizes}: crop it to the same shape")


def frechet_video_distance(
    videos: Sequence[Path], truth: Sequence[Path], folder: Path, features: Features | None = None
) -> float:
    """Return the FVD of two sets of videos, by windows of 16 frames without overlap.

    Args:
        folder: where features are kept, by the sha256 of their video.
        features: by default those of the network on disk.

    Raises:
        ValueError: no more windows than a feature has numbers: their covariance would have no full rank.
        OSError: a video or the network cannot be read.
    """
    network = functools.cache(_network)  # not loaded if all features are kept

    def of(path: Path) -> np.ndarray:
        return kept_array(folder / f"{file_sha256(path)}.npy", lambda: _features_of(path, features or network()))

    ours, theirs = (np.concatenate([found for path in paths if len(found := of(path))] or [_NONE]) for paths in (videos, truth))
    needed = max(ours.shape[1], theirs.shape[1]) + 1
    if min(len(ours), len(theirs)) < needed:
        have = f"there are {len(ours)} and {len(theirs)}"
        raise ValueError(f"FVD needs {needed} windows of {WINDOW} frames on each side, {have}: score more or longer videos")
    return frechet_distance(ours, theirs) ** 2


def frechet_distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the Frechet distance, not squared, between Gaussians fitted to features [N, M] and [N', M]."""
    first, second = np.cov(ours, rowvar=False), np.cov(theirs, rowvar=False)
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    mixed = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(min=0)).sum()
    apart = ((ours.mean(axis=0) - theirs.mean(axis=0)) ** 2).sum()
    return float(np.sqrt(max(0.0, apart + np.trace(first) + np.trace(second) - 2 * mixed)))


def _frames(*videos: Path) -> list[Iterator[np.ndarray]]:
    from svi_core.video.video_file import read_frames

    return [read_frames(video) for video in videos]


def _scaled(frame: np.ndarray, width: int, height: int) -> np.ndarray:
    if frame.shape[:2] == (height, width):
        return frame
    return np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC))


def _features_of(video: Path, network: Features) -> np.ndarray:
    """Return the features [N, 400] of the windows of a video."""
    import torch

    found: list[np.ndarray] = []
    window: list[np.ndarray] = []
    for frame in _frames(video)[0]:
        window.append(_scaled(frame, _SIDE, _SIDE))
        if len(window) == WINDOW:
            pixels = torch.from_numpy(np.stack(window)).permute(3, 0, 1, 2)[None].float() / 127.5 - 1
            found.append(network(pixels).reshape(1, -1).cpu().double().numpy())
            window = []
    return np.concatenate(found) if found else _NONE


def _network() -> Features:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = torch.jit.load(str(models_folder() / I3D), map_location=device).eval()

    def features(pixels: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            return network(pixels.to(device), rescale=False, resize=False, return_features=True)

    return features


def _torchmetrics() -> Pair:
    import torch
    from torchmetrics.functional.image import (  # pyright: ignore[reportMissingImports]
        peak_signal_noise_ratio,
        structural_similarity_index_measure,
    )

    def pair(own: np.ndarray, true: np.ndarray) -> tuple[float, float]:
        ours, theirs = (torch.from_numpy(np.array(frame)).permute(2, 0, 1)[None].float() / 255 for frame in (own, true))
        psnr = peak_signal_noise_ratio(ours, theirs, data_range=1.0)
        ssim = structural_similarity_index_measure(ours, theirs, data_range=1.0)
        return float(psnr), float(ssim)

    return pair
