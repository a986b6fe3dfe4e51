import pytest
import torch

from svi_core.video.colour import ColourCorrection, corrected, match_colour


def noise(mean, spread, seed=0, num_frames=4):
    values = torch.randn(num_frames, 32, 32, 3, generator=torch.Generator().manual_seed(seed))
    return torch.tensor(mean) + torch.tensor(spread) * values


def test_full_strength_gives_the_anchor_s_means_and_deviations():
    anchor = noise([0.5, 0.4, 0.6], [0.06, 0.05, 0.04], 1, 1)
    drifted = noise([0.6, 0.5, 0.4], [0.05, 0.06, 0.05])
    fixed = match_colour(drifted, anchor, 1.0)(drifted)
    assert torch.allclose(fixed.mean(dim=(0, 1, 2)), anchor.mean(dim=(0, 1, 2)), atol=2e-3)
    assert torch.allclose(fixed.std(dim=(0, 1, 2)), anchor.std(dim=(0, 1, 2)), atol=2e-3)


@pytest.mark.parametrize("strength", [0.0, 0.25, 0.5])
def test_strength_is_the_share_of_the_way(strength):
    anchor, drifted = noise([0.5] * 3, [0.05] * 3, 1, 1), noise([0.6] * 3, [0.05] * 3)
    moved = match_colour(drifted, anchor, strength)(drifted).mean() - drifted.mean()
    assert float(moved) == pytest.approx(strength * float(anchor.mean() - drifted.mean()), abs=1e-3)


def test_a_flat_clip_does_not_become_noise():
    correction = match_colour(torch.full((4, 8, 8, 3), 0.5), noise([0.5] * 3, [0.2] * 3, 1, 1), 1.0)
    assert max(correction.gain) <= 2.0


def test_the_correction_is_reached_gradually():
    begin, end = ColourCorrection(), ColourCorrection(offset=(0.4, 0.4, 0.4))
    chunks = torch.zeros(5, 2, 2, 3).split(2)
    levels = torch.cat([corrected(chunk, 2 * place, begin, end, 5) for place, chunk in enumerate(chunks)])[:, 0, 0, 0]
    assert torch.allclose(levels, torch.tensor([0.0, 0.1, 0.2, 0.3, 0.4]))


def test_a_correction_that_stays_the_same_is_that_correction():
    """As after the first clip of a video that does not drift; once it is half the work."""
    frames, correction = torch.rand(9, 4, 5, 3), ColourCorrection((1.1, 0.9, 1.0), (0.02, -0.03, 0.0))
    found = corrected(frames, 0, correction, correction, 9)
    assert torch.equal(found, correction(frames))
    again = ColourCorrection((1.1, 0.9, 1.0), (0.02, -0.03, 1e-9))
    assert torch.allclose(corrected(frames, 0, correction, again, 9), found, atol=1e-6)
