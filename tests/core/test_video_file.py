import os

import imageio_ffmpeg
import numpy as np
import pytest
import torch

from svi_core import video_file
from svi_core.video_file import GrowingVideo, check_output_prefix, count_frames, new_run_folder, to_uint8


def moving_ramp(num_frames, start=0, height=32, width=48):
    """Frames whose grey level tells their place in the video."""
    levels = (np.arange(start, start + num_frames) * 5 % 200 + 20).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (num_frames, height, width, 3)).copy()


def decode(path):
    reader = imageio_ffmpeg.read_frames(str(path))
    meta = next(reader)
    width, height = meta["size"]
    return meta, np.stack([np.frombuffer(frame, np.uint8).reshape(height, width, 3) for frame in reader])


def test_video_grows_clip_by_clip_and_every_frame_is_in_its_place(tmp_path):
    video = GrowingVideo(tmp_path)
    total = 0
    for length in (9, 4, 1, 7):
        video.append(moving_ramp(length, total))
        total += length
        assert count_frames(video.path) == total
    meta, frames = decode(video.path)
    assert meta["fps"] == 16 and meta["codec"] == "h264" and "yuv420p" in meta["pix_fmt"]
    assert np.abs(frames.mean((1, 2, 3)) - moving_ramp(total).mean((1, 2, 3))).max() < 2.5
    assert sorted(p.name for p in tmp_path.iterdir()) == [*(f"clip_000{i}.mp4" for i in range(1, 5)), "video.mp4"]


def test_colours_survive(tmp_path):
    colours = np.array([[200, 40, 40], [40, 180, 60], [50, 60, 200]], np.uint8)
    frames = np.repeat(np.repeat(colours, 16, 0)[None, None], 32, 1).repeat(4, 0)
    video = GrowingVideo(tmp_path)
    video.append(frames)
    _, decoded = decode(video.path)
    for index, colour in enumerate(colours):
        assert np.abs(decoded[2, 16, index * 16 + 8].astype(int) - colour).max() <= 12


def test_joined_frames_are_the_clips_own_frames_bit_for_bit(tmp_path):
    generator = np.random.default_rng(0)
    video = GrowingVideo(tmp_path)
    for length in (5, 6):
        video.append(generator.integers(0, 255, (length, 32, 48, 3), dtype=np.uint8))
    clips = np.concatenate([decode(path)[1] for path in video.segments])
    assert np.array_equal(decode(video.path)[1], clips)


def test_a_failing_encoder_leaves_the_finished_video_alone(tmp_path, monkeypatch):
    video = GrowingVideo(tmp_path)
    video.append(moving_ramp(5))
    before = video.path.read_bytes()
    monkeypatch.setattr(video_file, "encode_h264", lambda path, *_: path.write_bytes(before[:200]))
    with pytest.raises(OSError, match="cannot be read back"):
        video.append(moving_ramp(5))
    assert video.path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip_0001.mp4", "video.mp4"]


def test_a_short_file_is_never_moved_into_place(tmp_path, monkeypatch):
    real = video_file.encode_h264
    monkeypatch.setattr(video_file, "encode_h264", lambda path, frames, *rest: real(path, frames[:-1], *rest))
    with pytest.raises(OSError, match="holds 4 frames instead of 5"):
        GrowingVideo(tmp_path).append(moving_ramp(5))
    assert list(tmp_path.iterdir()) == []


def test_full_disk_is_told_with_the_path(tmp_path):
    folder = tmp_path / "gone"
    with pytest.raises(OSError, match="gone.*check free space"):
        GrowingVideo(folder).append(moving_ramp(3))


def test_to_uint8_rounds_and_clips():
    frames = torch.tensor([-1.0, 0.0, 0.5 / 255, 0.51 / 255, 254.4 / 255, 1.0, 2.0])
    assert to_uint8(frames).tolist() == [0, 0, 0, 1, 254, 255, 255]


@pytest.mark.parametrize("prefix", ["video", "svi/story", "a b/ü 文"])
def test_run_folders_are_numbered_and_never_shared(tmp_path, prefix):
    first, second = new_run_folder(tmp_path, prefix), new_run_folder(tmp_path, prefix)
    assert first.name.endswith("_00001") and second.name.endswith("_00002")
    assert first.is_relative_to(tmp_path)


@pytest.mark.parametrize(
    "prefix",
    ["", "  ", "/etc/x", "../x", "a/../../x", "a\\..\\x", "C:x", "x\0y", "a\nb", "n" * 300, "~/x", "."],
)
def test_prefixes_that_leave_the_folder_are_refused(tmp_path, prefix):
    with pytest.raises(ValueError, match="filename_prefix"):
        check_output_prefix(prefix)


@pytest.mark.skipif(os.name == "nt", reason="symlinks need rights on Windows")
def test_a_symlink_out_of_the_folder_is_refused(tmp_path):
    outside, output = tmp_path / "outside", tmp_path / "output"
    outside.mkdir(), output.mkdir()
    (output / "link").symlink_to(outside)
    with pytest.raises(ValueError, match="leads out"):
        new_run_folder(output, "link/video")
    assert list(outside.iterdir()) == []
