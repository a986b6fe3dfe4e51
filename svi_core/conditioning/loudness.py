"""Measure the loudness of a sound and normalise it.

Source: ITU-R BS.1770-4, https://www.itu.int/rec/R-REC-BS.1770 (K-weighting, gating). The standard tabulates its
filters for 48 kHz; here they are made for any rate from the analogue prototypes behind that table (De Man, 2014), which give
its coefficients at 48 kHz.
"""

import math
from dataclasses import dataclass

import torch
from torch.nn.functional import avg_pool1d

BLOCK_SECONDS = 0.4
_BLOCKS_OVERLAP = 4  # a block begins every 0.1 s
_ABSOLUTE_GATE = -70.0  # LUFS
_RELATIVE_GATE = -10.0  # LU below the loudness of what passes the absolute gate
_OFFSET = -0.691  # dB; a 997 Hz sine of full scale then has -3.01 LUFS
_TABLE_RATE = 48_000
_DECAY_SECONDS = 0.5  # after which the filters' response has died away


@dataclass(frozen=True)
class Biquad:
    """A filter of second order: y[n] = b0 x[n] + b1 x[n-1] + b2 x[n-2] - a1 y[n-1] - a2 y[n-2]."""

    b: tuple[float, float, float]
    a: tuple[float, float]

    def response(self, z: torch.Tensor) -> torch.Tensor:
        """Return the transfer function at `z`, complex numbers on the unit circle."""
        numerator = self.b[0] + self.b[1] / z + self.b[2] / z**2
        return numerator / (1.0 + self.a[0] / z + self.a[1] / z**2)


def head_filter(sample_rate: int) -> Biquad:
    """Return the first stage of K-weighting: a shelf that raises high frequencies by 4 dB, as a head does."""
    quality, high = 0.7071752369554196, 10 ** (3.999843853973347 / 20)
    middle = high**0.4996667741545416
    k = math.tan(math.pi * 1681.974450955533 / sample_rate)
    norm = 1 + k / quality + k * k
    b0, b1, b2 = high + middle * k / quality + k * k, 2 * (k * k - high), high - middle * k / quality + k * k
    return Biquad((b0 / norm, b1 / norm, b2 / norm), (2 * (k * k - 1) / norm, (1 - k / quality + k * k) / norm))


def low_cut(sample_rate: int) -> Biquad:
    """Return the second stage of K-weighting: a high-pass at 38 Hz, with the gain that it has at 48 kHz."""
    quality, frequency = 0.5003270373238773, 38.13547087602444

    def terms(rate: int) -> tuple[float, float]:
        k = math.tan(math.pi * frequency / rate)
        return k, 1 + k / quality + k * k

    k, norm = terms(sample_rate)
    gain = terms(_TABLE_RATE)[1] / norm
    return Biquad((gain, -2 * gain, gain), (2 * (k * k - 1) / norm, (1 - k / quality + k * k) / norm))


def integrated_loudness(samples: torch.Tensor, sample_rate: int) -> float:
    """Return the loudness in LUFS of one channel `samples` [n] in [-1, 1]; minus infinity for silence.

    Raises:
        ValueError: a sound shorter than one block of 0.4 s.
    """
    block = round(BLOCK_SECONDS * sample_rate)
    if len(samples) < block:
        raise ValueError(
            f"the sound lasts {len(samples) / sample_rate:.2f} seconds, but its loudness is measured over {BLOCK_SECONDS} s: "
            "use a longer one."
        )
    power = _k_weighted(samples, sample_rate).square()
    blocks = avg_pool1d(power[None], block, block // _BLOCKS_OVERLAP)[0].double()
    loud = blocks[_lufs(blocks) > _ABSOLUTE_GATE]
    if not len(loud):
        return -math.inf
    loud = loud[_lufs(loud) > _lufs(loud.mean()) + _RELATIVE_GATE]
    return float(_lufs(loud.mean()))


def with_loudness(samples: torch.Tensor, sample_rate: int, target: float) -> torch.Tensor:
    """Return `samples` [n] scaled to a loudness of `target` LUFS; silence stays silence. Raises as integrated_loudness."""
    loudness = integrated_loudness(samples, sample_rate)
    return samples if abs(loudness) > 100.0 else samples * 10 ** ((target - loudness) / 20)


def _k_weighted(samples: torch.Tensor, sample_rate: int) -> torch.Tensor:
    """Return `samples` [n] after both stages, filtered in the frequency domain and padded for the filters' decay."""
    length = len(samples) + round(_DECAY_SECONDS * sample_rate)
    spectrum = torch.fft.rfft(samples.float(), length)
    angle = torch.arange(len(spectrum), dtype=torch.float64) * (2 * math.pi / length)
    z = torch.polar(torch.ones_like(angle), angle)
    response = head_filter(sample_rate).response(z) * low_cut(sample_rate).response(z)
    return torch.fft.irfft(spectrum * response.to(spectrum.dtype), length)[: len(samples)]


def _lufs(power: torch.Tensor) -> torch.Tensor:
    return _OFFSET + 10 * power.log10()
