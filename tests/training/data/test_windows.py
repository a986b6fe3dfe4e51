"""Which frames make an example: the published scheme where the clip allows it, and what is used where it does not."""

import math
from dataclasses import replace
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.synthetic_clips import picture, write_clip, write_numbered
from training.data.crops import Crop, cut, draw_crop, nearest_size
from training.data.scan import ClipScan, count_lead_in, scan_clip
from training.data.windows import error_slots, plan_windows
from training.settings.data import DataConfig

PRO = DataConfig(layout="2.0 Pro", p_motion=1.0)


def scan_of(num_frames: int, lead_in: int = 0, plain: tuple[int, ...] = ()) -> ClipScan:
    return ClipScan(num_frames, 832, 480, lead_in, plain)


def plan(scan: ClipScan, config: DataConfig, content: str = "clip"):
    return plan_windows(scan, content, config)[0]


def test_the_shortest_source_of_the_full_scheme_has_158_frames():
    found = plan(scan_of(158), PRO)
    assert found.anchor == 0  # one frame before the motion window
    assert found.motion == tuple(range(1, 82))  # frames k + 1 .. k + 81, counted from 1
    assert found.target == tuple(range(77, 158))  # frames k + 77 .. k + 157
    assert found.anchor_is_outside and found.later_clip


@given(st.integers(158, 400), st.integers(0, 30), st.integers(1, 3), st.text(max_size=3))
@settings(max_examples=60, deadline=None)
def test_the_scheme_holds_wherever_the_window_lies(num_frames, lead_in, num_slots, content):
    config = replace(PRO, num_motion_frames=4 * num_slots)
    overlap = 4 * num_slots + 1
    if num_frames - lead_in < 1 + 2 * 81 - overlap:
        return
    found = plan(scan_of(num_frames, lead_in), config, content)
    assert len(found.motion) == 81 and len(found.target) == 81
    assert found.target[0] == found.motion[-1] + 1 - overlap
    assert lead_in <= found.anchor < found.motion[0]
    assert found.target[-1] < num_frames
    assert np.all(np.diff(found.target) == 1) and np.all(np.diff(found.motion) == 1)


@given(st.integers(77, 157), st.integers(0, 3), st.floats(0, 1), st.text(max_size=2))
@settings(max_examples=60, deadline=None)
def test_shorter_sources_give_up_the_motion_window_first(num_frames, lead_in, p_motion, content):
    scan = scan_of(num_frames, lead_in, tuple(range(lead_in)))
    if num_frames - lead_in + 4 < 81:
        with pytest.raises(ValueError, match="too short"):
            plan(scan, PRO, content)
        return
    found = plan(scan, replace(PRO, p_motion=p_motion), content)
    assert len(found.target) == 81 and found.target[0] >= lead_in
    assert found.frames[0] >= lead_in and found.frames[-1] < num_frames
    if found.later_clip:
        assert found.target[0] == max(lead_in, num_frames - 81)
        assert found.motion[-1] == found.target[0] + 4 and len(found.motion) % 4 == 1 and len(found.motion) >= 5
        assert found.anchor_is_outside == (num_frames - lead_in > 81)
    else:
        assert found.anchor == found.target[0] and not found.motion


def test_a_source_of_81_frames_uses_each_once():
    found = plan(scan_of(81), PRO)
    assert found.target == tuple(range(81))
    assert found.motion == (0, 1, 2, 3, 4)
    assert not found.anchor_is_outside


def test_a_clip_that_begins_in_black_begins_later_and_holds_its_last_frame():
    for variant in plan_windows(scan_of(81, 1, (0,)), "cat", replace(PRO, variants=20, p_motion=0.5)):
        assert variant.target == (*range(1, 81), 80)
        assert 0 not in variant.frames


def test_a_clip_that_is_too_short_is_refused_with_its_numbers():
    with pytest.raises(ValueError, match=r"gives 70 frames at 16 per second, after 10 .* 81 are needed \(5.06 s\)"):
        plan(scan_of(80, 10), PRO)
    with pytest.raises(ValueError, match="gives 80 frames"):
        plan(scan_of(80), replace(PRO, max_held_frames=0))


@pytest.mark.parametrize(("layout", "num_known"), [("2.0", 1), ("Shot", 1), ("Film", 5)])
def test_pixel_layouts_know_their_first_frames_and_take_the_anchor_from_outside(layout, num_known):
    config = DataConfig(layout=layout, p_motion=1.0, variants=10)
    for found in plan_windows(scan_of(300), "a", config):
        assert found.motion == found.target[:num_known]
        assert found.anchor is None if layout == "Film" else found.anchor_is_outside
    first = plan(scan_of(300), replace(config, p_motion=0.0))
    assert first.motion == first.target[:1] and not first.later_clip
    assert first.anchor == (None if layout == "Film" else first.target[0])


def test_plain_frames_are_neither_anchor_nor_start():
    plain = tuple(frame for frame in range(400) if frame % 3)
    for content in map(str, range(40)):
        for p_motion in (0.0, 1.0):
            for layout in ("2.0 Pro", "2.0"):
                found = plan(scan_of(400, 0, plain), DataConfig(layout=layout, p_motion=p_motion), content)
                assert found.anchor % 3 == 0 and found.target[0] % 3 == 0


def test_windows_of_a_long_clip_lie_in_their_own_parts():
    config = replace(PRO, windows=4, variants=2)
    found = plan_windows(scan_of(1000), "a", config)
    assert [(item.window, item.variant) for item in found] == [(window, variant) for window in range(4) for variant in range(2)]
    starts = range(77, 920)
    for item in found:
        part = (item.target[0] - starts[0]) / len(starts)
        assert item.window / 4 - 0.01 <= part <= (item.window + 1) / 4 + 0.01
    assert len(plan_windows(scan_of(200), "a", config)) == 4  # room for two windows of 81 frames


def test_plans_are_a_function_of_content_and_seed():
    config = replace(PRO, variants=3)
    again = plan_windows(scan_of(300), "a", config)
    assert plan_windows(scan_of(300), "a", config) == again
    assert plan_windows(scan_of(300), "a", replace(config, variants=5))[:3] == again
    assert plan_windows(scan_of(300), "b", config) != again
    assert plan_windows(scan_of(300), "a", replace(config, seed=1)) != again
    assert len({item.target for item in again}) == 3


def test_p_motion_is_the_share_of_later_clips():
    found = plan_windows(scan_of(300), "a", DataConfig(variants=2000, p_motion=0.7))
    share = sum(item.later_clip for item in found) / 2000
    assert abs(share - 0.7) < 4 * math.sqrt(0.7 * 0.3 / 2000)


def test_flips_are_off_unless_asked_for_and_then_half():
    assert not any(item.crop.flip for item in plan_windows(scan_of(300), "a", DataConfig(variants=200)))
    flipped = plan_windows(scan_of(300), "a", DataConfig(variants=2000, flip=True))
    assert abs(sum(item.crop.flip for item in flipped) / 2000 - 0.5) < 4 * math.sqrt(0.25 / 2000)


def test_error_slots_leave_the_anchor_of_2_0_pro_clean():
    assert error_slots(PRO.svi_layout, later_clip=True) == range(1, 2)
    assert error_slots(replace(PRO, num_motion_frames=12).svi_layout, later_clip=True) == range(1, 4)
    assert len(error_slots(PRO.svi_layout, later_clip=False)) == 0
    assert error_slots(DataConfig(layout="Film").svi_layout, later_clip=True) == range(21)


@given(st.integers(64, 2000), st.integers(64, 2000), st.integers(0, 999))
@settings(max_examples=80, deadline=None)
def test_a_crop_keeps_the_aspect_ratio_within_the_stated_bounds(width, height, seed):
    crop = draw_crop((width, height), (832, 480), 13 / 14, 0.5, Random(seed))
    assert 0 <= crop.left <= width - crop.box_width and 0 <= crop.top <= height - crop.box_height
    assert abs(crop.box_width - crop.box_height * 832 / 480) <= 1.5  # both sides are whole pixels
    largest = min(width / 832, height / 480)
    assert 13 / 14 * largest * 832 - 1 <= crop.box_width <= largest * 832 + 1


def test_a_picture_of_the_size_passes_bit_for_bit():
    pixels = picture(5)
    crop = draw_crop((64, 64), (64, 64), 1.0, 0.0, Random(0))
    assert crop == Crop(0, 0, 64, 64, 64, 64, False)
    assert torch.equal(cut(pixels, crop), torch.from_numpy(pixels) / 255)
    assert torch.equal(cut(pixels, replace(crop, flip=True)), torch.from_numpy(pixels).flip(1) / 255)


def test_reducing_is_antialiased():
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::2] = 255
    reduced = cut(stripes, Crop(0, 0, 64, 64, 16, 16, False))
    assert float((reduced - 0.5).abs().max()) < 0.05


def test_a_clip_goes_to_the_size_of_its_shape():
    sizes = ((832, 480), (480, 832), (640, 640))
    assert nearest_size(1920, 1080, sizes) == (832, 480)
    assert nearest_size(1080, 1920, sizes) == (480, 832)
    assert nearest_size(700, 720, sizes) == (640, 640)


def black(count: int) -> list[np.ndarray]:
    return [np.zeros((64, 64, 3), np.uint8)] * count


def test_a_scan_finds_black_and_frozen_starts(tmp_path):
    moving = [picture(number) for number in range(20)]
    assert scan_clip(write_clip(tmp_path / "a.mp4", moving), 16) == ClipScan(20, 64, 64, 0, ())
    assert scan_clip(write_clip(tmp_path / "b.mp4", black(3) + moving), 16) == ClipScan(23, 64, 64, 3, (0, 1, 2))
    title = [picture(99)] * 10
    assert scan_clip(write_clip(tmp_path / "c.mp4", title + moving), 16).lead_in == 9  # the last of them is fine
    assert scan_clip(write_clip(tmp_path / "d.mp4", title + black(2) + moving), 16).lead_in == 12
    assert scan_clip(write_clip(tmp_path / "e.mp4", moving + black(2) + moving), 16) == ClipScan(42, 64, 64, 0, (20, 21))


def test_doubled_frames_of_a_slow_clip_are_no_frozen_start(tmp_path):
    assert scan_clip(write_numbered(tmp_path / "a.mp4", 20, rate=4), 16) == ClipScan(80, 64, 64, 0, ())


@pytest.mark.parametrize(
    ("pictures", "reason"),
    [(black(20), "plain"), ([picture(3)] * 20, "does not move"), ([picture(3)], "single picture")],
)
def test_a_clip_that_teaches_nothing_is_refused(tmp_path, pictures, reason):
    with pytest.raises(ValueError, match=reason):
        scan_clip(write_clip(tmp_path / "a.mp4", pictures), 16)


def test_the_lead_in_ends_where_movement_begins():
    no = [False] * 30
    assert count_lead_in(no, no) == 0
    assert count_lead_in([True] * 2 + no, [False] * 32) == 2
    assert count_lead_in(no, [False] + [True] * 6 + [False] * 23) == 0  # 7 equal frames are not enough
    assert count_lead_in(no, [False] + [True] * 7 + [False] * 22) == 7
    assert count_lead_in([True] * 3, [False] * 3) == 3
