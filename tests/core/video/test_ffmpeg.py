"""ffmpeg never outlives the block that started it, and its failures have one form."""

from contextlib import closing

import psutil
import pytest

from svi_core.video.ffmpeg import FfmpegError, ffmpeg_writing, run_ffmpeg
from svi_core.video.video_file import read_frames
from tests.core.clips.test_continuation import foreign_video

RAW = ("-f", "rawvideo", "-pix_fmt", "rgb24", "-s", "16x16", "-i", "-")


def children():
    return [child for child in psutil.Process().children() if "ffmpeg" in child.name()]


def test_what_leaves_a_block_early_ends_ffmpeg_and_is_raised_as_it_is(tmp_path):
    with pytest.raises(KeyboardInterrupt), ffmpeg_writing(tmp_path / "a.mp4", RAW) as write:
        write(b"\0" * 10)  # stays in the pipe's buffer
        assert len(children()) == 1
        raise KeyboardInterrupt
    assert children() == []


def test_a_reader_that_stops_early_leaves_no_process(tmp_path):
    with closing(read_frames(foreign_video(tmp_path / "a.mp4", size="640x480"))) as frames:
        next(frames)
        assert len(children()) == 1
    assert children() == []


def test_a_failure_names_the_final_file_the_reason_and_a_fix(tmp_path):
    with pytest.raises(FfmpegError, match=r"could not write .*a.mp4 \(.*No such file.*\): check free space"):
        run_ffmpeg(tmp_path / "staging.mp4", ("-i", tmp_path / "gone.mp4"), tmp_path / "a.mp4")
