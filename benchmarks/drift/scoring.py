"""How chains look beside true clips, how far they are from their own truth, and whether they cheat.

Quality needs no pairs: what share of true clips' contrast, detail and motion is left, and the Frechet distance between features
of generated and of true clips of the same index. Identity is paired: the distance from the true clip of the same scene. A
faded picture is nearer to the truth than a sharp wrong one, so the two are told apart. The measures are those of SVI Drift
Report; details finer than 4 pixels, which the codec does not keep, are left out.

Shapes: N scenes, K clips, M = 8 features of a clip.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from batch.scoring.truth import frechet_distance
from svi_core.look.drift import FROZEN_DIFFERENCE, ClipMeasure, DriftMeter, DriftReport
from svi_core.video.video_file import to_uint8

from .data import Chain
from .world import NUM_SLOTS, STEP, to_parts

CLEARLY_APART = 2 * FROZEN_DIFFERENCE  # of two true clips that a chain must not show as one
CHEATING_SHARE = 0.1  # of the chains above which a set of videos is INVALID
SHARES = ("contrast", "detail", "motion")


@dataclass(frozen=True)
class Reference:
    """The measures of the truth, encoded and decoded.

    Attributes:
        features: [N, K, M].
        scale: [M], standard deviation of each feature over all clips: the unit of distances.
        shares: [3], mean contrast, detail and motion of true clips.
        cheats: of each scene, what would make a video invalid but is true.
        apart: [N, 2, K, K], which true clips clearly differ from which other ones, forwards and backwards.
    """

    features: np.ndarray
    scale: np.ndarray
    shares: np.ndarray
    cheats: tuple[frozenset[str], ...]
    apart: np.ndarray


@dataclass(frozen=True)
class Scores:
    """The measures of N chains of K clips; lists have a value for each clip.

    Attributes:
        verdict: "valid", or INVALID with reasons; then no other number means anything.
        loss: mean of `frechet` over clips 2 to K: the primary figure.
        frechet: Frechet distance (not squared) between features of generated and true clips, in standard deviations.
        contrast, detail, motion: over the mean of true clips; detail is the amplitude at 4 to 16 pixels.
        distance: paired distance of features from the truth, mean over scenes, in standard deviations.
        pixels: paired root mean square difference of the last frames from the truth, where bank and river may be elsewhere.
        seam: median change at a seam, in multiples of the change around it; None for one clip.
    """

    verdict: str
    loss: float
    frechet: tuple[float, ...]
    contrast: tuple[float, ...]
    detail: tuple[float, ...]
    motion: tuple[float, ...]
    distance: tuple[float, ...]
    pixels: tuple[float, ...]
    seam: float | None


def make_reference(chain: Chain, truth: Iterable[Tensor]) -> Reference:
    """Measure the true clips, [N, 5, 3, H, W] each, of all scenes."""
    meters = _meters(chain, list(truth))
    reports = [meter.report() for meter in meters]
    features, shares = _features(reports), _shares(reports)
    cheats = tuple(frozenset(report.reasons) for report in reports)
    scale = features.reshape(-1, features.shape[-1]).std(axis=0)
    differences = _differences(meters)
    apart = np.isfinite(differences) & (differences > CLEARLY_APART)
    return Reference(features, scale, shares.mean(axis=(0, 1)), cheats, apart)


def score(chain: Chain, reference: Reference, clips: list[Tensor], truth: list[Tensor]) -> Scores:
    """Measure chains `clips`, [N, 5, 3, H, W] in [0, 1] each, beside the `truth` of the same scenes."""
    meters = _meters(chain, clips)
    reports = [meter.report() for meter in meters]
    features, shares = _features(reports), _shares(reports).mean(axis=0) / reference.shares
    ours, theirs = features / reference.scale, reference.features / reference.scale
    frechet = [frechet_distance(ours[:, clip], theirs[:, clip]) for clip in range(len(clips))]
    distance = np.sqrt(((ours - theirs) ** 2).mean(axis=2)).mean(axis=0)
    pixels = [_apart(own[:, -1], true[:, -1]) for own, true in zip(clips, truth, strict=True)]
    seams = [clip.seam for report in reports for clip in report.clips if clip.seam is not None]
    return Scores(
        verdict=_verdict(reports, _differences(meters), reference),
        loss=float(np.mean(frechet[1:] or frechet)),
        frechet=tuple(frechet),
        **{name: tuple(shares[:, place].tolist()) for place, name in enumerate(SHARES)},
        distance=tuple(distance.tolist()),
        pixels=tuple(pixels),
        seam=float(np.median(seams)) if seams else None,
    )


def _apart(own: Tensor, true: Tensor) -> float:
    """Return the root mean square difference of frames [N, 3, H, W], each part of each scene at the shift that fits best."""
    shifts = range(0, own.shape[-1], STEP)
    squares = [
        torch.stack([(ours.roll(shift, -1) - theirs).square().mean((1, 2, 3)) for shift in shifts]).amin(0)
        for ours, theirs in zip(to_parts(own), to_parts(true), strict=True)
    ]
    return float(torch.stack(squares).mean().sqrt())


def _meters(chain: Chain, clips: list[Tensor]) -> list[DriftMeter]:
    """Return a meter for each scene, fed with the frames that are new in the video."""
    lengths = [NUM_SLOTS - (chain.overlap if clip else 0) for clip in range(len(clips))]
    meters = [DriftMeter(lengths) for _ in clips[0]]
    for frames, length in zip(clips, lengths, strict=True):
        shown = to_uint8(frames[:, -length:].movedim(2, -1))
        for meter, own in zip(meters, shown, strict=True):
            meter.add(own)
    return meters


def _features(reports: list[DriftReport]) -> np.ndarray:
    return np.array([[_features_of(clip) for clip in report.clips] for report in reports])


def _features_of(clip: ClipMeasure) -> tuple[float, ...]:
    colour = (clip.brightness, clip.contrast, clip.saturation, clip.red, clip.blue)
    return (*colour, *clip.spectrum[2:], clip.motion)


def _shares(reports: list[DriftReport]) -> np.ndarray:
    """Return contrast, detail and motion of every clip, [N, K, 3]; the spectrum's octaves are log10 of energies."""

    def of(clip: ClipMeasure) -> tuple[float, float, float]:
        return clip.contrast, sum(10.0**octave for octave in clip.spectrum[2:]) ** 0.5, clip.motion

    return np.array([[of(clip) for clip in report.clips] for report in reports])


def _differences(meters: list[DriftMeter]) -> np.ndarray:
    """Return how far the clips of each chain are from each other, [N, 2, K, K]: forwards, and one of them played backwards."""
    return np.stack([[meter.clip_differences(reverse) for reverse in (False, True)] for meter in meters])


def _verdict(reports: list[DriftReport], differences: np.ndarray, reference: Reference) -> str:
    """Return "valid", or why the chains cannot be compared: too many of them cheat.

    A chain repeats or reverses clips if two of them look the same that clearly differ in the truth. One that chooses its own
    camera never does so by chance: its river passes the bank as in the truth, and where both come back, the true clips do, too.
    """
    alike = ((differences < FROZEN_DIFFERENCE) & reference.apart).any(axis=(2, 3))
    cheats = []
    for report, true, (repeats, reverses) in zip(reports, reference.cheats, alike, strict=True):
        own = set(report.reasons) - true - {"repeated", "reversed"}
        cheats.append(own | ({"repeated"} if repeats else set()) | ({"reversed"} if reverses else set()))
    if sum(map(bool, cheats)) <= CHEATING_SHARE * len(reports):
        return "valid"
    return f"INVALID: {sum(map(bool, cheats))} of {len(reports)} chains are {' or '.join(sorted(set().union(*cheats)))}"
