"""Which file a VIDEO of ComfyUI is, for the nodes that read whole files."""

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
