"""Sigmas per expert: by hand where the even grid splits as asked for, by count and spacing where it does not."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from svi_core.flow.few_steps import few_step_sigmas
from svi_core.flow.flow_matching import num_high_noise_steps, require_sigmas


@pytest.mark.parametrize(
    ("high", "low", "shift", "boundary", "expected"),
    [
        # sigma = 5 t / (1 + 4 t) at t = 1, 3/4, 1/2, 1/4: what LightX2V's 4 steps are trained on; 2 are at 0.9 and above
        (2, 2, 5.0, 0.9, [1, 3.75 / 4, 2.5 / 3, 1.25 / 2, 0]),
        # 8 t / (1 + 7 t) at sixths, as in the official workflow of 2.0: 1, 0.976, 0.941 and 0.889, 0.8, 0.615
        (3, 3, 8.0, 0.9, [1, 40 / 41, 16 / 17, 8 / 9, 0.8, 8 / 13, 0]),
        # 3 even steps would be 2 + 1 at 0.9: high part t from 1 to 0.9 / (5 - 4 * 0.9) = 9/14, low part from there to 0
        (1, 1, 5.0, 0.9, [1, 2.5 / 3, 0]),
        (1, 2, 5.0, 0.9, [1, 0.9, 5 * (9 / 28) / (1 + 4 * 9 / 28), 0]),
    ],
)
def test_by_hand(high, low, shift, boundary, expected):
    sigmas = few_step_sigmas(high, low, shift, boundary)
    assert torch.allclose(sigmas, torch.tensor([float(sigma) for sigma in expected]), atol=1e-6)


@given(st.integers(1, 30), st.integers(1, 30), st.floats(0.5, 20.0), st.floats(0.05, 0.98))
def test_each_expert_gets_its_steps_and_noise_only_falls(high, low, shift, boundary):
    sigmas = few_step_sigmas(high, low, shift, boundary)
    assert sigmas.shape == (high + low + 1,) and sigmas[0] == 1 and sigmas[-1] == 0
    assert num_high_noise_steps(sigmas, boundary) == high
    require_sigmas(sigmas)


def test_parts_are_even_in_unshifted_time():
    sigmas = few_step_sigmas(4, 4, 5.0, 0.9).double()
    times = sigmas / (5 - 4 * sigmas)
    assert torch.allclose(times[:5].diff(), torch.full((4,), -(1 - 9 / 14) / 4, dtype=torch.float64), atol=1e-6)
    assert torch.allclose(times[4:].diff(), torch.full((4,), -9 / 14 / 4, dtype=torch.float64), atol=1e-6)


@pytest.mark.parametrize(
    ("values", "words"),
    [((0, 2, 5.0, 0.9), "steps_high_noise is 0"), ((2, 101, 5.0, 0.9), "steps_low_noise is 101"),
     ((2, 2, 0.0, 0.9), "shift is 0.0"), ((2, 2, float("nan"), 0.9), "shift is nan"), ((2, 2, 5.0, 1.0), "boundary is 1.0")],
)  # fmt: skip
def test_senseless_values_are_refused(values, words):
    with pytest.raises(ValueError, match=words):
        few_step_sigmas(*values)
