import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from svi_core.clips import growing_video as run_module
from svi_core.clips import run_video
from svi_core.clips.clip_plan import ClipPlan
from svi_core.clips.growing_video import GrowingVideo, make_video
from svi_core.clips.step_by_step import RunState, finish_video, next_clip
from svi_core.clips.video_settings import VideoSettings
from svi_core.schedule.text import parse_schedule
from svi_core.store.records import read_last_video, read_manifest
from svi_core.store.run_store import RunStore
from svi_core.systems.layouts import LAYOUTS, make_layout
from svi_core.video.frame_times import count_frames
from svi_core.video.seams import Seam
from svi_core.video.source_video import probe_video
from svi_core.video.video_file import VideoCoding, read_frames
from tests.core.fakes import FakeMaker

STORY = "one\n\ntwo\n\nthree"
LAYOUT = make_layout("2.0 Pro", num_frames=9)


def run(folder, num_clips=3, layout=LAYOUT, maker=None, text=STORY, settings=None, budget_bytes=0, **plan):
    maker = maker or FakeMaker(layout)
    with RunStore(folder) as store:
        video = GrowingVideo(store, settings or VideoSettings())
        plan = ClipPlan(num_clips, parse_schedule(text), layout, **plan)
        path, latent = make_video(plan, maker, video, budget_bytes=budget_bytes)
    return path, latent, maker


def moments(path):
    return np.array([frame.mean() for frame in read_frames(path)])


@pytest.mark.parametrize("name", LAYOUTS)
def test_video_shows_every_moment_once_in_order(tmp_path, name):
    layout = make_layout(name, num_frames=13)
    path, latent, _ = run(tmp_path, 4, layout)
    expected = 4 * (13 - layout.overlap) + layout.overlap
    assert count_frames(path) == expected
    assert np.abs(moments(path) - np.arange(expected)).max() < 2
    assert latent[0, 0, 0, 0, 0] == 3


@pytest.mark.parametrize("seam", [Seam.LINEAR, Seam.EASED])
@pytest.mark.parametrize("name", LAYOUTS)
def test_blended_seams_keep_every_moment_in_its_place(tmp_path, name, seam):
    """Both clips show the same moment in a blended frame, so the mix shows it too."""
    layout = make_layout(name, num_frames=13)
    path, _, _ = run(tmp_path, 4, layout, seam=seam)
    assert np.abs(moments(path) - np.arange(4 * (13 - layout.overlap) + layout.overlap)).max() < 2


def test_changing_the_seam_samples_nothing_and_gives_another_video(tmp_path):
    dropped, _, _ = run(tmp_path)
    blended, _, maker = run(tmp_path, seam=Seam.LINEAR)
    assert maker.sampled == [] and blended != dropped
    assert run(tmp_path)[0] == dropped


@pytest.mark.parametrize(("max_frames", "num_made"), [(1, 1), (9, 1), (10, 2), (13, 2), (17, 3), (100, 3)])
def test_the_final_length_cuts_the_video_and_makes_no_clip_too_many(tmp_path, max_frames, num_made):
    settings = VideoSettings(max_frames=max_frames)
    path, _, maker = run(tmp_path, 3, settings=settings)
    assert count_frames(path) == min(max_frames, 17) and len(maker.sampled) == num_made
    assert settings.num_clips_of(ClipPlan(3, parse_schedule(STORY), LAYOUT)) == num_made, "the time left counts no clip more"


def state_of(folder, layout=LAYOUT, text=STORY, maker=None, settings=None, **plan):
    plan = ClipPlan(10_000, parse_schedule(text), layout, **plan)
    return RunState(plan, maker or FakeMaker(layout), folder, settings or VideoSettings())


@pytest.mark.parametrize("seam", Seam)
@pytest.mark.parametrize("name", ["2.0 Pro", "Film", "Shot"])
def test_clip_by_clip_gives_what_the_loop_gives(tmp_path, name, seam):
    layout = make_layout(name, num_frames=13)
    whole, latent, _ = run(tmp_path / "loop", 3, layout, seam=seam)
    state = state_of(tmp_path / "steps", layout, seam=seam)
    for _ in range(3):
        state, clip = next_clip(state)
    assert state.num_clips == 3 and state.maker.sampled == [0, 1, 2] and torch.equal(clip.latent, latent)
    assert np.array_equal(moments(finish_video(state)), moments(whole))


def test_a_state_is_a_value_that_can_be_gone_on_from_twice(tmp_path):
    first, _ = next_clip(state_of(tmp_path))
    second, clip = next_clip(first)
    again, same = next_clip(first)
    assert clip.key == same.key and same.reused and second.segments == again.segments
    assert second.last.clip.latent is None and first.num_clips == 1  # small, and not changed


def test_a_state_whose_clip_is_gone_says_so(tmp_path):
    state, clip = next_clip(state_of(tmp_path))
    (tmp_path / "clips" / f"{clip.key}.safetensors").unlink()
    with pytest.raises(ValueError, match="clip 1 is no longer in .*first clip again"):
        next_clip(state)
    with pytest.raises(ValueError, match="no clip yet"):
        finish_video(state_of(tmp_path))


class DriftingMaker(FakeMaker):
    """Every clip is textured grey around its own, ever brighter level; the anchor's level is 0.25."""

    def decode(self, latent):
        index = int(latent[0, 0, 0, 0, 0])
        texture = torch.tensor([-0.1, 0.1]).repeat(8)[None, None, :, None]
        for chunk in super().decode(latent):
            yield torch.zeros_like(chunk) + 0.25 + 0.1 * index + texture


def test_colours_are_led_back_to_the_anchor_without_a_jump_and_conditioning_is_untouched(tmp_path):
    plain, latent, _ = run(tmp_path, maker=DriftingMaker(LAYOUT))
    texture = torch.tensor([-0.1, 0.1]).repeat(8)[None, None, :, None]
    anchor = (torch.zeros(1, 16, 16, 3) + 0.25 + texture).float()
    settings = VideoSettings(colour_strength=1.0, anchor_frame=lambda request: anchor)
    path, same, maker = run(tmp_path, maker=DriftingMaker(LAYOUT), settings=settings)
    assert maker.sampled == [] and torch.equal(latent, same) and path != plain
    levels, drifted = moments(path) / 255, moments(plain) / 255
    assert drifted[-1] > 0.44 and abs(levels[-1] - 0.25) < 0.01
    assert np.abs(levels[:9] - 0.25).max() < 0.01
    ends = [8, 12, 16]
    assert np.abs(levels[ends] - 0.25).max() < 0.01
    again, _, maker = run(tmp_path, maker=DriftingMaker(LAYOUT), settings=settings)
    assert again == path and maker.sampled == []


def test_second_run_makes_nothing_and_gives_the_same_frames(tmp_path):
    first, latent, maker = run(tmp_path)
    frames = moments(first)
    again, same, idle = run(tmp_path)
    assert maker.sampled == [0, 1, 2] and idle.sampled == []
    assert again == first and torch.equal(latent, same) and np.array_equal(moments(again), frames)


def test_marked_segments_stand_beside_the_others(tmp_path):
    run(tmp_path)
    plain = set((tmp_path / "clips").glob("*.mp4"))
    run(tmp_path, settings=VideoSettings(mark="tiled"))
    marked = set((tmp_path / "clips").glob("*.mp4")) - plain
    assert len(marked) == len(plain) == 3 and all("-tiled-h264-" in path.name for path in marked)
    assert {path.name.replace("tiled-", "") for path in marked} == {path.name for path in plain}


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
        pytest.param({"maker": FakeMaker(LAYOUT, "other model")}, [0, 1, 2], id="another maker"),
        ({"num_clips": 5}, [3, 4]),
        ({"num_clips": 2}, []),
        ({"settings": VideoSettings(VideoCoding(crf=30))}, []),
        ({"settings": VideoSettings(mark="tiled")}, []),
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
    assert count_frames(left) == 2 * (13 - layout.overlap) + layout.overlap
    assert np.abs(moments(left) - np.arange(count_frames(left))).max() < 2
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
    real = run_video.join_videos
    monkeypatch.setattr("svi_core.clips.run_video.join_videos", lambda *args: (joins.append(1), real(*args)))
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
    variants = [
        {"text": story},
        {"text": "[hold 5]\n" + story},
        {"text": "other\n\n[cut]\nb"},
        {"settings": VideoSettings(VideoCoding(crf=30))},
    ]
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

    from svi_core.files import atomic_file

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


def test_the_next_clip_is_sampled_while_the_file_of_the_one_before_is_written(tmp_path, monkeypatch):
    """The first clip's file is only finished once the second clip is being sampled: a loop that waited would stand still."""
    real, sampling, written = run_module.write_video, threading.Event(), []

    def write_late(path, chunks, coding):
        chunks = list(chunks)
        if not written:
            assert sampling.wait(60), "the second clip was not begun"
        return real(path, chunks, coding)

    def sample(request, previous):
        if request.index == 1:
            assert written == []
            sampling.set()
        return type(maker).sample(maker, request, previous)

    maker = FakeMaker(LAYOUT)
    maker.sample = sample
    monkeypatch.setattr(run_module, "write_video", write_late)
    with RunStore(tmp_path) as store:
        plan = ClipPlan(3, parse_schedule(STORY), LAYOUT)
        path, _ = make_video(plan, maker, GrowingVideo(store), on_written=lambda clip: written.append(clip.request.index))
    assert written == [0, 1, 2] and np.abs(moments(path) - np.arange(17)).max() < 2


def test_a_file_that_could_not_be_written_stops_the_run_and_is_left_out_of_the_video(tmp_path, monkeypatch):
    real, calls = run_module.write_video, []

    def write(path, chunks, coding):
        calls.append(path)
        if len(calls) == 2:
            list(chunks)
            raise OSError("no space for the second clip")
        return real(path, chunks, coding)

    monkeypatch.setattr(run_module, "write_video", write)
    maker = FakeMaker(LAYOUT)
    with pytest.raises(OSError, match="second clip"):
        run(tmp_path, maker=maker)
    assert maker.sampled == [0, 1, 2], "the third was sampled meanwhile, and is stored"
    assert count_frames(tmp_path / "video.mp4") == 9
    path, _, maker = run(tmp_path)
    assert maker.sampled == [] and count_frames(path) == 17


def test_a_failing_refresh_does_not_stop_a_run_nor_hide_its_error(tmp_path, monkeypatch, caplog):
    real = run_video.join_videos
    calls = []

    def failing(*args):
        calls.append(1)
        if len(calls) < 3:
            raise PermissionError(13, "open in a player")
        real(*args)

    monkeypatch.setattr("svi_core.clips.run_video.join_videos", failing)
    path, _, _ = run(tmp_path / "a")
    assert count_frames(path) == 17 and "open in a player" in caplog.text
    broken = FakeMaker(LAYOUT)
    broken.nan_at = 2
    calls.clear()
    with pytest.raises(ValueError, match="NaN"):
        run(tmp_path / "b", maker=broken)


def test_clip_by_clip_stops_at_the_final_length(tmp_path):
    state = state_of(tmp_path, settings=VideoSettings(max_frames=9))
    for _ in range(4):
        state, clip = next_clip(state)
    assert state.num_clips == 1 and state.maker.sampled == [0] and clip.latent is not None
    assert count_frames(finish_video(state)) == 9


def test_clip_by_clip_refreshes_the_video_as_rarely_as_the_loop(tmp_path, monkeypatch):
    joins = []
    real = run_video.join_videos
    monkeypatch.setattr("svi_core.clips.run_video.join_videos", lambda *args: (joins.append(1), real(*args)))
    state = state_of(tmp_path)
    for _ in range(12):
        state, _ = next_clip(state)
    assert 1 <= len(joins) < 10
    assert count_frames(finish_video(state)) == 12 * 4 + 5


def stopped_run(folder, text, at=2):
    maker = FakeMaker(LAYOUT)
    maker.nan_at = at
    with pytest.raises(ValueError, match="NaN"):
        run(folder, maker=maker, text=text)
    return folder / "video.mp4"


def test_the_video_of_a_stopped_run_outlives_another_run(tmp_path):
    stopped = moments(stopped_run(tmp_path, STORY))
    run(tmp_path, 1, text="something else")
    (spared,) = tmp_path.glob("stopped-*.mp4")
    assert np.array_equal(moments(spared), stopped) and len(read_manifest(spared)) == 2
    assert not (tmp_path / "video.mp4").exists()


def test_the_video_of_a_stopped_run_is_not_shortened_by_going_on(tmp_path, monkeypatch):
    stopped_run(tmp_path, STORY)
    lengths = []
    real = run_video.join_videos
    monkeypatch.setattr(
        "svi_core.clips.run_video.join_videos", lambda path, *args: (real(path, *args), lengths.append(count_frames(path)))
    )
    run(tmp_path)
    assert min(lengths) >= 13 and not list(tmp_path.glob("stopped-*.mp4"))


def test_every_finished_video_keeps_its_own_manifest(tmp_path):
    first, _, _ = run(tmp_path)
    second, _, _ = run(tmp_path, 2, text="other\n\nstory")
    assert [clip.prompt for clip in read_manifest(first)] == ["one", "two", "three"]
    assert [clip.prompt for clip in read_manifest(second)] == ["other", "story"]
    assert read_last_video(tmp_path) == second


@pytest.mark.parametrize("damage", [lambda data: data[:-200], lambda data: data[:3000] + b"\0" * 500 + data[3500:]])
def test_a_damaged_finished_video_is_joined_again(tmp_path, damage):
    path, _, _ = run(tmp_path)
    frames = moments(path)
    path.write_bytes(damage(path.read_bytes()))
    again, _, maker = run(tmp_path)
    assert again == path and maker.sampled == [] and np.array_equal(moments(again), frames)


def test_another_frame_rate_is_another_file(tmp_path):
    slow, _, _ = run(tmp_path)
    fast, _, maker = run(tmp_path, settings=VideoSettings(VideoCoding(frame_rate=25)))
    assert maker.sampled == [] and fast != slow
    assert probe_video(fast).frame_rate == 25 and probe_video(slow).frame_rate == 16


def test_a_video_open_in_a_player_does_not_fail_a_finished_run(tmp_path, monkeypatch, caplog):
    real = Path.unlink

    def unlink(path, *args, **kwargs):
        if path.name == "video.mp4":
            raise PermissionError(13, "open in a player")
        real(path, *args, **kwargs)

    monkeypatch.setattr(Path, "unlink", unlink)
    path, _, _ = run(tmp_path)
    assert count_frames(path) == 17 and "the finished video is" in caplog.text


def test_a_second_cancel_while_the_end_is_shown_still_leaves_a_video(tmp_path, monkeypatch):
    monkeypatch.setattr(GrowingVideo, "add_rest", lambda video: (_ for _ in ()).throw(Killed()))
    left = stopped_run(tmp_path, STORY)
    assert count_frames(left) == 13


class SlowDecoder(FakeMaker):
    """Stops while it samples clip `stop_at`; its decoder takes so long that nobody who cancels wants to wait for it."""

    def __init__(self, layout, stop_at):
        super().__init__(layout)
        self.stop_at, self.decoded, self.is_stopped = stop_at, [], False

    def sample(self, request, previous):
        if request.index == self.stop_at:
            self.is_stopped = True
            raise Killed()
        return super().sample(request, previous)

    def decode(self, latent):
        assert not self.is_stopped, "decodes after Cancel"
        return super().decode(latent)


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("seam", [Seam.DROP, Seam.LINEAR])
def test_cancel_decodes_nothing_and_still_shows_the_last_clip_to_its_end(tmp_path, name, seam):
    layout = make_layout(name, num_frames=13)
    with pytest.raises(Killed):
        run(tmp_path, 4, layout, SlowDecoder(layout, 2), seam=seam)
    expected = 2 * (13 - layout.overlap) + layout.overlap
    assert np.abs(moments(tmp_path / "video.mp4") - np.arange(expected)).max() < 2
    path, _, maker = run(tmp_path, 4, layout, seam=seam)
    assert maker.sampled == [2, 3] and np.abs(moments(path) - np.arange(4 * (13 - layout.overlap) + layout.overlap)).max() < 2


def test_cancel_leaves_the_measured_times_of_decoding_as_they_are(tmp_path):
    """The end that it shows is in memory, so it takes no time; a later run would expect that of whole clips."""
    measured, add_measure = [], RunStore.add_measure

    def note(store, key, name, value):
        measured.append((store.record(key).index, name))
        add_measure(store, key, name, value)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RunStore, "add_measure", note)
        run(tmp_path, 4, maker=SlowDecoder(LAYOUT, 2), seam=Seam.LINEAR)
    assert count_frames(tmp_path / "video.mp4") == 13 and measured == [(0, "decode_seconds"), (1, "decode_seconds")]


def test_cancel_leaves_out_an_end_that_is_neither_in_memory_nor_on_disk(tmp_path):
    """Both clips are reused, so that they are not decoded again: the file of what the next clip would show decides."""

    def cancelled():
        with pytest.raises(Killed):
            run(tmp_path, 4, maker=SlowDecoder(LAYOUT, 2), seam=Seam.LINEAR)
        return count_frames(tmp_path / "video.mp4")

    assert cancelled() == 13 and cancelled() == 13
    (end,) = (tmp_path / "clips").glob("*-5-9-0-*.mp4")
    end.unlink()
    assert cancelled() == 9


def test_a_clip_whose_decoding_is_cancelled_is_left_to_the_next_run(tmp_path):
    """Cancel comes when the third clip is sampled, stored and half decoded: nobody waits until it is decoded again.

    No space budget removes it meanwhile.
    """
    maker = FakeMaker(LAYOUT)

    def decode(latent):
        chunks = list(FakeMaker.decode(maker, latent))
        yield chunks[0]
        if maker.sampled == [0, 1, 2]:
            maker.sampled.append("stopped")
            raise Killed()
        yield from chunks[1:]

    maker.decode = decode
    with pytest.raises(Killed):
        run(tmp_path, 4, maker=maker, budget_bytes=1)
    assert maker.sampled == [0, 1, 2, "stopped"] and np.abs(moments(tmp_path / "video.mp4") - np.arange(13)).max() < 2
    path, _, maker = run(tmp_path, 4)
    assert maker.sampled == [3] and count_frames(path) == 21


def test_a_clip_whose_decoding_fails_is_decoded_again_and_shown(tmp_path):
    """An error that passes, of a driver say: the third clip is in the video all the same."""
    maker = FakeMaker(LAYOUT)

    def decode(latent):
        chunks = list(FakeMaker.decode(maker, latent))
        yield chunks[0]
        if maker.sampled == [0, 1, 2]:
            maker.sampled.append("failed")
            raise RuntimeError("a driver")
        yield from chunks[1:]

    maker.decode = decode
    with pytest.raises(RuntimeError, match="a driver"):
        run(tmp_path, 4, maker=maker)
    assert np.abs(moments(tmp_path / "video.mp4") - np.arange(17)).max() < 2


def test_a_loop_may_make_more_clips_than_its_plan_counts(tmp_path):
    """The loop decides how many: after the plan's last clip comes the following one, not the first one again."""
    state = state_of(tmp_path)
    state = replace(state, plan=replace(state.plan, num_clips=1))
    clips = []
    for _ in range(3):
        state, clip = next_clip(state)
        clips.append(clip)
    assert [clip.request.index for clip in clips] == [0, 1, 2]
    assert [clip.request.start_frame for clip in clips] == [index * (LAYOUT.num_frames - LAYOUT.overlap) for index in range(3)]


@pytest.mark.parametrize("seam", Seam)
def test_the_last_clip_shows_its_end_at_once(tmp_path, seam):
    whole, _, _ = run(tmp_path / "loop", 2, seam=seam)
    first, _ = next_clip(state_of(tmp_path / "steps", seam=seam))
    last, _ = next_clip(first, is_last=True)
    assert sum(clip.num_frames for clip in last.clips) == count_frames(whole) == 13
    assert np.array_equal(moments(finish_video(last)), moments(whole))
    with pytest.raises(ValueError, match="clip 2 was made with is_last, so no clip can follow it"):
        next_clip(last)
    longer, _ = next_clip(next_clip(first)[0], is_last=True)
    assert count_frames(finish_video(longer)) == 17
