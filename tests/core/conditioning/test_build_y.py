import re
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from svi_core.conditioning.build_y import (
    KnownPart,
    build_y,
    clip_that_ends_with,
    concat_padding,
    cut_to_8_bits,
    fill_slots,
    motion_tail,
    motion_window,
    padded_frames,
    require_finite,
    with_end_image,
)
from svi_core.systems.layouts import Padding


def random_latent(batch=1, slots=1, height=4, width=6, seed=0):
    return torch.randn(batch, 16, slots, height, width, generator=torch.Generator().manual_seed(seed))


def test_first_clip_is_anchor_then_zeros():
    anchor = random_latent()
    y = concat_padding(anchor, None, torch.zeros(1, 16, 1, 1, 1), 21)
    assert y.latent.shape == (1, 16, 21, 4, 6)
    assert torch.equal(y.latent[:, :, :1], anchor)
    assert torch.count_nonzero(y.latent[:, :, 1:]) == 0


def test_later_clip_is_anchor_motion_padding_and_only_slot_0_is_known():
    anchor, previous = random_latent(), random_latent(slots=21, seed=1)
    motion = motion_tail(previous, 8)
    y = concat_padding(anchor, motion, torch.full((1, 16, 1, 1, 1), 0.25), 21)
    assert torch.equal(y.latent[:, :, 0], anchor[:, :, 0])
    assert torch.equal(y.latent[:, :, 1:3], previous[:, :, 19:21])
    assert torch.equal(y.latent[:, :, 3:], torch.full_like(y.latent[:, :, 3:], 0.25))
    assert y.mask.shape == (1, 1, 21, 4, 6)
    assert y.mask[:, :, 0].eq(1).all() and y.mask[:, :, 1:].eq(0).all()


def test_padding_keeps_its_channel_values():
    padding = torch.arange(16.0).reshape(1, 16, 1, 1, 1)
    y = concat_padding(random_latent(), None, padding, 5)
    assert torch.equal(y.latent[0, :, 4, 3, 5], torch.arange(16.0))


@given(st.integers(1, 3), st.sampled_from([4, 8, 12]), st.integers(2, 12), st.integers(1, 3), st.integers(1, 4))
def test_y_has_the_clips_shape_or_says_why_not(batch, motion_frames, slots, height, width):
    anchor = random_latent(batch, 1, height, width)
    motion = random_latent(1, motion_frames // 4, height, width)
    if 1 + motion_frames // 4 >= slots:
        with pytest.raises(ValueError, match="leaves nothing"):
            concat_padding(anchor, motion, torch.zeros(1, 16, 1, 1, 1), slots)
    else:
        y = concat_padding(anchor, motion, torch.zeros(1, 16, 1, 1, 1), slots)
        assert y.latent.shape == (batch, 16, slots, height, width)


def test_several_anchors_share_one_motion_and_the_other_way_round():
    zero = torch.zeros(1, 16, 1, 1, 1)
    both = concat_padding(random_latent(3), random_latent(1, seed=2), zero, 5).latent
    assert both.shape[0] == 3 and torch.equal(both[0, :, 1], both[2, :, 1])
    assert concat_padding(random_latent(1), random_latent(2, seed=2), zero, 5).latent.shape[0] == 2


@pytest.mark.parametrize(
    ("anchor", "motion", "words"),
    [
        (random_latent(slots=2), None, "anchor has 2 latent slots"),
        (torch.zeros(1, 48, 1, 4, 6), None, r"anchor has shape \[1, 48, 1, 4, 6\]"),
        (torch.zeros(1, 16, 4, 6), None, "anchor has shape"),
        (random_latent(), random_latent(height=8), "48 x 32 and motion 48 x 64"),
        (random_latent(2), random_latent(3), "batch 2 and motion has batch 3"),
    ],
)
def test_parts_that_do_not_fit_are_refused_by_name(anchor, motion, words):
    with pytest.raises(ValueError, match=words):
        concat_padding(anchor, motion, torch.zeros(1, 16, 1, 1, 1), 21)


def test_motion_tail_is_a_copy_and_never_takes_slot_0():
    latent = random_latent(slots=3)
    tail = motion_tail(latent, 8)
    assert torch.equal(tail, latent[:, :, 1:])
    tail.zero_()
    assert latent[:, :, 1:].abs().sum() > 0
    with pytest.raises(ValueError, match="only 8 frames after its first"):
        motion_tail(latent, 12)


@pytest.mark.parametrize(("length", "kept"), [(5, 5), (7, 5), (81, 81), (200, 81), (83, 81), (80, 77)])
def test_motion_window_is_the_last_4n_plus_1_frames(length, kept):
    frames = torch.arange(float(length)).reshape(length, 1, 1, 1)
    window = motion_window(frames)
    assert window.shape[0] == kept and window[-1].item() == length - 1


def test_frames_are_put_together_on_the_host_where_a_device_lacks_memory(monkeypatch):
    """The meta device stands for a full GPU."""
    known, cat = torch.rand(2, 32, 48, 3), torch.cat

    def full(parts, dim):
        if parts[0].is_meta:
            raise error
        return cat(parts, dim)

    monkeypatch.setattr(torch, "cat", full)
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: known)
    error = torch.OutOfMemoryError("CUDA out of memory")
    image = torch.rand(1, 32, 48, 3)
    assert torch.equal(padded_frames(known.to("meta"), image, 9), cat([known, image.expand(7, -1, -1, -1)]))
    error = RuntimeError("a fault")
    with pytest.raises(RuntimeError, match="a fault"):
        padded_frames(known.to("meta"), image, 9)


def test_padded_frames_of_the_pixel_space_layouts():
    known, image = torch.rand(5, 16, 32, 3), torch.rand(1, 16, 32, 3)
    grey = padded_frames(known, None, 81)
    assert grey.shape == (81, 16, 32, 3)
    assert torch.equal(grey[:5], known) and grey[5:].eq(0.5).all()
    repeated = padded_frames(known[:1], image, 81)
    assert torch.equal(repeated[0], known[0]) and torch.equal(repeated[1:], image.expand(80, -1, -1, -1))
    with pytest.raises(ValueError, match="bring both to one size"):
        padded_frames(known, torch.rand(1, 32, 32, 3), 81)
    with pytest.raises(ValueError, match="nothing is left"):
        padded_frames(known, None, 5)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_latents_are_refused_with_the_clip_named(bad):
    latent = random_latent()
    require_finite(latent, "clip 1")
    latent[0, 3, 0, 1, 2] = bad
    with pytest.raises(ValueError, match="clip 1: 1 of 384 latent values"):
        require_finite(latent, "clip 1")


def test_an_end_image_is_the_last_slot_and_its_last_frame_is_known():
    y = concat_padding(random_latent(), None, torch.zeros(1, 16, 1, 1, 1), 5)
    end = random_latent(seed=3)
    ended = with_end_image(y, end)
    assert torch.equal(ended.latent[:, :, -1:], end) and torch.equal(ended.latent[:, :, :-1], y.latent[:, :, :-1])
    assert ended.mask[0, :, :, 0, 0].T.tolist() == [[1, 1, 1, 1], *[[0, 0, 0, 0]] * 3, [0, 0, 0, 1]]
    with pytest.raises(ValueError, match="use one size"):
        with_end_image(y, random_latent(height=8))


def test_8_bits_are_cut_not_rounded_and_stay_within_their_range():
    values = torch.tensor([-0.2, 0.0, 0.0039, 0.5, 0.9999, 1.0, 1.7]).reshape(1, 1, 7, 1)
    expected = torch.tensor([0, 0, 0, 127, 254, 255, 255]).reshape(1, 1, 7, 1) / 255
    assert torch.equal(cut_to_8_bits(values), expected)
    assert torch.equal(cut_to_8_bits(expected), expected)


def test_all_256_levels_stay_what_they_are():
    levels = (torch.arange(256) / 255).reshape(1, 16, 16, 1)
    assert torch.equal(cut_to_8_bits(levels), levels)


def encode(frames):
    """Stand in for the VAE: each slot holds the mean of its first frame."""
    means = frames[::4].mean(dim=(1, 2, 3))
    return means.view(1, 1, -1, 1, 1).expand(1, 16, -1, 4, 6)


ZERO = torch.full((1, 16, 1, 1, 1), 0.25)
WHITE, DARK = torch.ones(1, 32, 48, 3), torch.full((5, 32, 48, 3), 0.125)


@pytest.mark.parametrize(
    ("padding", "motion", "slots"),
    [
        (Padding.GREY_FRAMES, None, [1.0, 0.5, 0.5]),
        (Padding.GREY_FRAMES, DARK, [0.125, 0.125, 0.5]),
        (Padding.ANCHOR_FRAMES, None, [1.0, 1.0, 1.0]),
        (Padding.ANCHOR_FRAMES, DARK[:1], [0.125, 1.0, 1.0]),
    ],
)
def test_y_of_a_pixel_space_clip_is_one_encode_of_known_and_padding_frames(padding, motion, slots):
    y = build_y(padding, 9, KnownPart(frames=WHITE), motion if motion is None else KnownPart(frames=motion), ZERO, encode)
    assert y.latent[0, 0, :, 0, 0].tolist() == slots
    assert y.mask[0, 0, :, 0, 0].tolist() == [1.0, 0.0, 0.0]


def test_y_of_2_0_pro_is_anchor_motion_and_the_zero_of_normalised_space():
    anchor, motion = random_latent(), random_latent(seed=2)
    y = build_y(Padding.ZERO_LATENT, 13, KnownPart(anchor), KnownPart(motion), ZERO, None)
    assert torch.equal(y.latent, torch.cat([anchor, motion, ZERO.expand(1, 16, 2, *anchor.shape[-2:])], dim=2))
    restored = fill_slots(y.latent[:, :, :2], ZERO, 4)
    assert torch.equal(restored.latent, y.latent) and torch.equal(restored.mask, y.mask)


def test_grey_padding_needs_no_anchor_where_there_is_motion():
    y = build_y(Padding.GREY_FRAMES, 9, None, KnownPart(frames=DARK), ZERO, encode)
    assert y.latent[0, 0, :, 0, 0].tolist() == [0.125, 0.125, 0.5]


def test_y_is_put_together_in_one_place_only():
    """Nodes, trainer, cache, sample videos and the drift study ask for y; none of them lays it out itself."""
    root = Path(__file__).resolve().parents[3]
    parts = re.compile(r"\b(concat_padding|padded_frames|known_mask)\(")
    rooms = ("svi_core", "nodes", "training", "benchmarks")
    users = {
        path.name for room in rooms for path in (root / room).rglob("*.py") if parts.search(path.read_text(encoding="utf-8"))
    }
    assert users == {"build_y.py", "host.py", "transfers.py"}, "and two benchmarks, which time it"


def test_large_numbers_whose_sum_is_no_number_of_fp32_are_finite():
    latent = random_latent()
    latent[0, 3, 0, 1, 2:4] = 3e38
    assert latent.sum().isinf()
    require_finite(latent, "clip 1")
    latent[0, 3, 0, 1, 2:4] = torch.tensor([float("inf"), -float("inf")])
    with pytest.raises(ValueError, match="clip 1: 2 of 384 latent values"):
        require_finite(latent, "clip 1")


def test_a_clip_that_ends_with_an_image_is_grey_before():
    image = torch.rand(1, 16, 32, 3)
    clip = clip_that_ends_with(image, 9)
    assert clip.shape == (9, 16, 32, 3) and torch.equal(clip[8:], image) and (clip[:8] == 0.5).all()
