"""SVI Filmstrip on long runs, and SVI Drift Report of frames in memory and of a trimmed video."""

import json
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from svi_core.video.source_video import probe_video
from svi_core.video.video_file import VideoCoding, read_frames, write_video
from svi_core.video.video_part import part_between
from tests.nodes.bridge.test_video_files import noise


def test_of_a_long_run_clips_spread_over_it_are_shown(pack, tmp_path):
    drift = sys.modules[f"{pack.__name__}.nodes.look"]
    levels = np.arange(240, dtype=np.uint8)[:, None, None, None].repeat(32, 1).repeat(48, 2).repeat(3, 3)
    write_video(tmp_path / "long.mp4", iter([levels]), VideoCoding(crf=0, pixel_format="yuv444p"))
    part = part_between(probe_video(tmp_path / "long.mp4"))
    clips = drift._clips_of(part, 2)
    rows = drift._strip_rows(part, clips, 2, 24)
    numbers = [int(row.title.split()[0]) for row in rows]
    assert len(clips) == 120 and len(rows) == 100 and numbers == sorted(set(numbers)) and (numbers[0], numbers[-1]) == (1, 120)
    for number, row in zip(numbers, rows, strict=True):
        assert [frame.shape for frame in row.frames] == [(16, 24, 3)] * 2
        assert [abs(int(frame[8, 12, 1]) - 2 * number + 2 - k) <= 1 for k, frame in enumerate(row.frames)] == [True, True]
    assert len(drift._strip_rows(part, clips[:100], 1, 24)) == 100


@pytest.mark.parametrize("is_memory", [True, False])
def test_frames_in_memory_and_a_trimmed_video_are_measured_as_the_file_of_the_same_frames(
    pack, tmp_path, monkeypatch, is_memory
):
    import folder_paths
    from comfy_api.latest import InputImpl, Types

    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    write_video(tmp_path / "whole.mp4", [noise(24)], VideoCoding())
    frames = np.stack(list(read_frames(tmp_path / "whole.mp4")))[8:]
    write_video(tmp_path / "part.mkv", [frames], VideoCoding(crf=0, pixel_format="yuv444p"))
    images = torch.from_numpy(frames).float() / 255
    memory = InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=Fraction(16)))
    trimmed = InputImpl.VideoFromFile(str(tmp_path / "whole.mp4")).as_trimmed(0.5, 0)
    video, file = memory if is_memory else trimmed, InputImpl.VideoFromFile(str(tmp_path / "part.mkv"))
    found, expected = (json.loads(pack.nodes.SVIDriftReport.execute(v, 8).args[1]) for v in (video, file))
    assert len(found["clips"]) == 2
    for ours, theirs in zip(found["clips"], expected["clips"], strict=True):
        assert ours["brightness"] == pytest.approx(theirs["brightness"], abs=0.01)
