import pytest
import torch

from svi_core.flow_matching import num_high_noise_steps, require_sigmas


def test_authors_split_is_21_of_50_steps():
    """SVI_SPEC A2: 50 steps at shift 5, expert boundary 0.875: the high-noise expert makes 21 steps."""
    linear = torch.linspace(1, 0, 51)
    sigmas = 5 * linear / (1 + 4 * linear)
    assert num_high_noise_steps(sigmas, 0.875) == 21


def test_a_step_at_the_boundary_belongs_to_the_high_noise_expert():
    sigmas = torch.tensor([1.0, 0.9, 0.5, 0.0])
    assert num_high_noise_steps(sigmas, 0.9) == 2
    assert num_high_noise_steps(sigmas, 0.95) == 1
    assert num_high_noise_steps(torch.tensor([0.5, 0.0]), 0.9) == 0


@pytest.mark.parametrize("boundary", [0.0, 1.0, -1.0, float("nan")])
def test_senseless_boundary_is_refused(boundary):
    with pytest.raises(ValueError, match="boundary is"):
        num_high_noise_steps(torch.tensor([1.0, 0.0]), boundary)


def test_sigmas_must_fall_within_0_and_1():
    require_sigmas(torch.tensor([1.0, 0.5, 0.0]))
    for bad in ([1.0], [], [0.0, 1.0], [14.6, 2.0, 0.0], [1.0, float("nan"), 0.0], [1.0, 0.5, 0.5, 0.0]):
        with pytest.raises(ValueError, match="sigmas"):
            require_sigmas(torch.tensor(bad))
