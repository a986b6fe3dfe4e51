import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from svi_core.video.seams import Seam, Showing, blend_weights, cut_frames


def frames(values):
    return torch.as_tensor(values, dtype=torch.float32).reshape(-1, 1, 1, 1)


def shown(showing, before=None, num_frames=10, chunk=4):
    chunks = iter(frames(range(num_frames)).split(chunk))
    return torch.cat(list(cut_frames(chunks, showing, before))).flatten().tolist()


def test_held_frames_repeat_the_last_shown_one():
    assert shown(Showing(range(2, 8), hold=3)) == [2, 3, 4, 5, 6, 7, 7, 7, 7]


def test_weights_by_hand():
    assert blend_weights(Seam.LINEAR, 4).tolist() == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert blend_weights(Seam.EASED, 3).tolist() == pytest.approx([3 / 16 - 2 / 64, 0.5, 27 / 16 - 54 / 64])


@given(st.sampled_from([Seam.LINEAR, Seam.EASED]), st.integers(1, 80))
def test_weights_rise_symmetrically_between_the_clips(seam, count):
    weights = blend_weights(seam, count)
    assert 0 < weights.min() and weights.max() < 1 and (weights.diff() > 0).all()
    assert torch.allclose(weights + weights.flip(0), torch.ones(count), atol=1e-6)


@pytest.mark.parametrize("chunk", [1, 3, 10])
def test_a_blend_goes_from_the_clip_before_to_this_one(chunk):
    """Frames 1 .. 4 of this clip with 101, 102, 103, 104 before: 0.8 * 101 + 0.2 * 1 and so on."""
    before = frames([101, 102, 103, 104])
    expected = [0.8 * 101 + 0.2 * 1, 0.6 * 102 + 0.4 * 2, 0.4 * 103 + 0.6 * 3, 0.2 * 104 + 0.8 * 4, 5, 6]
    assert shown(Showing(range(1, 7), 4, Seam.LINEAR), before, chunk=chunk) == pytest.approx(expected, rel=1e-5)


def test_blending_equal_frames_changes_nothing():
    assert shown(Showing(range(1, 9), 4, Seam.EASED), frames([1, 2, 3, 4])) == pytest.approx(list(range(1, 9)))


@given(st.integers(1, 30), st.integers(0, 5))
def test_a_final_length_cuts_holds_first_then_frames(limit, hold):
    whole = Showing(range(2, 12), 3, Seam.LINEAR, hold)
    short = whole.limited(limit)
    assert short.num_frames == min(limit, whole.num_frames)
    assert short.frames == whole.frames[: len(short.frames)] and short.num_blended == 3
    assert short.is_end == (limit >= 10)


def test_names_tell_showings_apart():
    variants = [Showing(range(5)), Showing(range(4)), Showing(range(5), hold=1), Showing(range(5), 2, Seam.LINEAR)]
    variants += [Showing(range(5), 2, Seam.EASED), Showing(range(5), 3, Seam.EASED)]
    assert len({showing.name for showing in variants}) == len(variants)
