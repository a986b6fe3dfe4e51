"""PSNR, SSIM and FVD: what is asked of the library and of the network, and the Frechet distance by hand."""

import sys
import types

import numpy as np
import pytest
import torch

from batch.scoring.sample import Sample
from batch.scoring.truth import (
    frechet_distance,
    frechet_video_distance,
    missing_for_fvd,
    missing_for_pairs,
    psnr_and_ssim,
    true_videos,
)
from svi_core.files.fingerprint import file_sha256
from svi_core.video.video_file import VideoCoding, write_video
from tests.batch.scored_videos import moving, save


def test_frechet_distance_by_hand():
    """Its square between Gaussians with diagonal covariance: (difference of means)^2 + sum of (difference of deviations)^2."""
    random = np.random.default_rng(0)
    normal = random.normal(size=(200_000, 3))
    ours, theirs = normal * [1, 2, 3] + [0, 0, 1], normal[::-1] * [2, 2, 1] + [1, 0, 1]
    assert frechet_distance(ours, theirs) == pytest.approx((1 + 1 + 4) ** 0.5, rel=0.02)
    assert frechet_distance(ours, ours) == pytest.approx(0, abs=1e-3)


def test_fvd_is_its_square_over_windows_of_sixteen_frames(tmp_path):
    paths = [save(tmp_path / f"{seed}.mp4", moving(seed, 50)) for seed in range(4)]
    shapes, seen = [], []

    def features(pixels: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(pixels.shape))
        assert -1 <= pixels.min() < -0.3 and pixels.max() <= 1
        seen.append([float(pixels.mean()), float(pixels.std())])
        return torch.tensor([seen[-1]])

    found = frechet_video_distance(paths[:2], paths[2:], tmp_path / "i3d", features)
    assert set(shapes) == {(1, 3, 16, 224, 224)} and len(shapes) == 4 * 3  # the last two frames are no window
    assert found == pytest.approx(frechet_distance(np.array(seen[:6]), np.array(seen[6:])) ** 2, rel=1e-4)
    assert frechet_video_distance(paths[:2], paths[2:], tmp_path / "i3d", features) == found and len(seen) == 12, "kept"
    (kept,) = (path for path in (tmp_path / "i3d").iterdir() if path.name.startswith(file_sha256(paths[0])))
    kept.write_bytes(kept.read_bytes()[:-9])
    assert frechet_video_distance(paths[:2], paths[2:], tmp_path / "i3d", features) == found and len(seen) == 15, (
        "measured again"
    )
    with pytest.raises(ValueError, match="FVD needs 3 windows of 16 frames on each side, there are 0 and 6"):
        frechet_video_distance([save(tmp_path / "short.mp4", moving(0, 15))], paths[:2], tmp_path / "i3d", features)
    few = [save(tmp_path / "few.mp4", moving(0, 33))]
    with pytest.raises(ValueError, match="FVD needs 3 windows of 16 frames on each side, there are 6 and 2: score more"):
        frechet_video_distance(paths[:2], few, tmp_path / "i3d", features)


def test_frames_are_compared_one_by_one_at_the_size_of_ours(tmp_path):
    ours = save(tmp_path / "ours.mp4", moving(0, 6))
    true = save(tmp_path / "true.mp4", moving(0, 4).repeat(2, axis=1).repeat(2, axis=2))
    shapes = []

    def pair(own: np.ndarray, other: np.ndarray) -> tuple[float, float]:
        shapes.append((own.shape, other.shape))
        return 20.0 + len(shapes), 0.5

    assert psnr_and_ssim(ours, true, pair) == (22.5, 0.5, 4)  # over the four frames that both have
    assert set(shapes) == {((32, 48, 3), (32, 48, 3))}
    assert psnr_and_ssim(ours, ours, lambda own, other: (float("inf"), 1.0)) == (100.0, 1.0, 6)  # JSON has no infinity


def test_videos_of_other_rate_or_shape_are_not_compared(tmp_path):
    ours = save(tmp_path / "ours.mp4", moving(0, 6))
    write_video(tmp_path / "fast.mp4", iter([moving(0, 6)]), VideoCoding(frame_rate=25))
    with pytest.raises(ValueError, match=r"fast.mp4 has 25 frames per second and the video 16: convert it"):
        psnr_and_ssim(ours, tmp_path / "fast.mp4", lambda own, other: (1.0, 1.0))
    wide = save(tmp_path / "wide.mp4", moving(0, 6).repeat(2, axis=2))
    with pytest.raises(ValueError, match=r"wide.mp4 has 96 x 32 pixels and the video 48 x 32: crop it"):
        psnr_and_ssim(ours, wide, lambda own, other: (1.0, 1.0))


def test_the_library_gets_frames_from_0_to_1(tmp_path, monkeypatch):
    """torchmetrics is no requirement of ours: a stand-in checks what it is asked."""
    asked = []

    def metric(value: float):
        def measure(ours: torch.Tensor, theirs: torch.Tensor, data_range: float) -> torch.Tensor:
            asked.append((tuple(ours.shape), float(ours.max()), float((ours - theirs).abs().max()), data_range))
            return torch.tensor(value)

        return measure

    image = types.ModuleType("torchmetrics.functional.image")
    image.peak_signal_noise_ratio = metric(30.0)
    image.structural_similarity_index_measure = metric(0.9)
    for name in ("torchmetrics", "torchmetrics.functional"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image", image)
    video = save(tmp_path / "a.mp4", moving(0, 2))
    assert psnr_and_ssim(video, video) == pytest.approx((30.0, 0.9, 2))
    assert len(asked) == 4 and all(shape == (1, 3, 32, 48) and 0.5 < top <= 1 for shape, top, _, _ in asked)
    assert all(apart == 0 and data_range == 1.0 for _, _, apart, data_range in asked)


def test_what_is_missing_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("SVI_SCORE_MODELS", str(tmp_path))
    assert missing_for_pairs({}) == missing_for_fvd({}) == "no true videos: name their folder with --references"
    found = {"cat": tmp_path / "cat.mp4"}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert missing_for_pairs(found) == "the package torchmetrics is not installed"
    assert missing_for_fvd(found) == f"{tmp_path / 'i3d_torchscript.pt'} is not there"
    (tmp_path / "i3d_torchscript.pt").touch()
    assert missing_for_fvd(found) is None


def test_true_videos_have_the_same_name(tmp_path):
    for name in ("cat.avi", "dog.mp4", "cat.txt", "cat.png"):
        (tmp_path / name).touch()
    samples = [Sample(name, tmp_path / "x.mp4", "", (), (1,)) for name in ("cat", "fox")]
    assert true_videos(samples, tmp_path) == {"cat": tmp_path / "cat.avi"} and true_videos(samples, None) == {}
    (tmp_path / "cat.mp4").touch()
    with pytest.raises(ValueError, match=r"cat.avi and cat.mp4 have one name"):
        true_videos(samples, tmp_path)
    with pytest.raises(ValueError, match="holds no video of the name of one of these"):
        true_videos(samples[1:], tmp_path)
