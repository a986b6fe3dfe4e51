"""Loudness against the standard's own numbers, and against a plain recursive filter with the coefficients that it tabulates."""

import math

import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from svi_core.conditioning.loudness import head_filter, integrated_loudness, low_cut, with_loudness


def sine(decibels: float, seconds: float, rate: int, frequency: float = 997.0) -> torch.Tensor:
    time = torch.arange(round(seconds * rate), dtype=torch.float64) / rate
    return (10 ** (decibels / 20) * torch.sin(2 * math.pi * frequency * time)).float()


def test_at_48_khz_the_filters_are_those_of_the_standards_tables():
    """BS.1770-4, Tables 1 and 2."""
    head, cut = head_filter(48_000), low_cut(48_000)
    assert head.b == pytest.approx((1.53512485958697, -2.69169618940638, 1.19839281085285), abs=1e-9)
    assert head.a == pytest.approx((-1.69065929318241, 0.73248077421585), abs=1e-9)
    assert cut.b == pytest.approx((1.0, -2.0, 1.0), abs=1e-12)
    assert cut.a == pytest.approx((-1.99004745483398, 0.99007225036621), abs=1e-9)


@pytest.mark.parametrize("rate", [16_000, 44_100, 48_000])
def test_a_full_scale_sine_of_997_hz_in_one_channel_has_minus_3_01_lufs(rate):
    """Within the 0.1 LU that EBU Tech 3341 allows a meter; at 16 kHz the bilinear transform bends the shelf a little."""
    tolerance = 0.02 if rate > 40_000 else 0.1
    assert integrated_loudness(sine(0.0, 5.0, rate), rate) == pytest.approx(-3.01, abs=tolerance)
    assert integrated_loudness(sine(-20.0, 5.0, rate), rate) == pytest.approx(-23.01, abs=tolerance)


def test_quiet_stretches_are_gated_out():
    """As in EBU Tech 3341, case 3, in one channel: what is 10 LU below the rest does not count, silence never does."""
    loud = sine(-20.0, 20.0, 48_000)
    quiet, silence = sine(-36.0, 5.0, 48_000), torch.zeros(48_000 * 10)
    assert integrated_loudness(torch.cat([quiet, loud, quiet, silence]), 48_000) == pytest.approx(-23.01, abs=0.1)


def slow_loudness(samples: np.ndarray) -> float:
    """The standard step by step at 48 kHz, sample by sample filters and a loop over blocks."""
    stages = (
        ([1.53512485958697, -2.69169618940638, 1.19839281085285], [1.0, -1.69065929318241, 0.73248077421585]),
        ([1.0, -2.0, 1.0], [1.0, -1.99004745483398, 0.99007225036621]),
    )
    for b, a in stages:
        samples = lfilter(b, a, samples)
    powers = []
    for start in range(0, len(samples) - 19_200 + 1, 4_800):
        powers.append(np.mean(samples[start : start + 19_200] ** 2))
    lufs = [-0.691 + 10 * math.log10(power) if power > 0 else -math.inf for power in powers]
    first = [power for power, level in zip(powers, lufs, strict=True) if level > -70]
    limit = -0.691 + 10 * math.log10(np.mean(first)) - 10
    kept = [power for power, level in zip(powers, lufs, strict=True) if level > -70 and level > limit]
    return -0.691 + 10 * math.log10(np.mean(kept))


def test_equal_to_the_standard_step_by_step_on_changing_noise():
    generator = torch.Generator().manual_seed(3)
    level = torch.tensor([0.0, 0.5, 0.01, 0.2, 0.001, 0.9]).repeat_interleave(48_000)
    samples = torch.randn(6 * 48_000, generator=generator).clamp(-1, 1) * level
    assert integrated_loudness(samples, 48_000) == pytest.approx(slow_loudness(samples.double().numpy()), abs=1e-3)


def test_a_sound_is_brought_to_a_loudness_and_silence_stays_silence():
    quiet = sine(-40.0, 2.0, 16_000)
    louder = with_loudness(quiet, 16_000, -23.0)
    assert integrated_loudness(louder, 16_000) == pytest.approx(-23.0, abs=0.01)
    assert torch.allclose(louder / louder.max(), quiet / quiet.max(), atol=1e-5)
    silence = torch.zeros(16_000)
    assert with_loudness(silence, 16_000, -23.0) is silence and integrated_loudness(silence, 16_000) == -math.inf


def test_a_sound_too_short_to_measure_is_refused():
    with pytest.raises(ValueError, match="lasts 0.20 seconds"):
        integrated_loudness(torch.ones(3_200), 16_000)
