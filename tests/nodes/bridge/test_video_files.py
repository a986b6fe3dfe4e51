"""VIDEOs of ComfyUI as files: in memory, as bytes, trimmed and cropped; what is temporary has a stable name and is removed."""

import gc
import io
import sys
import threading
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch

from svi_core.video.video_file import VideoCoding, read_frames, write_video

RATE = 8000


@pytest.fixture
def module(pack):
    return sys.modules[f"{pack.__name__}.nodes.bridge.video_files"]


@pytest.fixture
def temp(comfy, tmp_path, monkeypatch):
    """ComfyUI's folder for temporary files."""
    import folder_paths

    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    return tmp_path / "temp"


def noise(num_frames, width=64, height=32):
    return np.random.default_rng(0).integers(256, size=(num_frames, height, width, 3), dtype=np.uint8)


def in_memory(frames, seconds=0.0, rate=Fraction(24)):
    from comfy_api.latest import InputImpl, Types

    time = torch.arange(round(seconds * RATE)) / RATE
    audio = {"waveform": torch.sin(2 * torch.pi * 440 * time)[None, None], "sample_rate": RATE} if seconds else None
    images = torch.from_numpy(frames).float() / 255
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=images, audio=audio, frame_rate=rate))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(("size", "pixel_format"), [((64, 32), "yuv420p"), ((63, 33), "yuv444p")])
def test_frames_in_memory_are_kept_to_the_bit_with_rate_and_sound(module, temp, size, pixel_format):
    frames = noise(12, *size)
    part = module.open_video(in_memory(frames, seconds=9.0))
    source = part.source
    assert part.is_whole and np.array_equal(np.stack(list(part.frames())), frames)
    assert (source.width, source.height, source.frame_rate, source.num_frames) == (*size, 24.0, 12)
    assert (source.codec, source.pixel_format, source.sound_codec) == ("h264", pixel_format, "aac")
    assert source.shown.end == pytest.approx(0.5, abs=0.01)  # the sound is no longer than the frames
    shown = np.stack(list(read_frames(source.path)))
    assert shown.shape == frames.shape


def test_a_temporary_file_is_named_after_its_content_and_gone_with_the_last_video_of_it(module, temp):
    first, second = (module.open_video(in_memory(noise(6))) for _ in range(2))
    assert first.source.path == second.source.path and first.source.key == second.source.key
    assert len(names(temp)) == 2, "one that plays, one without loss"
    changed = module.open_video(in_memory(noise(6)[::-1].copy()))
    slower = module.open_video(in_memory(noise(6), rate=Fraction(12)))
    sounding = module.open_video(in_memory(noise(6), seconds=0.2))
    assert len({video.source.key for video in (first, changed, slower, sounding)}) == 4 and len(names(temp)) == 8
    del first
    gc.collect()
    assert second.source.path.exists() and second.source.exact.exists()
    del second, changed, slower, sounding
    gc.collect()
    assert names(temp) == []


def abandoned(module, video):
    """Open `video` and leave it in a reference cycle, as a failed node leaves its frames in its traceback; return its files."""
    source = module.open_video(video).source
    cycle = [source]
    cycle.append(cycle)
    return [source.path, source.exact]


@pytest.mark.parametrize("moment", ["found", "noted"])
def test_garbage_collected_while_a_video_is_opened_again_keeps_its_files(module, temp, monkeypatch, moment):
    holders = CollectsGarbage()
    gc.collect()
    gc.disable()
    try:
        files = abandoned(module, in_memory(noise(6)))
        if moment == "found":
            keep = module.keep_frames
            monkeypatch.setattr(module, "keep_frames", lambda *parts: (keep(*parts), gc.collect())[0])
        else:
            dict.update(holders, module._holders)
            monkeypatch.setattr(module, "_holders", holders)
        opened = list[object]()
        opening = threading.Thread(target=lambda: opened.append(module.open_video(in_memory(noise(6)))), daemon=True)
        opening.start()
        opening.join(timeout=30)
        assert opened and [file.exists() for file in files] == [True, True]
        opened.clear()
        gc.collect()
        assert names(temp) == []
    finally:
        gc.enable()


class CollectsGarbage(Counter):
    """Counts, and lets the garbage collector run meanwhile, as any allocation may."""

    def update(self, *values):
        gc.collect()
        super().update(*values)


def test_bytes_in_memory_are_kept_as_they_are(module, temp, tmp_path):
    from comfy_api.latest import InputImpl

    write_video(tmp_path / "a.mp4", [noise(9)], VideoCoding())
    content = (tmp_path / "a.mp4").read_bytes()
    part = module.open_video(InputImpl.VideoFromFile(io.BytesIO(content)))
    assert part.source.path.parent == temp and part.source.path.read_bytes() == content and part.num_frames == 9


@pytest.mark.parametrize(("begin", "seconds"), [(0.25, 0.0), (0.0, 0.3), (0.3, 0.25), (-0.5, 0.25), (0.1, 0.1)])
@pytest.mark.parametrize("is_bytes", [False, True])
def test_a_trim_takes_the_frames_that_comfyui_takes(module, temp, tmp_path, begin, seconds, is_bytes):
    from comfy_api.latest import InputImpl

    path = tmp_path / "a.mp4"
    write_video(path, [noise(20)], VideoCoding())
    video = InputImpl.VideoFromFile(
        io.BytesIO(path.read_bytes()) if is_bytes else str(path), start_time=begin, duration=seconds
    )
    frames, part = list(read_frames(path)), module.open_video(video)
    theirs = (video.get_components().images * 255).numpy()  # decoded by PyAV: nearly the same values
    distance = np.abs(theirs[:, None] - np.stack(frames)[None].astype(np.float32)).mean((2, 3, 4))
    assert distance.argmin(1).tolist() == list(range(part.first, part.stop))
    assert np.array_equal(np.stack(list(part.frames())), np.stack(frames[part.first : part.stop]))


def test_a_trim_without_a_frame_and_a_crop_are_refused(module, tmp_path):
    from comfy_api.latest import InputImpl

    class Cropped(InputImpl.VideoFromFile):
        """As a newer ComfyUI or another pack may crop: only what it shows tells."""

        def get_dimensions(self):
            return 32, 16

    path = tmp_path / "a.mp4"
    write_video(path, [noise(20)], VideoCoding())
    with pytest.raises(ValueError, match="a.mp4 has no frame in the part that begins at 5 s, for 2 s; it lasts 1.25 s"):
        module.open_video(InputImpl.VideoFromFile(str(path), start_time=5, duration=2))
    with pytest.raises(ValueError, match="video shows 32 x 16 pixels of a.mp4, which has 64 x 32"):
        module.open_video(Cropped(str(path)))


def test_a_video_without_frames_is_refused(module, temp):
    with pytest.raises(ValueError, match="video holds no frame"):
        module.open_video(in_memory(noise(1)[:0]))
