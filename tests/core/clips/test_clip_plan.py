from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from svi_core.clips.chain import Clip, DecodedClip
from svi_core.clips.clip_plan import MAX_SEED, ClipPlan, ClipRequest, SeedMode
from svi_core.schedule.live_file import LiveSchedule
from svi_core.schedule.spec import ClipSpec
from svi_core.schedule.text import parse_schedule
from svi_core.store.records import read_records
from svi_core.store.run_store import RunStore
from svi_core.systems.layouts import LAYOUTS, Padding, make_layout
from svi_core.video.blending import cut_frames
from svi_core.video.seams import Seam
from tests.core.fakes import FakeMaker, generate_clips

PRO = LAYOUTS["2.0 Pro"]


def plan_of(num_clips=3, text="one\n\ntwo", layout=PRO, **rest):
    return ClipPlan(num_clips, parse_schedule(text), layout, **rest)


def test_seeds_move_by_42_as_the_authors_do():
    plan = plan_of(seed=7)
    assert [plan.seed_of(i) for i in range(4)] == [7, 49, 91, 133]
    assert [replace(plan, seed_mode=SeedMode.FIXED).seed_of(i) for i in range(3)] == [7, 7, 7]
    assert [replace(plan, num_clips_before=2).seed_of(i) for i in range(2)] == [91, 133]


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
    for index, (_, showing) in enumerate(plan.walk()):
        moments = torch.arange(81).add(index * (81 - layout.overlap)).reshape(81, 1, 1, 1)
        chunks = iter([moments[:1], *moments[1:].split(8)])
        for chunk in cut_frames(chunks, showing):
            shown += chunk.flatten().tolist()
    assert shown == list(range(num_clips * (81 - layout.overlap) + layout.overlap))


def shown(text, layout, num_clips=3, **rest):
    plan = plan_of(num_clips, text, layout, **rest)
    return [(showing.frames.start, showing.frames.stop) for _, showing in plan.walk()]


def test_which_copy_of_the_overlap_is_kept():
    """docs/METHOD.md, 5.1: 1.0 drops from the previous clip; 2.0 and Pro drop from the next."""
    assert shown("a", PRO) == [(0, 81), (5, 81), (5, 81)]
    assert shown("a", LAYOUTS["2.0"]) == [(0, 81), (1, 81), (1, 81)]
    assert shown("a", LAYOUTS["Shot"]) == [(0, 80), (0, 80), (0, 81)]
    assert shown("a", LAYOUTS["Film"]) == [(0, 76), (0, 76), (0, 81)]


def test_a_cut_shares_no_frames_and_a_change_of_motion_changes_the_overlap():
    assert shown("a\n\n[cut]\nb\n\nc", PRO) == [(0, 81), (0, 81), (5, 81)]
    assert shown("a\n\n[cut]\nb\n\nc", LAYOUTS["Film"]) == [(0, 81), (0, 76), (0, 81)]
    assert shown("a\n\n[motion 8]\nb\n\n[motion 12, frames 41]\nc", PRO) == [(0, 81), (9, 81), (13, 41)]


def test_a_blend_leaves_out_the_frame_that_replays_the_anchor():
    """2.0 Pro shares 5 frames: 4 are mixed, the later clip's frame 0 is not shown. Film mixes all 5, Shot its one."""
    assert shown("a", PRO, seam=Seam.LINEAR) == [(0, 77), (1, 77), (1, 81)]
    assert shown("a\n\nb\n\n[seam drop]\nc", PRO, seam=Seam.EASED) == [(0, 77), (1, 81), (5, 81)]
    assert shown("a\n\n[seam eased]\nb\n\n[cut]\nc", PRO) == [(0, 77), (1, 81), (0, 81)]
    assert shown("a", LAYOUTS["Film"], seam=Seam.LINEAR) == [(0, 76), (0, 76), (0, 81)]
    assert shown("a", LAYOUTS["2.0"], seam=Seam.LINEAR) == [(0, 80), (0, 80), (0, 81)]
    blended = plan_of(3, layout=PRO, seam=Seam.LINEAR).request(1).num_blended
    assert blended == 4 and plan_of(3, layout=PRO, seam=Seam.LINEAR).request(0).num_blended == 0


@pytest.mark.parametrize("seam", Seam)
@pytest.mark.parametrize("name", LAYOUTS)
def test_a_continued_video_keeps_its_own_frames(name, seam):
    plan = plan_of(2, layout=LAYOUTS[name], continues="video", seam=seam)
    _, first = next(plan.walk())
    assert first.frames.start == LAYOUTS[name].overlap and first.num_blended == 0
    assert not plan.request(0).starts_anew and plan_of(2, "[cut]\na", continues="video").request(0).starts_anew


def test_seams_and_holds_change_what_is_shown_not_the_clip(tmp_path):
    plans = [plan_of(2, text) for text in ("a\n\nb", "[hold 3]\na\n\n[seam linear]\nb")]
    keys = []
    for plan in plans:
        with RunStore(tmp_path) as store:
            keys.append([(clip.key, clip.plan_key) for clip in generate_clips(plan, FakeMaker(PRO), store)])
    assert keys[0] == keys[1]


def test_a_clip_that_would_vanish_between_two_seams_is_refused():
    text = "[frames 9]\na\n\n[frames 9]\nb\n\n[seam linear]\nc"
    with pytest.raises(ValueError, match="clip 2 of the schedule has 9 frames, all of which go into its seams"):
        plan_of(3, text).require_joints(parse_schedule(text))


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
    walk = plan.walk()
    assert next(walk)[1].frames == range(76)
    path.write_text("a\n\n[cut]\nb\n\n[cut]\nd")
    request, showing = next(walk)
    assert request.spec.cut is False and showing.frames == range(81)
    assert next(walk)[0].spec.prompt == "d"


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
    plan = plan_of(graph_hash="graph", text="one\n\ntwo\n\n[cut]\nthree")
    with RunStore(tmp_path) as store:
        list(generate_clips(plan, FakeMaker(PRO), store))
        stored = [record.plan_key for record in read_records(tmp_path)]
    first = plan.plan_key(plan.request_for(0, plan.schedule.at(0)), None)
    second = plan.plan_key(plan.request_for(1, plan.schedule.at(1)), first)
    assert stored == [first, second, plan.plan_key(plan.request_for(2, plan.schedule.at(2)), None)]
    assert replace(plan, graph_hash="other").plan_key(plan.request_for(0, plan.schedule.at(0)), None) != first


def test_a_record_says_how_much_work_its_clip_was(tmp_path):
    with RunStore(tmp_path) as store:
        list(generate_clips(plan_of(1), FakeMaker(PRO), store))
        measures = read_records(tmp_path)[0].measures
    assert measures.pop("sample_seconds") >= 0.0
    assert measures == {"num_steps": 4, "num_passes": 2, "num_slots": 21, "latent_height": 2, "latent_width": 2}


def test_clips_lie_one_after_the_other_on_the_timeline(tmp_path):
    """81 frames, 5 shared with the next; a cut shares none; a hold takes time; a continued video's frames come first."""

    def starts(text, num_clips=3, **rest):
        plan = plan_of(num_clips, text, **rest)
        with RunStore(tmp_path) as store:
            start = FakeStart() if plan.continues else None
            return [clip.request.start_frame for clip in generate_clips(plan, FakeMaker(PRO), store, start)]

    assert starts("a") == [0, 76, 152]
    assert starts("[hold 10]\na\n\n[cut]\nb\n\n[motion 8]\nc") == [0, 91, 163]
    assert starts("a", layout=LAYOUTS["Shot"]) == [0, 80, 160]
    assert starts("a", continues="video") == [-5, 71, 147]


class FakeStart:
    key = "0" * 64
    latent = torch.zeros(1, 16, 21, 2, 2)

    def tail(self, num_frames):
        return torch.zeros(num_frames, 16, 16, 3)


def test_a_live_edit_that_leaves_no_room_for_the_clip_before_is_not_followed(tmp_path):
    path = tmp_path / "live.txt"
    path.write_text("a\n\n[frames 9]\nb\n\nc")
    plan = ClipPlan(3, LiveSchedule(path), LAYOUTS["Film"])
    walk = plan.walk()
    next(walk)
    path.write_text("a\n\n[frames 9]\nb\n\n[motion 9]\nc")
    assert next(walk)[1].frames == range(4) and next(walk)[0].spec.num_motion_frames is None


def test_runs_that_share_a_live_schedule_judge_its_edits_each_for_itself(tmp_path, caplog):
    """Only one of two runs has the anchor that an edit names; the edit it followed is not in force for the other."""
    path = tmp_path / "live.txt"
    path.write_text("a")
    shared = LiveSchedule(path)

    def lacks_garden(spec):
        if spec.anchor == "garden":
            raise ValueError("no garden here")

    has_it = ClipPlan(3, shared.for_run(), LAYOUTS["Shot"])
    lacks_it = ClipPlan(3, shared.for_run(), LAYOUTS["Shot"], accepts=lacks_garden)
    path.write_text("[anchor garden]\nb")
    assert has_it.request(0).spec.prompt == "b"
    assert lacks_it.request(0).spec.prompt == "a" and "no garden here" in caplog.text
    assert has_it.request(1).spec.anchor == "garden" and lacks_it.request(1).spec.prompt == "a"


@pytest.mark.parametrize("lengths", [(1, 8, 8), (17,), (4, 4, 4, 4, 1), (1,) * 17])
def test_the_last_frames_are_kept_however_the_decoder_cuts_them(lengths):
    """In memory of their own: a view would keep all frames of its chunk."""
    frames = torch.arange(17.0).view(17, 1, 1, 1).expand(-1, 2, 2, 3).clone()
    request = ClipRequest(0, ClipSpec("a"), 0, make_layout("2.0 Pro", num_frames=17), True)
    decoded = DecodedClip(Clip(request, "0" * 64, torch.zeros(1), False, lambda latent: iter(frames.split(lengths))))
    assert torch.equal(torch.cat(list(decoded)), frames)
    last = decoded.clip.last_frames
    assert torch.equal(last, frames[-request.layout.overlap :]) and last.untyped_storage().nbytes() == last.nbytes
