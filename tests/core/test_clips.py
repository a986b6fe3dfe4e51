from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from svi_core.clips import MAX_SEED, Clip, ClipPlan, SeedMode, generate_clips, new_frames
from svi_core.geometry import num_video_frames
from svi_core.layouts import LAYOUTS, Padding, make_layout
from svi_core.prompts import PromptStream

PROMPTS = PromptStream(("one", "two"))


def test_seeds_move_by_42_as_the_authors_do():
    plan = ClipPlan(3, PROMPTS, seed=7)
    assert [plan.seed_of(i) for i in range(4)] == [7, 49, 91, 133]
    assert [replace(plan, seed_mode=SeedMode.FIXED).seed_of(i) for i in range(3)] == [7, 7, 7]


def test_seeds_stay_exact_in_a_browser():
    assert ClipPlan(2, PROMPTS, seed=MAX_SEED).seed_of(1) == 41
    with pytest.raises(ValueError, match="2\\^53 - 1"):
        ClipPlan(1, PROMPTS, seed=2**53)


@pytest.mark.parametrize("count", [0, -1])
def test_zero_clips_are_refused(count):
    with pytest.raises(ValueError, match=f"num_clips is {count}"):
        ClipPlan(count, PROMPTS)


def test_the_loop_hands_each_clip_the_one_before_and_keeps_no_more():
    seen = []

    def sample(index, seed, previous):
        seen.append((index, seed, None if previous is None else previous.index))
        return torch.full((1, 16, 2, 1, 1), float(index))

    clips = list(generate_clips(ClipPlan(3, PROMPTS, 5), sample, lambda latent: latent.reshape(-1)))
    assert seen == [(0, 5, None), (1, 47, 0), (2, 89, 1)]
    assert [clip.prompt for clip in clips] == ["one", "two", "two"]


def test_a_bad_clip_stops_the_loop_after_the_good_ones():
    def sample(index, seed, previous):
        return torch.full((1, 16, 2, 1, 1), float("nan") if index == 1 else 0.0)

    done = []
    with pytest.raises(ValueError, match="clip 2 of 3 .seed 42, prompt 'two'."):
        for clip in generate_clips(ClipPlan(3, PROMPTS), sample, lambda latent: latent):
            done.append(clip.index)
    assert done == [0]


@given(st.sampled_from(sorted(LAYOUTS)), st.integers(1, 6))
def test_the_video_has_the_length_of_the_formula_and_no_frame_twice(name, num_clips):
    """Clips of a perfect model: frame k of clip i shows moment k + i * (81 - overlap); the video must show each once."""
    layout = LAYOUTS[name]
    step = layout.num_frames - layout.overlap
    shown = []
    for index in range(num_clips):
        moments = torch.arange(81).add(index * step).reshape(81, 1, 1, 1)
        shown += new_frames(Clip(index, "", 0, torch.zeros(1), moments), layout, num_clips).flatten().tolist()
    assert shown == list(range(num_video_frames(num_clips, 81, layout.overlap)))


def test_which_copy_of_the_overlap_is_kept():
    first, second = (Clip(i, "", 0, torch.zeros(1), torch.full((81, 1, 1, 1), float(i))) for i in range(2))
    kept = {
        name: [len(new_frames(clip, LAYOUTS[name], 2)) for clip in (first, second)]
        for name in ("2.0 Pro", "2.0", "Shot", "Film")
    }
    # SVI_SPEC A1: 1.0 drops from the previous clip; A2, A3: 2.0 and Pro drop from the next.
    assert kept == {"2.0 Pro": [81, 76], "2.0": [81, 80], "Shot": [80, 81], "Film": [76, 81]}


def test_layout_table_says_what_the_spec_says():
    assert LAYOUTS["2.0 Pro"].padding is Padding.ZERO_LATENT and LAYOUTS["2.0 Pro"].overlap == 5
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
    ],
)
def test_impossible_layouts_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        make_layout(*arguments)
