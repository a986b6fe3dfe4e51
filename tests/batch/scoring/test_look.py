"""Our own measures in one pass: INVALID videos are found, the strip shows the video, and nothing is measured twice."""

import io

import numpy as np
import pytest
from PIL import Image

from batch.scoring import look
from batch.scoring.look import STRIP_FRAMES, STRIP_HEIGHT, look_at
from batch.scoring.sample import Sample
from svi_core.look.drift import measure_drift
from tests.batch.scored_videos import moving, repeated, reversed_, save, still


def sample(tmp_path, frames: np.ndarray, lengths=(10, 10, 10), sha256: str = "a") -> Sample:
    return Sample("cat", save(tmp_path / "cat.mp4", frames), sha256, (), lengths)


@pytest.mark.parametrize(
    "frames, reasons",
    [(moving(), []), (still(), ["static"]), (repeated(), ["repeated"]), (reversed_(), ["reversed"])],
    ids=["moving", "still", "repeated", "reversed"],
)
def test_frozen_repeated_and_reversed_videos_are_invalid(tmp_path, frames, reasons):
    assert look_at(sample(tmp_path, frames), tmp_path / "kept").reasons == reasons


def test_measures_are_those_of_the_drift_report(tmp_path):
    from svi_core.video.video_file import read_frames

    found = look_at(video := sample(tmp_path, moving()), tmp_path / "kept")
    expected = measure_drift(read_frames(video.video), video.clip_lengths)
    assert found.report == expected.as_dict()
    assert found.summary()["colour drift"] == expected.colour_distance[-1]
    assert found.per_clip()["seam"] == [clip.seam for clip in expected.clips] and found.per_clip()["seam"][0] is None
    assert found.summary()["largest seam"] == max(clip.seam for clip in expected.clips[1:])
    assert found.per_clip()["sharpness change"][0] == 0


def test_the_strip_shows_frames_from_first_to_last(tmp_path):
    frames = np.stack([np.full((32, 48, 3), 20 + 7 * k, np.uint8) for k in range(30)])
    found = look_at(sample(tmp_path, frames), tmp_path / "kept")
    picture = Image.open(io.BytesIO(found.strip))
    assert picture.size == found.strip_size == (STRIP_FRAMES * 166 - 4, STRIP_HEIGHT) and found.columns == STRIP_FRAMES
    levels = [np.asarray(picture)[50, 81 + 166 * column].mean() for column in range(STRIP_FRAMES)]
    assert levels == pytest.approx([20 + 7 * k for k in (0, 3, 6, 10, 13, 16, 19, 23, 26, 29)], abs=4)


def test_a_video_is_measured_once_for_its_bytes_and_clips(tmp_path, monkeypatch):
    times = []
    measured = look._measured
    monkeypatch.setattr(look, "_measured", lambda given: times.append(given) or measured(given))
    video = sample(tmp_path, moving())
    first = look_at(video, tmp_path / "kept")
    again = look_at(video, tmp_path / "kept")
    assert len(times) == 1 and again.strip == first.strip and again.per_clip() == first.per_clip()
    look_at(Sample("cat", video.video, "a", (), (15, 15)), tmp_path / "kept")
    look_at(Sample("cat", video.video, "b", (), (15, 15)), tmp_path / "kept")
    assert len(times) == 3
    (tmp_path / "kept" / "cat.json").write_text("damaged")
    assert look_at(Sample("cat", video.video, "b", (), (15, 15)), tmp_path / "kept").columns == 10 and len(times) == 4


def test_a_video_of_one_clip_has_no_drift(tmp_path):
    assert look_at(sample(tmp_path, moving(), (30,)), tmp_path / "kept").summary().keys() == {"motion x255"}


def test_a_clip_of_one_frame_has_no_motion(tmp_path):
    found = look_at(sample(tmp_path, moving(num_frames=21), (10, 10, 1)), tmp_path / "kept")
    assert found.per_clip()["motion x255"][2] is None and found.summary()["motion x255"] > 0


def test_wrong_lengths_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="has 30 frames, but its clips have 31"):
        look_at(sample(tmp_path, moving(), (10, 21)), tmp_path / "kept")
