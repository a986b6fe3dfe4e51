import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from svi_core.flow.flow_matching import (
    EXPERT_RANGES,
    ExpertRange,
    TimestepWeighting,
    late_start_warning,
    make_flow_sample,
    num_high_noise_steps,
    require_sigmas,
    shifted_sigmas,
    timestep_weights,
    training_sigmas,
)


def test_authors_split_is_21_of_50_steps():
    """docs/METHOD.md, 4.3: 50 steps at shift 5, expert boundary 0.875: the high-noise expert makes 21 steps."""
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


def test_sigmas_that_begin_below_pure_noise_are_told():
    assert late_start_warning(shifted_sigmas(20)) == late_start_warning(torch.tensor([0.9995, 0.5, 0.0])) == ""
    assert "sigmas begin at 0.833, but every clip begins as pure noise" in late_start_warning(shifted_sigmas(40)[20:])


def test_inference_grid_of_50_steps_at_shift_5():
    """docs/METHOD.md, 9.7."""
    timesteps = 1000 * shifted_sigmas(50, 5.0)
    assert [round(t, 1) for t in timesteps[:3].tolist()] == [1000.0, 995.9, 991.7]
    assert [round(t, 1) for t in timesteps[-5:].tolist()] == [303.0, 241.9, 172.4, 92.6, 0.0]
    require_sigmas(timesteps / 1000)


def test_sigmas_without_shift_are_even():
    assert shifted_sigmas(4, 1.0).tolist() == [1.0, 0.75, 0.5, 0.25, 0.0]


@pytest.mark.parametrize("num_steps, shift", [(0, 5.0), (-3, 5.0), (10, 0.0), (10, -1.0), (10, math.nan), (10, math.inf)])
def test_a_senseless_schedule_is_refused(num_steps, shift):
    with pytest.raises(ValueError, match="num_steps is"):
        shifted_sigmas(num_steps, shift)


def test_training_sigmas():
    """docs/METHOD.md, 9.4: sigma = 5s / (1 + 4s), s = 1 - id / 1000: median 0.833, 35.8 % of the ids at 0.9 or above."""
    sigmas = training_sigmas()
    assert sigmas.shape == (1000,) and sigmas[0] == 1.0
    for index in (1, 250, 999):
        s = 1 - index / 1000
        assert float(sigmas[index]) == pytest.approx(5 * s / (1 + 4 * s), abs=1e-7)
    assert float(sigmas[500]) == pytest.approx(0.8333, abs=1e-4)
    assert int((sigmas >= 0.9).sum()) == 358


@pytest.mark.parametrize(
    "timestep, weight", [(1000, 0.0), (900, 0.63), (833, 1.02), (700, 1.67), (500, 2.08), (300, 1.67), (100, 0.64), (5, 0.03)]
)
def test_bell_weights(timestep, weight):
    """docs/METHOD.md, 9.4, to the two decimals given there (833 lies between two ids)."""
    sigmas = training_sigmas()
    nearest = int((1000 * sigmas - timestep).abs().argmin())
    assert float(timestep_weights(sigmas)[nearest]) == pytest.approx(weight, abs=0.011)


@pytest.mark.parametrize("weighting", TimestepWeighting)
def test_weights_have_mean_1(weighting):
    weights = timestep_weights(training_sigmas(), weighting)
    assert float(weights.double().mean()) == pytest.approx(1.0, abs=1e-6) and weights.min() >= 0


def test_uniform_weights_are_1_and_unknown_ones_refused():
    assert set(timestep_weights(training_sigmas(), "uniform").tolist()) == {1.0}
    with pytest.raises(ValueError, match="cosine"):
        timestep_weights(training_sigmas(), "cosine")
    with pytest.raises(ValueError, match="whole table"):
        timestep_weights(torch.tensor([0.5]))


def test_the_two_experts_share_out_the_ids_at_sigma_0_9():
    """docs/METHOD.md, 9.9: ids [0, 358) and [358, 1000)."""
    high, low = EXPERT_RANGES["high"], EXPERT_RANGES["low"]
    assert [*range(high.first_id, high.end_id), *range(low.first_id, low.end_id)] == list(range(1000))
    assert training_sigmas()[high.end_id - 1] >= 0.9 > training_sigmas()[low.first_id]


def test_drawn_ids_are_uniform_over_the_range():
    generator = torch.Generator().manual_seed(1)
    drawn = torch.tensor([ExpertRange(10, 14).draw_id(generator) for _ in range(4000)])
    counts = torch.bincount(drawn, minlength=14)
    assert counts[:10].sum() == 0 and len(counts) == 14
    assert all(abs(int(count) - 1000) < 130 for count in counts[10:])  # 130 is 4.7 standard deviations


@pytest.mark.parametrize("first, end", [(-1, 5), (5, 5), (6, 5), (0, 1001)])
def test_a_senseless_range_is_refused(first, end):
    with pytest.raises(ValueError, match="timestep ids are"):
        ExpertRange(first, end)


SIGMAS = st.floats(0.0, 1.0)


@given(sigma=SIGMAS, seed=st.integers(0, 2**32))
def test_one_step_along_the_velocity_reaches_either_end(sigma, seed):
    generator = torch.Generator().manual_seed(seed)
    latent, noise = (torch.randn(2, 3, 2, 2, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    sample = make_flow_sample(latent, noise, sigma)
    assert torch.equal(sample.velocity, noise - latent) and sample.sigma == sigma
    assert torch.allclose(sample.noisy_latent - sigma * sample.velocity, latent, atol=1e-12)
    assert torch.allclose(sample.noisy_latent + (1 - sigma) * sample.velocity, noise, atol=1e-12)


def test_the_ends_are_exact():
    latent, noise = torch.randn(2, 16, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(make_flow_sample(latent, noise, 0.0).noisy_latent, latent)
    assert torch.equal(make_flow_sample(latent, noise, 1.0).noisy_latent, noise)


def test_each_example_of_a_batch_has_its_own_sigma():
    latent, noise = torch.randn(2, 3, 16, 2, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    sigma = torch.tensor([0.1, 0.5, 1.0], dtype=torch.float64)
    together = make_flow_sample(latent, noise, sigma)
    for index, level in enumerate(sigma.tolist()):
        alone = make_flow_sample(latent[index], noise[index], level)
        assert torch.equal(together.noisy_latent[index], alone.noisy_latent)
    assert torch.allclose(together.noisy_latent - sigma.view(3, 1, 1, 1, 1) * together.velocity, latent, atol=1e-12)
    with pytest.raises(ValueError, match="sigma has shape"):
        make_flow_sample(latent, noise, torch.tensor([0.5, 0.5]))
