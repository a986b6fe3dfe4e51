"""Measure before training whether error recycling applies to a model: chain it, and compare what it hands over with the truth.

The model enters as callables, so that any sampler and any layout can be diagnosed. `training.method.verdict` judges the result.
Shapes: N scenes, K clips, n known slots.
Source: SVI (arXiv:2510.09212), Sec. 4.1 (errors of clean inputs against errors of chains), Eq. 4 (one-step errors).
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from svi_core.flow.flow_matching import make_flow_sample
from svi_core.look.fade import ClipLook, fade
from svi_core.recycling.config import ErrorRecyclingConfig
from svi_core.recycling.error_bank import ErrorBank
from svi_core.recycling.error_recycling import draw_injection, residual, store
from training.method.banks import error_to_signal
from training.method.verdict import Estimate, Measures

SMALL_ERROR = 0.2  # RMS over that of the latents: small enough for a linear answer, far above rounding and 8 bits
NUM_DRAWS = 400  # of injected errors: their size to about 2 %
HandOver = Callable[[Tensor], Tensor]  # known slots [N, C, n, h, w] -> those that the clip hands over, always from one noise
Predict = Callable[
    [Sequence[int], Tensor, Tensor], Tensor
]  # (scenes [b], noisy latents [b, C, F, h, w], sigma [b]) -> velocity


def take_measures(
    *,
    chain: Sequence[ClipLook],
    truth: ClipLook,
    gains: Tensor,
    errors: Tensor,
    bank: ErrorBank,
    injected: float | None,
    signal: float,
    has_anchor: bool,
) -> Measures:
    """Put the parts of a diagnosis together.

    Args:
        chain: looks [N] of clips 1 .. K.
        truth: looks [N] of true clips of the same scenes, in the same order.
        gains: [N], see :func:`gain`.
        errors: [N, C, n, h, w] that clip 1 hands over, against the same clip's truth.
        bank: filled by :func:`fill_bank`.
        injected: see :func:`injected_rms`.
        signal: RMS of the true latents.
        has_anchor: the layout shows each clip an anchor.

    Raises:
        ValueError: there are fewer than two scenes.
    """
    fades = [fade(look, truth) for look in chain]
    own = fade(truth, truth)
    contrast, spectrum, motion, saturation = (
        tuple(_ratio(getattr(clip, name), getattr(own, name)) for clip in fades)
        for name in ("contrast", "spectrum", "motion", "saturation")
    )
    cells = bank.statistics()
    ratios = error_to_signal(cells, signal)
    return Measures(
        num_scenes=len(gains),
        gain=_mean(gains),
        contrast=contrast,
        spectrum=spectrum,
        motion=motion,
        saturation=saturation,
        colour=tuple(_mean(clip.colour) for clip in fades),
        error_to_signal=tuple((cell.sigma, ratio) for cell, ratio in zip(cells, ratios, strict=True) if ratio is not None),
        common=common_share(errors),
        handed_over=rms(errors) / signal,
        injected=None if injected is None else injected / signal,
        has_anchor=has_anchor,
    )


def gain(hand_over: HandOver, known: Tensor, errors: Tensor, signal: float, num_bands: int = 1) -> Tensor:
    """Return, for each scene, the share [N] of an error in the known slots that arrives in those that the clip hands over.

    1: the error is copied. 0: it is restored, or lost in others. An error may move with the camera: the shift counts at which
    most of it arrives. Where parts of a picture move apart, that is less than all of it.

    Args:
        hand_over: makes a clip of each scene.
        known: [N, C, n, h, w], true ones.
        errors: [N, C, n, h, w], such as a chain hands over; each scene gets that of another one, made small.
        signal: RMS of the true latents.
        num_bands: of equal height, from top to bottom, that may move apart; each has a shift of its own.

    Raises:
        ValueError: there is one scene only.
    """
    _require_scenes(len(known))
    small = errors.roll(1, 0)
    size = small.square().flatten(1).mean(1).sqrt().clamp(min=torch.finfo(small.dtype).tiny)
    small = small * (SMALL_ERROR * signal / size).view(-1, *[1] * (small.ndim - 1))
    arrived = hand_over(known + small) - hand_over(known)
    bands = zip(arrived.chunk(num_bands, dim=-2), small.chunk(num_bands, dim=-2), strict=True)
    return sum(_at_best_shift(*band) for band in bands) / small.square().flatten(1).sum(1)


def _at_best_shift(arrived: Tensor, error: Tensor) -> Tensor:
    """Return the product [N] of what `arrived` with the `error` at the shift on the torus where it is largest."""
    spectrum = (torch.fft.rfft2(arrived) * torch.fft.rfft2(error).conj()).sum((1, 2))
    return torch.fft.irfft2(spectrum, s=error.shape[-2:]).flatten(1).amax(1)


def common_share(errors: Tensor) -> float:
    """Return the share of the squared `errors` [N, ...] that all N have in common: 0 for unrelated ones, 1 for equal ones.

    The square of their mean also holds 1 / N of the unrelated part; this is subtracted, so the result can be below 0.

    Raises:
        ValueError: there is one scene only.
    """
    _require_scenes(len(errors))
    mean_square, square_mean, num = float(errors.square().mean()), float(errors.mean(0).square().mean()), len(errors)
    return (num * square_mean - mean_square) / ((num - 1) * mean_square) if mean_square > 0 else 0.0


@torch.no_grad()
def fill_bank(
    bank: ErrorBank,
    predict: Predict,
    latents: Tensor,
    levels: Sequence[float],
    recycling: ErrorRecyclingConfig,
    random: torch.Generator,
    per_level: int = 2,
) -> None:
    """Store the errors that the model makes in one step from clean inputs, as training does.

    Args:
        bank: see `svi_core.recycling.error_recycling.make_bank`.
        predict: the model with the true conditions of the scenes.
        latents: [N, C, F, h, w] of the scenes.
        levels: noise levels to measure at.
        recycling: the settings of the bank.
        random: draws noise.
        per_level: errors for each level; the scenes take turns.
    """
    for number, level in enumerate(levels):
        scenes = [(number * per_level + index) % len(latents) for index in range(per_level)]
        sigma = torch.full((per_level,), level)
        sample = make_flow_sample(latents[scenes], torch.randn(latents[scenes].shape, generator=random), sigma)
        for error in residual(predict(scenes, sample.noisy_latent, sigma), sample.velocity):
            store(bank, error, level, recycling, random)


def injected_rms(
    bank: ErrorBank, levels: Sequence[float], recycling: ErrorRecyclingConfig, error_slots: range, random: torch.Generator
) -> float | None:
    """Return the RMS of the errors that `bank` would put into the known slots during training, or None if it puts none.

    Args:
        bank: filled by :func:`fill_bank`, or that of another run.
        levels: noise levels of the training examples.
        recycling: the settings of training.
        error_slots: see `draw_injection`.
        random: draws as in training.
    """
    draws = (
        draw_injection(bank, levels[number % len(levels)], recycling, random, error_slots).image_error
        for number in range(NUM_DRAWS)
    )
    sizes = [rms(error) ** 2 for error in draws if error is not None]  # one by one: all of them take gigabytes
    return math.sqrt(sum(sizes) / len(sizes)) if sizes else None


def rms(values: Tensor) -> float:
    """Return the root mean square of `values`."""
    return float(values.double().square().mean().sqrt())


def _ratio(shares: Tensor, own: Tensor) -> Estimate:
    """Return the mean of `shares` [N], and its error where the true clips of the same scenes have the shares `own` [N].

    A scene of much contrast has it in its chain too, so its difference from the mean ratio counts, not its own size.
    """
    value = float(shares.mean())
    return Estimate(value, float((shares - value * own).std()) / math.sqrt(len(shares)))


def _mean(values: Tensor) -> Estimate:
    return Estimate(float(values.mean()), float(values.std()) / math.sqrt(len(values)))


def _require_scenes(count: int) -> None:
    if count < 2:
        raise ValueError(f"there is {count} scene: a diagnosis compares scenes with each other and needs two or more.")
