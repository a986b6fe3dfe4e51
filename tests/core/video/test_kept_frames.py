"""Frames in memory as files: without loss, playable, each made once."""

import weakref

import numpy as np
import pytest

from svi_core.video.kept_frames import keep_frames
from svi_core.video.source_video import read_tail
from svi_core.video.video_file import read_frames
from tests.core.video.test_video_file import moving_ramp


def test_both_files_show_the_frames_and_one_of_them_to_the_bit(tmp_path):
    frames = moving_ramp(30)
    source = keep_frames(tmp_path, lambda: (frame[None] for frame in frames), 25.0, None)
    assert source.exact is not None and np.array_equal(np.stack(list(read_frames(source.exact))), frames)
    shown = np.stack(list(read_frames(source.path))).astype(int)
    assert shown.shape == frames.shape and np.abs(shown - frames).mean() < 6
    assert np.array_equal((read_tail(source, 4, 2, 25.0).numpy() * 255).round(), frames[24:28])


def test_equal_content_is_written_once_and_has_one_key(tmp_path):
    frames = moving_ramp(5)
    first = keep_frames(tmp_path, lambda: [frames], 16.0, None)
    changed = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = keep_frames(tmp_path, lambda: [frames[:2], frames[2:]], 16.0, None)
    assert again.key == first.key and {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == changed
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    assert keep_frames(elsewhere, lambda: [frames], 16.0, None).key == first.key
    assert keep_frames(elsewhere, lambda: [frames], 15.0, None).key != first.key


def test_only_one_chunk_is_held(tmp_path):
    """Each chunk is gone before the one after the next is asked for."""
    made = list[weakref.ref]()

    def chunks():
        for frame in moving_ramp(40):
            assert sum(chunk() is not None for chunk in made[-40:]) <= 2
            chunk = frame[None].copy()
            made.append(weakref.ref(chunk))
            yield chunk
            del chunk

    keep_frames(tmp_path, chunks, 16.0, None)
    assert len(made) == 120, "named, kept without loss, made playable"


def test_no_frame_is_refused(tmp_path):
    with pytest.raises(ValueError, match="video holds no frame"):
        keep_frames(tmp_path, list, 16.0, None)
