"""SVI Filmstrip on runs that are too long to be shown whole."""

import sys

import numpy as np

from svi_core.video.video_file import VideoCoding, write_video


def test_of_a_long_run_clips_spread_over_it_are_shown(pack, tmp_path):
    drift = sys.modules[f"{pack.__name__}.nodes.look"]
    levels = np.arange(240, dtype=np.uint8)[:, None, None, None].repeat(32, 1).repeat(48, 2).repeat(3, 3)
    write_video(tmp_path / "long.mp4", iter([levels]), VideoCoding(crf=0, pixel_format="yuv444p"))
    clips = drift._clips_of(tmp_path / "long.mp4", 2)
    rows = drift._strip_rows(tmp_path / "long.mp4", clips, 2, 24)
    numbers = [int(row.title.split()[0]) for row in rows]
    assert len(clips) == 120 and len(rows) == 100 and numbers == sorted(set(numbers)) and (numbers[0], numbers[-1]) == (1, 120)
    for number, row in zip(numbers, rows, strict=True):
        assert [frame.shape for frame in row.frames] == [(16, 24, 3)] * 2
        assert [abs(int(frame[8, 12, 1]) - 2 * number + 2 - k) <= 1 for k, frame in enumerate(row.frames)] == [True, True]
    assert len(drift._strip_rows(tmp_path / "long.mp4", clips[:100], 1, 24)) == 100
