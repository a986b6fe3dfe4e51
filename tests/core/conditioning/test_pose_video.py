"""Pose videos: frames fitted by hand, windows of clips by hand, and files read without holding them."""

import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from svi_core.conditioning import pose_video
from svi_core.conditioning.pose_video import (
    PoseVideo,
    ReadAhead,
    WhenPosesEnd,
    fit_pose,
    num_clips_for,
    pose_file,
    pose_images,
    pose_indices,
)
from svi_core.video.source_video import probe_video
from svi_core.video.video_file import VideoCoding, read_frames, write_video
from tests.timed_videos import cut, number_of, sixty_then_ten, uneven

LOOP, STOP, HOLD = WhenPosesEnd
REAL = Path("/work/shared/data/pose/pose.mp4")


def test_clips_share_one_pose_and_bring_80_new_ones():
    """docs/METHOD.md, 8.4: next clip = last 1 + next 80. 300 poses; the released code's repeat of frame 80 is not ours."""
    assert pose_indices(0, 81, 300, LOOP) == list(range(81))
    assert pose_indices(80, 81, 300, LOOP) == list(range(80, 161))
    assert pose_indices(240, 81, 300, LOOP) == [*range(240, 300), *range(21)]


def test_what_comes_after_the_last_pose():
    assert pose_indices(8, 9, 12, LOOP) == [8, 9, 10, 11, 0, 1, 2, 3, 4]
    assert pose_indices(8, 9, 12, HOLD) == [8, 9, 10, 11, 11, 11, 11, 11, 11] == pose_indices(8, 9, 12, STOP)
    assert pose_indices(16, 5, 12, HOLD) == [11] * 5
    assert pose_indices(0, 9, 4, LOOP) == [0, 1, 2, 3, 0, 1, 2, 3, 0]


def test_the_shared_frame_of_a_continued_video_has_the_first_pose():
    assert pose_indices(-1, 5, 12, LOOP) == [0, 0, 1, 2, 3]


@pytest.mark.parametrize(
    ("poses", "clips"), [(1, 1), (2, 1), (81, 1), (82, 2), (161, 2), (162, 3), (223, 3), (241, 3), (242, 4)]
)
def test_as_many_clips_as_the_poses_need(poses, clips):
    assert num_clips_for(poses, 81, 1) == clips
    assert 80 * clips + 1 >= poses and (clips == 1 or 80 * (clips - 1) + 1 < poses)


def numbered(height: int, width: int) -> np.ndarray:
    """A picture whose red tells the row and green the column."""
    rows, columns = np.mgrid[0:height, 0:width]
    return np.stack([rows, columns, np.full_like(rows, 9)], axis=-1).astype(np.uint8)


def test_a_narrow_pose_is_padded_left_and_right():
    """4 x 2 -> 8 x 8: twice as large, 8 x 4, two black columns on each side."""
    fitted = fit_pose(numbered(4, 2), 8, 8)
    assert (fitted[:, :2] == 0).all() and (fitted[:, 6:] == 0).all()
    assert fitted[:, 2, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and fitted[0, 2:6, 1].tolist() == [0, 0, 1, 1]
    assert (fitted[:, 2:6, 2] == 9).all()


def test_a_wide_pose_is_padded_above_and_below_the_odd_row_below():
    """2 x 4 -> width 6, height 8: 1.5 times, 3 x 6, five rows over: two above, three below."""
    fitted = fit_pose(numbered(2, 4), 6, 8)
    assert fitted[:, 0, 2].tolist() == [0, 0, 9, 9, 9, 0, 0, 0]
    assert fitted[2:5, 0, 0].tolist() == [0, 0, 1] and fitted[2, :, 1].tolist() == [0, 0, 1, 2, 2, 3]


def test_smaller_sizes_take_the_pixel_at_or_before_the_place():
    assert fit_pose(numbered(5, 5), 2, 2)[:, :, 0].tolist() == [[0, 0], [2, 2]]


@pytest.mark.parametrize("size", [(1088, 608), (100, 333), (481, 832), (16, 16)])
def test_fitting_is_nearest_interpolation_with_padding(size):
    """The released form: torch's nearest interpolation to the truncated size, then constant padding."""
    generator = torch.Generator().manual_seed(3)
    frame = torch.randint(0, 256, (*size, 3), generator=generator, dtype=torch.uint8)
    scale = min(832 / size[0], 480 / size[1])
    inner = [int(side * scale + 1e-9) for side in size]
    resized = torch.nn.functional.interpolate(frame.movedim(-1, 0)[None].double(), inner, mode="nearest")
    pads = [total // 2 for total in (832 - inner[0], 480 - inner[1])]
    expected = torch.zeros(832, 480, 3)
    expected[pads[0] : pads[0] + inner[0], pads[1] : pads[1] + inner[1]] = resized[0].movedim(0, -1)
    difference = (torch.from_numpy(fit_pose(frame.numpy(), 480, 832)).float() - expected).abs().amax(-1)
    assert (difference > 0).float().mean() < 0.01  # torch rounds its scale to float, which moves a row or column now and then


def test_a_pose_of_the_right_size_is_untouched():
    assert (fit_pose(numbered(32, 48), 48, 32) == numbered(32, 48)).all()


def brightness(num_frames: int, first: int = 0) -> np.ndarray:
    """Frames [n, 32, 32, 3] whose grey tells their number, 3 levels apart so that the codec cannot mix them up."""
    return np.repeat(np.arange(first, first + num_frames, dtype=np.uint8) * 3 + 20, 32 * 32 * 3).reshape(-1, 32, 32, 3)


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("poses") / "pose.mp4"
    write_video(path, [brightness(60)], VideoCoding(crf=0, frame_rate=24))
    return path


def numbers(frames: torch.Tensor) -> list[int]:
    return ((frames.float().mean((1, 2, 3)) - 20) / 3).round().int().tolist()


def test_a_file_gives_the_frames_asked_for_in_that_order(video):
    poses = pose_file(video, 24.0)
    assert len(poses.digests) == 60 == len(set(poses.digests)) and poses.frame_rate == 24.0
    for indices in (range(9), range(40, 60), [58, 59, 0, 1, 2], [5, 5, 5], [59]):
        assert numbers(poses.read(list(indices), 32, 32)) == list(indices)


def test_a_file_and_its_frames_are_the_same_poses(video):
    frames = np.stack(list(read_frames(video)))
    images = pose_images(torch.from_numpy(frames).float() / 255)
    poses = pose_file(video, 24.0)
    assert images.digests == poses.digests and images.frame_rate is None
    indices = [50, 51, 52, 3, 4, 4]
    assert torch.equal(images.read(indices, 48, 16), poses.read(indices, 48, 16))


class Asked:
    """Poses that note what is read of them, and in which thread."""

    digests, frame_rate = (), None

    def __init__(self, poses: PoseVideo):
        self.poses, self.reads = poses, []

    def read(self, indices, width, height):
        self.reads.append((list(indices), threading.current_thread() is threading.main_thread()))
        return self.poses.read(indices, width, height)


def test_the_next_clip_s_poses_are_read_beside_the_clip_before_it(video):
    asked = Asked(pose_file(video, 24.0))
    ahead = ReadAhead(asked)
    for start in (0, 8):
        shown = list(range(start, start + 9))
        assert numbers(ahead.read(shown, [frame + 8 for frame in shown], 32, 32)) == shown
    small = ahead.read(list(range(16, 25)), [0], 16, 16)  # another size than was expected
    assert numbers(small) == list(range(16, 25)) and small.shape[1:3] == (16, 16)
    assert numbers(ahead.read([0], [1], 16, 16)) == [0]
    assert numbers(ahead.read([0], [1], 16, 16)) == [0] and numbers(ahead.read([1], [2], 16, 16)) == [1]
    assert [read for read, _ in asked.reads].count([1]) == 1  # though the clip before was asked for twice
    first = [(list(range(9)), True), (list(range(8, 17)), False), (list(range(16, 25)), False)]
    assert asked.reads[:2] == first[:2] and sorted(asked.reads[2:5]) == sorted(
        [first[2], (list(range(16, 25)), True), ([0], False)]
    )


def test_a_failure_of_a_read_beside_a_clip_is_told_at_the_clip_that_needs_it(video, tmp_path):
    path = tmp_path / "pose.mp4"
    path.write_bytes(video.read_bytes())
    ahead = ReadAhead(pose_file(path, 24.0))
    assert numbers(ahead.read([0], [0], 32, 32)) == [0]
    assert numbers(ahead.read([0], [2, 3], 32, 32)) == [0]
    write_video(path, [255 - brightness(60)], VideoCoding(crf=0, frame_rate=24))
    with suppress(OSError):  # in time or not, by how fast the thread was
        assert numbers(ahead.read([2, 3], [4], 32, 32)) == [2, 3]
    for _ in range(2):
        with pytest.raises(OSError, match="leave it as it is, and run again"):
            ahead.read([4], [5], 32, 32)
    path.write_bytes(video.read_bytes())
    assert numbers(ahead.read([4], [5], 32, 32)) == [4] and numbers(ahead.read([5], [6], 32, 32)) == [5]


def test_a_trimmed_file_has_the_frames_of_its_part(video):
    """From 1 s for 0.5 s at 24 frames per second: frames 24 .. 35."""
    poses = pose_file(video, 24.0, 1.0, 0.5)
    assert len(poses.digests) == 12
    assert numbers(poses.read([0, 5, 11], 32, 32)) == [24, 29, 35]
    assert len(pose_file(video, 24.0, 2.0).digests) == 12
    with pytest.raises(ValueError, match="60 frames, none of them in the part that begins at 3 s"):
        pose_file(video, 24.0, 3.0)


def test_a_video_of_varying_rate_gives_its_poses_in_time(tmp_path):
    """60 frames in a second, then 20 in two: what is on screen at each of 27.24 ticks per second, the average rate."""
    path, times = uneven(tmp_path / "pose.mp4", sixty_then_ten()), [round(time, 3) for time in sixty_then_ten()]
    poses = pose_file(path, 27.24)
    ticks = [(k + 0.25) / 27.24 for k in range(80)]
    expected = [max(index for index, time in enumerate(times) if time <= tick) for tick in ticks]
    assert [number_of(pose.numpy()) for pose in poses.read(range(80), 64, 64)] == expected
    assert poses.frame_rate == 27.24 and expected[27:32] == [60, 60, 60, 61, 61]
    late = pose_file(path, 27.24, 1.5, 0.5)
    assert late.digests == poses.digests[41:55]
    assert [number_of(pose.numpy()) for pose in late.read([13, 0, 1, 0], 64, 64)] == [expected[k] for k in (54, 41, 42, 41)]


def test_a_wrong_rate_in_a_header_is_not_taken_for_that_of_the_poses(video):
    poses = pose_file(video, 600.0)
    assert (len(poses.digests), poses.frame_rate) == (60, 24.0) and pose_file(video, 24.01).frame_rate == 24.01


def test_a_cut_video_gives_the_poses_that_it_shows(tmp_path, video):
    assert numbers(pose_file(cut(video, tmp_path / "cut.mp4", 0.5), 24.0).read([0, 1, 47], 32, 32)) == [12, 13, 59]


def test_only_what_a_clip_shows_is_decoded_and_kept(tmp_path, monkeypatch):
    path = tmp_path / "long.mp4"
    chunks = (np.random.default_rng(k).integers(0, 256, (24, 16, 16, 3), np.uint8) for k in range(50))
    write_video(path, chunks, VideoCoding(crf=30, frame_rate=24))
    poses = pose_file(path, 24.0)
    counted = []

    def counting(*arguments):
        for frame in read_frames(*arguments):
            counted.append(1)
            yield frame

    monkeypatch.setattr(pose_video, "read_frames", counting)
    poses.read(list(range(1000, 1009)), 16, 16)
    assert 9 <= len(counted) < 120, "frames decoded for 9 frames near the end of 1200"


def test_frame_times_that_do_not_fit_the_frame_rate_do_no_harm(video):
    """The jump lands too late: the file is read from its beginning instead."""
    poses = pose_file(video, 24.0)
    times = tuple(index / 1e6 for index in range(60))
    wrong = replace(poses, shown=replace(poses.shown, times=times, end=60 / 1e6))
    assert numbers(wrong.read([3, 4], 32, 32)) == [3, 4]


def test_a_file_that_changed_is_noticed(video, tmp_path):
    path = tmp_path / "pose.mp4"
    path.write_bytes(video.read_bytes())
    poses = pose_file(path, 24.0)
    write_video(path, [brightness(20, first=30)], VideoCoding(crf=0, frame_rate=24))
    with pytest.raises(OSError, match="pose.mp4 is not the pose video that it was"):
        poses.read([2, 3], 32, 32)


def test_no_poses_are_refused(tmp_path):
    with pytest.raises(ValueError, match="poses holds no image"):
        pose_images(torch.zeros(0, 16, 16, 3))
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(OSError, match="a.mp4 is not a video"):
        pose_file(tmp_path / "a.mp4", 24.0)


def test_reading_may_be_stopped(video):
    class Interrupt(BaseException):
        pass

    def stop():
        raise Interrupt

    with pytest.raises(Interrupt):
        pose_file(video, 24.0, on_frame=stop)


@pytest.mark.skipif(not REAL.is_file(), reason=f"{REAL} is not here")
def test_a_real_pose_video():
    source = probe_video(REAL)
    poses = pose_file(REAL, source.frame_rate)
    assert len(poses.digests) == source.num_frames == 223 and num_clips_for(223, 81, 1) == 3
    indices = pose_indices(160, 81, 223, LOOP)  # the third clip: 63 poses to the end, then 18 from the beginning
    clip = poses.read(indices, 480, 832)
    whole = list(read_frames(REAL))
    assert clip.shape == (81, 832, 480, 3)
    for frame in (0, 40, 62, 63, 80):
        assert np.array_equal(clip[frame].numpy(), fit_pose(whole[indices[frame]], 480, 832))
