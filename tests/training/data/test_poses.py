"""Poses beside clips: found, read by time, cut like the clip, kept without loss, and part of an example's name."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.fake_encoders import FakeEncoders
from tests.training.synthetic_clips import number_of, picture, write_clip, write_numbered
from training.data.build_cache import build_cache
from training.data.crops import Crop
from training.data.dataset import CachedDataset
from training.data.poses import cut_pose, packed_poses, read_poses, unpacked_poses
from training.data.sources import find_clips
from training.settings.data import DataConfig

WHOLE = Crop(0, 0, 64, 64, 64, 64, False)


def settings(folder: Path, **more) -> DataConfig:
    """Examples of 9 frames of 64 x 64 pixels, uncropped, so that frame numbers stay readable."""
    small = {"width": 64, "height": 64, "min_crop": 1.0, "num_frames": 9, "max_held_frames": 1, "held_out": 0.0}
    values = {"folder": str(folder), "cache": str(folder.parent / "cache"), "layout": "Dance", "p_motion": 1.0}
    return DataConfig(**{**values, **small, **more})


def write_pair(folder: Path, name: str = "one", num_frames: int = 30, num_poses: int | None = None, rate: int = 16) -> None:
    """Write a numbered clip at 16 per second, its caption, and a numbered pose video at `rate`."""
    write_numbered(folder / f"{name}.mp4", num_frames)
    (folder / f"{name}.txt").write_text("A dancer")
    write_numbered(folder / f"{name}.pose.mp4", num_poses or num_frames * rate // 16, rate)


def examples(config: DataConfig):
    dataset = CachedDataset(config.cache_folder, config)
    return [dataset.example(0, step) for step in range(len(dataset))]


def test_an_example_has_the_pose_of_each_of_its_frames(tmp_path):
    write_pair(tmp_path / "clips")
    config = settings(tmp_path / "clips", variants=3)
    assert build_cache(config, FakeEncoders()).num_encoded == 3
    for example in examples(config):
        poses = example.extras["pose"]
        first = round(float(example.latent[0, 0, 0, 0]))
        assert poses.shape == (9, 64, 64, 3) and poses.dtype == torch.uint8
        assert [number_of(pose.numpy()) for pose in poses] == list(range(first, first + 9))
        assert torch.equal(poses[0], torch.from_numpy(picture(first)))  # to the bit: nothing is interpolated


def test_poses_are_read_by_time(tmp_path):
    """A pose video at twice the clip's rate: its frame 2k belongs to frame k."""
    write_pair(tmp_path / "clips", rate=32)
    config = settings(tmp_path / "clips")
    build_cache(config, FakeEncoders())
    (example,) = examples(config)
    first = round(float(example.latent[0, 0, 0, 0]))
    assert [number_of(pose.numpy()) for pose in example.extras["pose"]] == [2 * frame for frame in range(first, first + 9)]


def test_a_pose_video_is_no_clip_and_a_table_can_name_it(tmp_path):
    for name in ("a.mp4", "a.pose.mp4", "b.mov", "b.pose.mp4", "c.mp4", "poses/c.mp4", "lonely.pose.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"not looked into here")
    (tmp_path / "table.csv").write_text("Filename,Caption,Pose\nc.mp4,c,poses/c.mp4\na.mp4,a,\n")
    (tmp_path / "table.jsonl").write_text('{"file": "b.mov", "caption": "b", "pose": "gone.mp4"}\n')
    clips, rejected = find_clips(tmp_path, "something")
    poses = {clip.name: clip.pose and clip.pose.relative_to(tmp_path.resolve()).as_posix() for clip in clips}
    assert poses == {"a.mp4": "a.pose.mp4", "b.mov": "b.pose.mp4", "c.mp4": "poses/c.mp4", "lonely.pose.mp4": None}
    assert [(item.where, item.reason) for item in rejected] == [("table.jsonl line 1", "there is no file 'gone.mp4'")]


def test_a_clip_without_poses_is_named_and_other_layouts_do_not_ask(tmp_path):
    write_pair(tmp_path / "clips")
    write_numbered(tmp_path / "clips/bare.mp4", 31)
    (tmp_path / "clips/bare.txt").write_text("Nobody")
    report = build_cache(settings(tmp_path / "clips"), FakeEncoders())
    assert [item.where for item in report.rejected] == ["bare.mp4"] and "put bare.pose.mp4 next to it" in report.rejected[
        0
    ].reason
    shot = settings(tmp_path / "clips", layout="Shot")
    assert build_cache(shot, FakeEncoders()).num_encoded == 2
    assert all(example.extras == {} for example in examples(shot))


def test_another_pose_file_is_another_example(tmp_path):
    write_pair(tmp_path / "clips")
    config = settings(tmp_path / "clips")
    build_cache(config, FakeEncoders())
    assert build_cache(config, FakeEncoders()).num_encoded == 0
    before = CachedDataset(config.cache_folder, config).content_hash
    write_clip(tmp_path / "clips/one.pose.mp4", [picture(number + 50) for number in range(30)])
    assert build_cache(config, FakeEncoders()).num_encoded == 1
    assert CachedDataset(config.cache_folder, config).content_hash != before
    (example,) = examples(config)
    assert number_of(example.extras["pose"][0].numpy()) == round(float(example.latent[0, 0, 0, 0])) + 50


def test_a_short_pose_video_holds_its_last_pose_and_a_shorter_one_is_refused(tmp_path):
    path = write_numbered(tmp_path / "pose.mp4", 8)
    held = read_poses(path, 16, range(9), WHOLE, (64, 64), 1)
    assert [number_of(pose.numpy()) for pose in held] == [0, 1, 2, 3, 4, 5, 6, 7, 7]
    with pytest.raises(ValueError, match=r"pose.mp4, that is too short: it ends 2 frames"):
        read_poses(path, 16, range(10), WHOLE, (64, 64), 1)
    with pytest.raises(ValueError, match="too short"):
        read_poses(path, 16, range(100, 109), WHOLE, (64, 64), 1)


def test_held_frames_of_the_clip_have_the_same_pose(tmp_path):
    path = write_numbered(tmp_path / "pose.mp4", 8)
    assert [number_of(pose.numpy()) for pose in read_poses(path, 16, (5, 6, 7, 7, 7), WHOLE, (64, 64), 0)] == [5, 6, 7, 7, 7]


def test_poses_are_cut_where_the_clip_is():
    """The slow way: pixel by pixel, each the one at or before its exact place."""
    pose = np.random.default_rng(0).integers(0, 256, (20, 40, 3), np.uint8)
    crop = Crop(left=8, top=4, box_width=48, box_height=32, width=24, height=16, flip=False)
    cut = cut_pose(pose, crop, (80, 40))  # the clip is twice as large as its poses
    for row in range(16):
        for column in range(24):
            expected = pose[int((4 + row * 32 / 16) / 2), int((8 + column * 48 / 24) / 2)]
            assert np.array_equal(cut[row, column], expected)
    with pytest.raises(ValueError, match="40 x 20 pixels, another shape than its clip's 64 x 64"):
        cut_pose(pose, crop, (64, 64))


def test_packing_loses_nothing():
    poses = torch.randint(0, 256, (5, 16, 24, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert torch.equal(unpacked_poses(packed_poses(poses)), poses)


def test_poses_are_not_mirrored(tmp_path):
    with pytest.raises(ValueError, match="data.flip is True: use false with poses"):
        settings(tmp_path, flip=True)
