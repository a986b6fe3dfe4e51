import numpy as np
import pytest
import torch

from svi_core.clips import ClipPlan
from svi_core.geometry import num_video_frames
from svi_core.layouts import LAYOUTS, make_layout
from svi_core.run import GrowingVideo, make_video
from svi_core.run_store import RunStore
from svi_core.schedule import parse_schedule
from svi_core.video_file import VideoCoding, count_frames, read_frames
from tests.core.fakes import FakeMaker

STORY = "one\n\ntwo\n\nthree"
LAYOUT = make_layout("2.0 Pro", num_frames=9)


def run(folder, num_clips=3, layout=LAYOUT, maker=None, text=STORY, coding=None, **plan):
    maker = maker or FakeMaker(layout)
    with RunStore(folder) as store:
        video = GrowingVideo(store, coding or VideoCoding())
        path, latent = make_video(ClipPlan(num_clips, parse_schedule(text), layout, **plan), maker, video)
    return path, latent, maker


def moments(path):
    return np.array([frame.mean() for frame in read_frames(path)])


@pytest.mark.parametrize("name", LAYOUTS)
def test_video_shows_every_moment_once_in_order(tmp_path, name):
    layout = make_layout(name, num_frames=13)
    path, latent, _ = run(tmp_path, 4, layout)
    expected = num_video_frames(4, 13, layout.overlap)
    assert count_frames(path) == expected
    assert np.abs(moments(path) - np.arange(expected)).max() < 2
    assert latent[0, 0, 0, 0, 0] == 3


def test_second_run_makes_nothing_and_gives_the_same_frames(tmp_path):
    first, latent, maker = run(tmp_path)
    frames = moments(first)
    again, same, idle = run(tmp_path)
    assert maker.sampled == [0, 1, 2] and idle.sampled == []
    assert again == first and torch.equal(latent, same) and np.array_equal(moments(again), frames)


def test_a_changed_prompt_costs_that_clip_and_later_ones_and_the_earlier_take_stays(tmp_path):
    original, _, _ = run(tmp_path)
    other, _, maker = run(tmp_path, text=STORY.replace("two", "another"))
    assert maker.sampled == [1, 2] and other != original
    back, _, idle = run(tmp_path)
    assert idle.sampled == [] and back == original


@pytest.mark.parametrize(
    ("change", "sampled"),
    [
        ({"seed": 1}, [0, 1, 2]),
        ({"maker": FakeMaker(LAYOUT, "other model")}, [0, 1, 2]),
        ({"num_clips": 5}, [3, 4]),
        ({"num_clips": 2}, []),
        ({"coding": VideoCoding(crf=30)}, []),
        ({"text": STORY + "\n\nfour"}, []),
        ({"text": STORY.replace("two", "[cfg 3]\ntwo")}, [1, 2]),
        ({"text": STORY.replace("two", "[hold 5]\ntwo")}, []),
    ],
    ids=str,
)
def test_what_is_made_again_follows_from_what_changed(tmp_path, change, sampled):
    run(tmp_path)
    _, _, maker = run(tmp_path, **change)
    assert maker.sampled == sampled


@pytest.mark.parametrize("name", ["2.0 Pro", "Film"])
def test_after_a_stop_the_rest_is_made_and_the_result_is_the_same(tmp_path, name):
    layout = make_layout(name, num_frames=13)
    whole, latent, _ = run(tmp_path / "whole", 4, layout)
    broken = FakeMaker(layout)
    broken.nan_at = 2
    with pytest.raises(ValueError, match="clip 3 "):
        run(tmp_path / "broken", 4, layout, broken)
    left = tmp_path / "broken" / "video.mp4"
    assert count_frames(left) == num_video_frames(2, 13, layout.overlap) - (layout.overlap if name == "Film" else 0)
    resumed, same, maker = run(tmp_path / "broken", 4, layout)
    assert maker.sampled == [2, 3] and torch.equal(latent, same)
    assert np.array_equal(moments(resumed), moments(whole)) and resumed.name == whole.name


def test_a_damaged_segment_is_made_again_without_sampling(tmp_path):
    path, _, _ = run(tmp_path)
    frames = moments(path)
    segment = sorted((tmp_path / "clips").glob("*.mp4"))[1]
    segment.write_bytes(segment.read_bytes()[:100])
    again, _, maker = run(tmp_path)
    assert maker.sampled == [] and np.array_equal(moments(again), frames)
    assert len(list((tmp_path / "set_aside").iterdir())) == 1


def test_refreshing_the_video_takes_a_small_share_of_a_long_run(tmp_path, monkeypatch):
    """60 clips must not mean 60 copies of a growing file."""
    joins = []
    real = __import__("svi_core.run", fromlist=["join_videos"]).join_videos
    monkeypatch.setattr("svi_core.run.join_videos", lambda *args: (joins.append(1), real(*args)))
    path, _, _ = run(tmp_path, 60, make_layout("2.0 Pro", num_frames=9))
    assert count_frames(path) == 60 * 4 + 5
    assert 1 < len(joins) < 40


def test_cut_hold_and_lengths_show_in_the_video(tmp_path):
    path, _, _ = run(tmp_path, 3, text="[hold 4]\none\n\n[cut]\ntwo\n\n[motion 8, frames 17]\nthree")
    assert count_frames(path) == (9 + 4) + 9 + (17 - 9)
    assert np.ptp(moments(path)[8:13]) < 1


def test_different_videos_never_share_a_name(tmp_path):
    """The last clip is the same in all of these, what is shown before it is not."""
    story = "a\n\n[cut]\nb"
    variants = [{"text": story}, {"text": "[hold 5]\n" + story}, {"text": "other\n\n[cut]\nb"}, {"coding": VideoCoding(crf=30)}]
    made = [run(tmp_path, 2, **{"text": story, **variant})[0] for variant in variants]
    assert len(set(made)) == len(made) and all(path.exists() for path in made)
    content = made[0].read_bytes()
    again, _, _ = run(tmp_path, 2, text=story)
    assert again == made[0] and again.read_bytes() == content


@pytest.mark.parametrize("lost", ["*.json", "*.mp4", "*.safetensors"])
def test_a_crash_between_a_clips_files_costs_only_what_is_lost(tmp_path, lost):
    path, latent, _ = run(tmp_path)
    frames = moments(path)
    for file in (tmp_path / "clips").glob(lost):
        file.unlink()
    path.unlink()
    again, same, maker = run(tmp_path)
    assert maker.sampled == ([0, 1, 2] if lost == "*.safetensors" else [])
    assert again == path and torch.equal(latent, same) and np.array_equal(moments(again), frames)
    assert not (tmp_path / "set_aside").exists()


class Killed(BaseException):
    pass


def test_a_kill_at_every_rename_leaves_a_folder_that_goes_on(tmp_path, monkeypatch):
    """Stop at the k-th os.replace, k = 1, 2, ..., without any clean-up, as kill -9 does; the next run must finish alike."""
    import os

    from svi_core import atomic_file

    whole, latent, _ = run(tmp_path / "whole", 2)
    frames = moments(whole)
    real, finished = os.replace, False
    for stop_at in range(1, 40):
        folder, calls = tmp_path / str(stop_at), [0]

        def replace(source, target, calls=calls, stop_at=stop_at):
            calls[0] += 1
            if calls[0] >= stop_at:
                raise Killed
            real(source, target)

        monkeypatch.setattr(atomic_file.os, "replace", replace)
        try:
            run(folder, 2)
            finished = True
        except Killed:
            pass
        monkeypatch.setattr(atomic_file.os, "replace", real)
        resumed, same, _ = run(folder, 2)
        assert torch.equal(latent, same) and np.array_equal(moments(resumed), frames), stop_at
        assert not list(folder.rglob("*staging*")) and not (folder / "set_aside").exists()
        if finished:
            break
    assert finished and stop_at > 8


def test_a_failing_refresh_does_not_stop_a_run_nor_hide_its_error(tmp_path, monkeypatch, caplog):
    real = __import__("svi_core.run", fromlist=["join_videos"]).join_videos
    calls = []

    def failing(*args):
        calls.append(1)
        if len(calls) < 3:
            raise PermissionError(13, "open in a player")
        real(*args)

    monkeypatch.setattr("svi_core.run.join_videos", failing)
    path, _, _ = run(tmp_path / "a")
    assert count_frames(path) == 17 and "open in a player" in caplog.text
    broken = FakeMaker(LAYOUT)
    broken.nan_at = 2
    calls.clear()
    with pytest.raises(ValueError, match="NaN"):
        run(tmp_path / "b", maker=broken)
