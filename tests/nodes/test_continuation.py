"""From which frames SVI Continue Video goes on: of a VIDEO in memory, of a part of a file, and of a run."""

import json
import os
import sys
from fractions import Fraction

import numpy as np
import pytest
import torch

from svi_core.video.source_video import read_tail
from svi_core.video.video_file import VideoCoding, read_frames, write_video


def noise(num_frames, width=64, height=32):
    return np.random.default_rng(0).integers(256, size=(num_frames, height, width, 3), dtype=np.uint8)


@pytest.fixture
def temp(comfy, tmp_path, monkeypatch):
    """ComfyUI's folder for temporary files."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    return tmp_path / "temp"


def start_of(pack, video, trim_end=0):
    return pack.nodes.SVIContinueVideo.execute("", trim_end, video).args[0]


def test_a_video_in_memory_is_continued_from_its_own_pixels(pack, temp):
    from comfy_api.latest import InputImpl, Types

    images = torch.from_numpy(noise(20)).float() / 255
    video = InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=Fraction(16)))
    start = start_of(pack, video)
    assert (start.num_frames, start.source.frame_rate, start.source.pixel_format) == (20, 16.0, "yuv420p")
    assert torch.equal(read_tail(start.source, 5), images[-5:])
    assert start_of(pack, video).plan_key == start.plan_key != start_of(pack, video, 1).plan_key


def test_a_trimmed_video_ends_where_it_is_cut_and_needs_a_file_only_if_its_start_is_cut(pack, temp, tmp_path):
    from comfy_api.latest import InputImpl

    path = tmp_path / "holiday ü.mp4"
    write_video(path, [noise(20)], VideoCoding())
    frames = torch.from_numpy(np.stack(list(read_frames(path)))).float() / 255
    whole = InputImpl.VideoFromFile(str(path))
    end = start_of(pack, whole.as_trimmed(0.0, 0.5), 1)
    assert (end.source.path, end.trim_end, end.num_frames) == (path, 13, 7) and not temp.exists()
    middle = start_of(pack, whole.as_trimmed(0.25, 0.5))
    assert middle.source.path.parent == temp and middle.num_frames == 8
    assert torch.equal(read_tail(middle.source, 8), frames[4:12])


def test_a_run_with_a_date_in_its_name_is_the_newest_of_that_name(pack, tmp_path):
    continuation = sys.modules[f"{pack.__name__}.nodes.continuation"]
    for day, made in (("2026-03-07", 9), ("2026-03-08", 5)):
        folder = tmp_path / "svi" / day
        folder.mkdir(parents=True)
        (folder / "video-a.mp4").touch()
        (folder / "run.json").write_text(json.dumps({"format": 1, "video": "video-a.mp4", "clips": []}))
        os.utime(folder / "run.json", (made, made))
    assert continuation.last_video(tmp_path, "svi/%date:yyyy-MM-dd%") == tmp_path / "svi/2026-03-07/video-a.mp4"
    assert continuation.last_video(tmp_path, "svi/2026-03-08") == tmp_path / "svi/2026-03-08/video-a.mp4"
    with pytest.raises(ValueError, match="holds no video of a run"):
        continuation.last_video(tmp_path, "svi/%year%")
    with pytest.raises(ValueError, match="only SVI Generate knows %UNETLoader.unet_name%: write the name of the folder"):
        continuation.last_video(tmp_path, "svi/%UNETLoader.unet_name%")
    assert pack.nodes.SVIContinueVideo.validate_inputs(run="svi/%date:yyyy-MM-dd%") is True
    assert "run is 'a/%date:h:m%'" in pack.nodes.SVIContinueVideo.validate_inputs(run="a/%date:h:m%")
