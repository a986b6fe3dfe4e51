"""SVI Join Videos takes frames in memory and trimmed videos, with their own pixels."""

from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from svi_core.video.source_video import probe_video
from svi_core.video.video_file import VideoCoding, read_frames, write_video
from tests.nodes.bridge.test_video_files import noise


@pytest.fixture
def join(pack, tmp_path, monkeypatch):
    """Join two VIDEOs and return the result's path."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    node = pack.nodes.SVIJoinVideos
    monkeypatch.setattr(node, "hidden", SimpleNamespace(prompt={}, extra_pnginfo=None, unique_id="1"), raising=False)

    def run(first, second, trim_end=0, trim_start=0):
        return Path(node.execute(first, second, "drop", 0, trim_end, trim_start, "svi/joined").args[0].get_stream_source())

    return run


def smooth(num_frames, level):
    """Grey frames that grow brighter: H.264 keeps their levels to within 2."""
    levels = np.arange(num_frames, dtype=np.uint8)[:, None, None, None] * 3 + level
    return np.broadcast_to(levels, (num_frames, 32, 64, 3)).copy()


def levels_of(path):
    return [round(float(frame.mean())) for frame in read_frames(path)]


def test_a_trimmed_video_before_frames_in_memory(join, tmp_path):
    from comfy_api.latest import InputImpl, Types

    write_video(tmp_path / "a.mp4", [smooth(20, 10)], VideoCoding())
    first = InputImpl.VideoFromFile(str(tmp_path / "a.mp4")).as_trimmed(0.25, 0.5)
    images = torch.from_numpy(smooth(10, 150)).float() / 255
    second = InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=Fraction(8)))
    path = join(first, second, trim_end=2, trim_start=1)
    expected = [*range(10 + 3 * 4, 10 + 3 * 10, 3), *range(153, 180, 3)]
    assert levels_of(path) == pytest.approx(expected, abs=2)
    times = probe_video(path).shown.times
    assert np.diff(times) == pytest.approx([1 / 16] * 6 + [1 / 8] * 8, abs=0.002)
    assert not list((tmp_path / "temp").iterdir()), "temporary files are gone with the join"


def test_two_videos_in_memory_make_one_file_each_time(join, tmp_path):
    from comfy_api.latest import InputImpl, Types

    def video(frames):
        images = torch.from_numpy(frames).float() / 255
        return InputImpl.VideoFromComponents(Types.VideoComponents(images=images, frame_rate=Fraction(16)))

    path = join(video(noise(6)), video(noise(6)[::-1].copy()))
    assert probe_video(path).num_frames == 12 and join(video(noise(6)), video(noise(6)[::-1].copy())) == path
