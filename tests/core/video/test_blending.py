import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from svi_core.video.blending import blend_weights, cut_frames
from svi_core.video.seams import Seam, Showing


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
