"""A part of a video file: its frames without loss, their times, and the sound that belongs to them."""

import numpy as np
import pytest

from svi_core.video.colour_tags import Colours
from svi_core.video.source_video import probe_video
from svi_core.video.video_file import VideoCoding, read_frames, write_video
from svi_core.video.video_part import keep_part, part_between
from tests.core.clips.test_continuation import CODINGS, ffmpeg, foreign_video
from tests.core.video.test_video_file import moving_ramp
from tests.hearing import RATE, heard


@pytest.mark.parametrize("name", ["B-frames", "444", "h265", "mpeg4", "full range"])
def test_the_part_has_the_file_s_frames_to_the_bit(tmp_path, name):
    source = probe_video(foreign_video(tmp_path / "a.mp4", *CODINGS[name], seconds=1.0))
    part = part_between(source, 0.25, 0.5)
    assert (part.first, part.stop, part.num_frames, part.num_after, part.is_whole) == (4, 12, 8, 4, False)
    kept = keep_part(tmp_path, part)
    frames = np.stack(list(read_frames(source.path)))
    assert np.array_equal(np.stack(list(part.frames())), frames[4:12])
    assert np.array_equal(np.stack(list(read_frames(kept.path))), frames[4:12])
    assert kept.shown.times == pytest.approx([index / 16 for index in range(8)], abs=0.002)
    assert keep_part(tmp_path, part).key == kept.key != source.key


def test_colours_and_the_whole_stay(tmp_path):
    write_video(tmp_path / "a.mp4", [moving_ramp(9)], VideoCoding(colours=Colours(6, 6, 6, True)))
    source = probe_video(tmp_path / "a.mp4")
    assert part_between(source).is_whole and part_between(source, 0.0, 60.0).is_whole
    assert keep_part(tmp_path, part_between(source, 0.25)).colours == source.colours


def test_the_sound_is_that_of_the_part(tmp_path):
    """A tone begins after half a second: in the part from 0.25 s on, after a quarter of a second."""
    tone = ("-f", "lavfi", "-i", "aevalsrc=sin(2*PI*440*t)*gt(t\\,0.5):s=8000:d=1.5")
    picture = ("-f", "lavfi", "-i", "testsrc2=size=32x48:rate=16:duration=1.5")
    ffmpeg(*picture, *tone, "-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac", tmp_path / "a.mp4")
    kept = keep_part(tmp_path, part_between(probe_video(tmp_path / "a.mp4"), 0.25, 0.75))
    sound = np.abs(heard(kept.path))
    assert len(sound) / RATE == pytest.approx(0.75, abs=0.05) and kept.sound_codec == "aac"
    loud = np.flatnonzero(sound > 0.3 * sound.max())
    assert loud[0] / RATE == pytest.approx(0.25, abs=0.03)
