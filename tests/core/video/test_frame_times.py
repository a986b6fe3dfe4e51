"""Packets give the times that decoding gives, or say that they cannot."""

import pytest

from svi_core.video.frame_times import count_frames, decoded_frames, packet_times
from svi_core.video.video_file import VideoCoding, write_video
from tests.core.clips.test_continuation import foreign_video
from tests.core.video.test_video_file import moving_ramp
from tests.timed_videos import cut, ffmpeg, flash_and_click, one_late, sixty_then_ten, uneven

COPIED = ("b.mkv", "b.mov", "b.ts")


def made(folder, name):
    """Write a video of the kind that `name` says."""
    path, suffix = folder / name, name.rsplit(".", 1)[1]
    if name in COPIED:
        ffmpeg("-i", foreign_video(folder / "a.mp4", rate=24), "-c", "copy", path)
    elif name.startswith("cut"):
        cut(foreign_video(folder / "a.mp4", rate=30, seconds=2, size="64x64"), path, 0.5)
    elif name.startswith("uneven"):
        uneven(path, sixty_then_ten())
    elif name.endswith(("video late.mp4", "video late.ts", "sound late.mp4")):
        one_late(flash_and_click(folder / "a.mp4"), path, name.removesuffix(f".{suffix}"))
    else:
        write_video(path, [moving_ramp(5)], VideoCoding(name.split(".")[0], frame_rate=29.97))
    return path


@pytest.mark.parametrize(
    "name",
    [
        *("h264.mp4", "h265.mp4", "video late.mp4", "video late.ts", "sound late.mp4"),
        *("cut.mp4", "cut.mov", "cut.mkv", "uneven.mp4", "uneven.mkv", *COPIED),
    ],
)
def test_packets_give_the_times_of_the_decoded_frames(tmp_path, name):
    path = made(tmp_path, name)
    found = packet_times(path)
    assert found is not None
    assert [(frame.seconds, frame.duration) for frame in found] == [
        (frame.seconds, frame.duration) for frame in decoded_frames(path)
    ]
    assert count_frames(path) == count_frames(path, decode=True) == len(found)


def test_packets_that_cannot_tell(tmp_path):
    """An AVI with B-frames has no times; VP8 has packets that are never shown; a recording begins between two key frames."""
    source = foreign_video(tmp_path / "a.mp4", seconds=2)
    ffmpeg("-i", source, "-c", "copy", tmp_path / "a.avi")
    ffmpeg("-i", source, "-c:v", "libvpx", "-cpu-used", "8", tmp_path / "a.webm")
    ffmpeg("-i", source, "-c:v", "libx264", "-g", "16", tmp_path / "whole.ts")
    data = (tmp_path / "whole.ts").read_bytes()
    (tmp_path / "half.ts").write_bytes(data[len(data) // 376 * 188 :])
    assert packet_times(tmp_path / "whole.ts") is not None
    for name in ("a.avi", "a.webm", "half.ts"):
        assert packet_times(tmp_path / name) is None, name
