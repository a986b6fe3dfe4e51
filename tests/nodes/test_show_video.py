"""SVI Show Video names the file where it lies, writes nothing, and refuses what is no file of the output folder."""

from fractions import Fraction

import numpy as np
import pytest
import torch

from svi_core.video.video_file import VideoCoding, write_video


@pytest.fixture
def output(tmp_path, pack, monkeypatch):
    import folder_paths

    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    return tmp_path / "output"


@pytest.fixture
def show(pack):
    from comfy_api.latest import InputImpl

    return lambda path, **part: pack.nodes.SVIShowVideo.execute(InputImpl.VideoFromFile(str(path), **part))


def made_at(path):
    path.parent.mkdir(parents=True)
    write_video(path, iter([np.zeros((8, 16, 16, 3), np.uint8)]), VideoCoding())
    return path


def test_the_file_is_shown_where_it_lies(output, show):
    path = made_at(output / "svi" / "my story" / "video-1a2b.mp4")
    shown = show(path)
    assert shown.ui.as_dict()["images"] == [{"filename": path.name, "subfolder": "svi/my story", "type": "output"}]
    assert shown.args[0].get_stream_source() == str(path)
    assert [file for file in output.rglob("*") if file.is_file()] == [path]


def test_a_file_elsewhere_is_refused(output, show, tmp_path):
    path = made_at(tmp_path / "input" / "holiday.mp4")
    with pytest.raises(ValueError, match=r"video is .*holiday.mp4, but this node shows files in ComfyUI's output folder"):
        show(path)


def test_a_part_or_frames_in_memory_are_refused(output, pack, show):
    from comfy_api.latest import InputImpl, Types

    path = made_at(output / "svi" / "video.mp4")
    with pytest.raises(ValueError, match="video is no whole file"):
        show(path, duration=0.25)
    frames = Types.VideoComponents(images=torch.zeros(2, 16, 16, 3), frame_rate=Fraction(16))
    with pytest.raises(ValueError, match="video is no whole file"):
        pack.nodes.SVIShowVideo.execute(InputImpl.VideoFromComponents(frames))
