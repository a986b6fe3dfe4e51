"""Which file a VIDEO of ComfyUI is, for the nodes that read whole files."""

import json
import os
import sys

import pytest


def test_a_part_of_a_video_is_refused_and_named(pack, comfy):
    from comfy_api.latest import InputImpl

    continuation = sys.modules[f"{pack.__name__}.nodes.continuation"]
    whole = InputImpl.VideoFromFile("/videos/holiday ü.mp4")
    assert continuation.video_path(whole).name == "holiday ü.mp4"
    parts = ((2.0, 3.0, r"\(from 2 s on, for 3 s\)"), (0.5, 0, r"\(from 0.5 s on\)"), (0, 1.5, "for 1.5 s"))
    for begin, length, shown in parts:
        part = InputImpl.VideoFromFile("/videos/holiday ü.mp4", start_time=begin, duration=length)
        with pytest.raises(ValueError, match=f"a part of holiday ü.mp4 .*{shown}.*Save Video"):
            continuation.video_path(part)


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
