from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from svi_core.clips import MAX_SEED, ClipPlan, SeedMode, cut_frames, generate_clips
from svi_core.geometry import num_video_frames
from svi_core.layouts import LAYOUTS, Padding, make_layout
from svi_core.run_store import RunStore
from svi_core.schedule import LiveSchedule, parse_schedule
from tests.core.fakes import FakeMaker

PRO = LAYOUTS["2.0 Pro"]


def plan_of(num_clips=3, text="one\n\ntwo", layout=PRO, **rest):
    return ClipPlan(num_clips, parse_schedule(text), layout, **rest)


def test_seeds_move_by_42_as_the_authors_do():
    plan = plan_of(seed=7)
    assert [plan.seed_of(i) for i in range(4)] == [7, 49, 91, 133]
    assert [replace(plan, seed_mode=SeedMode.FIXED).seed_of(i) for i in range(3)] == [7, 7, 7]


def test_seeds_stay_exact_in_a_browser():
    assert plan_of(seed=MAX_SEED).seed_of(1) == 41
    with pytest.raises(ValueError, match="2\\^53 - 1"):
        plan_of(seed=2**53)


@pytest.mark.parametrize("count", [0, -1])
def test_zero_clips_are_refused(count):
    with pytest.raises(ValueError, match=f"num_clips is {count}"):
        plan_of(count)


def test_the_loop_hands_each_clip_the_one_before(tmp_path):
    with RunStore(tmp_path) as store:
        clips = list(generate_clips(plan_of(seed=5), FakeMaker(PRO), store))
    assert [clip.request.seed for clip in clips] == [5, 47, 89]
    assert [clip.request.spec.prompt for clip in clips] == ["one", "two", "two"]
    assert [int(clip.latent[0, 1, 0, 0, 0]) for clip in clips] == [0, 1, 2]
    assert len({clip.key for clip in clips}) == 3 and not any(clip.reused for clip in clips)


def test_a_bad_clip_stops_the_loop_after_the_good_ones(tmp_path):
    maker = FakeMaker(PRO)
    maker.nan_at = 1
    done = []
    with RunStore(tmp_path) as store, pytest.raises(ValueError, match="clip 2 .seed 42, prompt 'two'."):
        for clip in generate_clips(plan_of(), maker, store):
            done.append(clip.request.index)
    assert done == [0] and len(list((tmp_path / "clips").glob("*.safetensors"))) == 1


def test_tail_is_the_last_frames(tmp_path):
    with RunStore(tmp_path) as store:
        clip = next(generate_clips(plan_of(1), FakeMaker(PRO), store))
    assert torch.allclose(clip.tail(12)[:, 0, 0, 0] * 255, torch.arange(69.0, 81.0))


@given(st.sampled_from(sorted(LAYOUTS)), st.integers(1, 6))
def test_the_video_has_the_length_of_the_formula_and_shows_each_moment_once(name, num_clips):
    layout = LAYOUTS[name]
    plan = plan_of(num_clips, layout=layout)
    shown = []
    for index in range(num_clips):
        moments = torch.arange(81).add(index * (81 - layout.overlap)).reshape(81, 1, 1, 1)
        chunks = iter([moments[:1], *moments[1:].split(8)])
        for chunk in cut_frames(chunks, plan.shown_frames(plan.request(index))):
            shown += chunk.flatten().tolist()
    assert shown == list(range(num_video_frames(num_clips, 81, layout.overlap)))


def shown(text, layout, num_clips=3):
    plan = plan_of(num_clips, text, layout)
    return [(r.start, r.stop) for r in (plan.shown_frames(plan.request(i)) for i in range(num_clips))]


def test_which_copy_of_the_overlap_is_kept():
    """SVI_SPEC A1: 1.0 drops from the previous clip; A2, A3: 2.0 and Pro drop from the next."""
    assert shown("a", PRO) == [(0, 81), (5, 81), (5, 81)]
    assert shown("a", LAYOUTS["2.0"]) == [(0, 81), (1, 81), (1, 81)]
    assert shown("a", LAYOUTS["Shot"]) == [(0, 80), (0, 80), (0, 81)]
    assert shown("a", LAYOUTS["Film"]) == [(0, 76), (0, 76), (0, 81)]


def test_a_cut_shares_no_frames_and_a_change_of_motion_changes_the_overlap():
    assert shown("a\n\n[cut]\nb\n\nc", PRO) == [(0, 81), (0, 81), (5, 81)]
    assert shown("a\n\n[cut]\nb\n\nc", LAYOUTS["Film"]) == [(0, 81), (0, 76), (0, 81)]
    assert shown("a\n\n[motion 8]\nb\n\n[motion 12, frames 41]\nc", PRO) == [(0, 81), (9, 81), (13, 41)]


def test_held_frames_repeat_the_last_shown_one():
    chunks = iter(torch.arange(10.0).reshape(10, 1, 1, 1).split(4))
    assert torch.cat(list(cut_frames(chunks, range(2, 8), 3))).flatten().tolist() == [2, 3, 4, 5, 6, 7, 7, 7, 7]


def test_the_schedules_seed_comes_first():
    plan = plan_of(4, "[seed 9]\na\n\nb\n\n[seed 9, x2]\nc", seed=1)
    assert [plan.request(i).seed for i in range(4)] == [9, 43, 9, 127]


def test_a_cut_does_not_depend_on_what_came_before(tmp_path):
    def keys(text):
        with RunStore(tmp_path) as store:
            return [clip.key for clip in generate_clips(plan_of(3, text), FakeMaker(PRO), store)]

    first, second = keys("a\n\n[cut]\nb\n\nc"), keys("other\n\n[cut]\nb\n\nc")
    assert first[0] != second[0] and first[1:] == second[1:]
    assert keys("a\n\nb\n\nc")[1] != first[1]


def test_layout_table_says_what_the_spec_says():
    assert PRO.padding is Padding.ZERO_LATENT and PRO.overlap == 5
    assert LAYOUTS["Shot"].padding is Padding.ANCHOR_FRAMES and LAYOUTS["Shot"].overlap == 1
    assert LAYOUTS["2.0"].padding is Padding.ANCHOR_FRAMES and LAYOUTS["2.0"].overlap == 1
    assert LAYOUTS["Film"].padding is Padding.GREY_FRAMES and LAYOUTS["Film"].overlap == 5
    assert make_layout("2.0 Pro", num_motion_frames=12).overlap == 13


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("Pro",), "layout is 'Pro'"),
        (("2.0 Pro", 80), "num_frames is 80"),
        (("2.0 Pro", 81, 5), "4, 8 or 12"),
        (("2.0 Pro", 5), "shares 5 frames"),
        (("Film", 5), "shares 5 frames"),
        (("Shot", 1), "shares 1 frames"),
        (("Film", 81, 4), "1 for Shot"),
        (("2.0 Pro", 4_000_001), "at most 1001"),
        (("2.0 Pro", 81, 84), "at most 1001 and 80"),
    ],
)
def test_impossible_layouts_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        make_layout(*arguments)


def test_a_joint_and_the_next_clip_see_the_same_schedule(tmp_path):
    """A live schedule changes after clip 1's last frames were chosen: clip 2 is what it was then, clip 3 what is new."""
    path = tmp_path / "live.txt"
    path.write_text("a\n\nb\n\nc")
    plan = ClipPlan(3, LiveSchedule(path), LAYOUTS["Film"])
    assert plan.shown_frames(plan.request(0)) == range(76)
    path.write_text("a\n\n[cut]\nb\n\n[cut]\nd")
    assert plan.request(1).spec.cut is False
    assert plan.shown_frames(plan.request(1)) == range(81) and plan.request(2).spec.prompt == "d"


@pytest.mark.parametrize(
    ("name", "text"),
    [("2.0 Pro", "[frames 9]\na\n\n[motion 12]\nb"), ("Shot", "[frames 5]\na\n\n[motion 9]\nb")],
)
def test_motion_longer_than_the_clip_before_is_refused_beforehand(name, text):
    with pytest.raises(ValueError, match="clip 2 of the schedule shares .* use fewer"):
        plan_of(2, text, LAYOUTS[name]).require_joints(parse_schedule(text))
    plan_of(2, text, LAYOUTS[name]).require_joints(parse_schedule(text.replace("[motion", "[cut, motion")))


def test_lengths_that_a_layout_cannot_take_name_their_clip():
    with pytest.raises(ValueError, match="clip 2 of the schedule: num_motion_frames is 5.*4, 8 or 12"):
        plan_of(2, "a\n\n[motion 5]\nb").request(1)


def test_the_graph_s_keys_are_known_without_making_a_clip(tmp_path):
    plan = plan_of(recipe="graph", text="one\n\ntwo\n\n[cut]\nthree")
    with RunStore(tmp_path) as store:
        list(generate_clips(plan, FakeMaker(PRO), store))
        stored = [record.plan_key for record in store.records()]
    first = plan.plan_key(plan.request_for(0, plan.schedule.at(0)), None)
    second = plan.plan_key(plan.request_for(1, plan.schedule.at(1)), first)
    assert stored == [first, second, plan.plan_key(plan.request_for(2, plan.schedule.at(2)), None)]
    assert replace(plan, recipe="other").plan_key(plan.request_for(0, plan.schedule.at(0)), None) != first
