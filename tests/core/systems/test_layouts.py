"""The table of SVI systems against docs/METHOD.md, row by row, and what each row makes of lengths."""

from dataclasses import replace

import pytest

from svi_core.clips.clip_plan import ClipPlan
from svi_core.schedule.text import parse_schedule
from svi_core.systems.layouts import LAYOUTS, Condition, Overlap, Padding, make_layout
from svi_core.systems.variants import VARIANTS, WAN21, WAN22, length_formula, settings_text

ZERO, ANCHOR, GREY = Padding.ZERO_LATENT, Padding.ANCHOR_FRAMES, Padding.GREY_FRAMES
NEXT, PREVIOUS = Overlap.KEEP_NEXT, Overlap.KEEP_PREVIOUS
# docs/METHOD.md, 3 to 3.3 (padding, motion frames, base, cfg, width) and 5.1 (which copy is kept).
# name: padding, motion frames, copy kept, frames of 3 clips, base, cfg, max width
SPEC = {
    "2.0 Pro": (ZERO, 4, PREVIOUS, 76 * 3 + 5, WAN22, 4.0, 832),
    "2.0": (ANCHOR, 1, PREVIOUS, 80 * 3 + 1, WAN22, 5.0, 832),
    "2.0 (Wan 2.1)": (ANCHOR, 5, NEXT, 76 * 3 + 5, WAN21, 5.0, 832),
    "Shot": (ANCHOR, 1, NEXT, 80 * 3 + 1, WAN21, 5.0, 832),
    "Film": (GREY, 5, NEXT, 76 * 3 + 5, WAN21, 5.0, 832),
    "Film-transitions": (GREY, 5, NEXT, 76 * 3 + 5, WAN21, 5.0, 832),
    "Tom & Jerry": (GREY, 1, NEXT, 80 * 3 + 1, WAN21, 5.0, 832),
    "Talk": (ANCHOR, 1, NEXT, 80 * 3 + 1, WAN21, 2.0, 640),
    "Dance": (ANCHOR, 1, NEXT, 80 * 3 + 1, WAN21, 2.0, 640),
}


def test_every_system_of_the_method_is_there_and_no_other():
    assert set(LAYOUTS) == set(VARIANTS) == set(SPEC)


@pytest.mark.parametrize("name", SPEC)
def test_a_row_says_what_the_specification_says(name):
    padding, num_motion, overlap_rule, num_frames, base, cfg, max_width = SPEC[name]
    layout, variant = LAYOUTS[name], VARIANTS[name]
    assert (layout.padding, layout.num_motion_frames, layout.overlap_rule) == (padding, num_motion, overlap_rule)
    assert layout.num_frames == 81 and 3 * (81 - layout.overlap) + layout.overlap == num_frames
    assert (variant.base, variant.cfg, variant.max_width) == (base, cfg, max_width)
    assert variant.num_steps == 50 and variant.shift == 5.0
    assert (variant.boundary is not None) == (base == WAN22)
    assert (variant.clip_vision == "first known frame") == (base == WAN21)
    assert variant.layout is layout


def test_talk_and_dance_differ_as_the_specification_says():
    talk, dance = VARIANTS["Talk"], VARIANTS["Dance"]
    assert talk.audio_cfg == 5.0 and talk.layout.frame_rate == 25 and talk.layout.condition is Condition.SOUND
    assert talk.seed_step is None and dance.seed_step is None and dance.audio_cfg is None
    assert {variant.seed_step for name, variant in VARIANTS.items() if name not in ("Talk", "Dance")} == {42}


def test_2_0_on_wan_2_1_takes_1_motion_frame_as_well():
    layout = make_layout("2.0 (Wan 2.1)", num_motion_frames=1)
    assert layout.overlap == 1 and length_formula(layout) == "80 N + 1"
    assert "trained with" not in settings_text(layout)
    assert "9, decoded and encoded again (trained with 5)" in settings_text(make_layout("2.0 (Wan 2.1)", num_motion_frames=9))


@pytest.mark.parametrize("name", SPEC)
def test_the_settings_text_shows_the_row(name):
    text, variant = settings_text(LAYOUTS[name]), VARIANTS[name]
    assert text.startswith(f"**SVI {name}**\n")
    for expected in (
        variant.base,
        LAYOUTS[name].padding,
        length_formula(LAYOUTS[name]),
        f"cfg | {variant.cfg:g}",
        "| 50, euler |",
    ):
        assert expected in text
    assert all(file.rpartition("/")[2] in text for file in variant.files)


@pytest.mark.parametrize("name", SPEC)
def test_8_bits_are_for_frames_only(name):
    if LAYOUTS[name].in_latent_space:
        with pytest.raises(ValueError, match="hands over latents, not frames"):
            make_layout(name, cuts_to_8_bits=True)
    else:
        assert make_layout(name, cuts_to_8_bits=True) == replace(LAYOUTS[name], cuts_to_8_bits=True)


def test_a_schedules_lengths_leave_the_8_bits_as_they_are():
    plan = ClipPlan(2, parse_schedule("a\n\n[frames 41, motion 9]\nb"), make_layout("Film", cuts_to_8_bits=True))
    asked = plan.request(1).layout
    assert (asked.num_frames, asked.num_motion_frames, asked.cuts_to_8_bits) == (41, 9, True)
