"""How far a set of chains is from the truth, clip by clip, and whether it cheats. The measures are those of SVI Drift Report.

Of real clips no more is known than was filmed. Later clips of a chain are compared with the mean features of the filmed ones.

Shapes: N scenes, K clips, M = 11 features of a clip: ten of colour and detail, one of motion.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from svi_core.drift import ClipMeasure, DriftMeter, DriftReport

from .codec import LinearCodec
from .data import Chain
from .rollout import Scenes, coded, shown
from .world import NUM_FRAMES

OBJECT_RADIUS = 6  # pixels around the object's true centre that count as the object
MOTION_RANGE = (0.8, 1.25)  # of the truth's motion; outside it a set of videos is INVALID


@dataclass(frozen=True)
class Reference:
    """The truth as the codec shows it, measured.

    Attributes:
        features: [N, K, M]; after the known clips their mean.
        known: [N, known clips, M].
        scale: [M], standard deviation of each feature over all known clips: the unit of distances.
        motion: median motion of true clips.
        reasons: of each scene, what would make a video invalid that the truth does too (a thing may go left and back again).
    """

    features: np.ndarray
    known: np.ndarray
    scale: np.ndarray
    motion: float
    reasons: tuple[frozenset[str], ...]


@dataclass(frozen=True)
class Scores:
    """What was measured on N chains of K clips.

    Attributes:
        verdict: "valid", or INVALID with reasons; of an invalid set no other number means anything.
        distance: paired distance of features from the truth, mean over scenes, for each clip.
        drift: mean distance of clips 2..K minus that of clip 1: the primary figure.
        frechet: Frechet distance between features of generated and true clips, for each clip; of clips that nobody knows
            from all known ones.
        psnr: of frames against the true ones in dB, for each known clip.
        object_error: mean absolute error around the object's true centre, in [0, 1], for each clip; empty for real clips.
        seam: median change at a seam, in multiples of the change around it; None for one clip.
        motion_ratio: median motion over the truth's.
    """

    verdict: str
    distance: tuple[float, ...]
    drift: float
    frechet: tuple[float, ...]
    psnr: tuple[float, ...]
    object_error: tuple[float, ...]
    seam: float | None
    motion_ratio: float


def make_reference(codec: LinearCodec, chain: Chain, scenes: Scenes) -> Reference:
    """Measure the truth of `scenes`, encoded and decoded."""
    reports = _reports(chain, scenes, scenes.num_known, true_chains(codec, scenes))
    known = np.array([[_features(clip) for clip in report.clips] for report in reports])
    scale = known.reshape(-1, known.shape[-1]).std(axis=0)
    reasons = tuple(frozenset(report.reasons) for report in reports)
    unknown = known.mean(axis=1, keepdims=True).repeat(scenes.num_clips - scenes.num_known, axis=1)
    return Reference(np.concatenate([known, unknown], axis=1), known, scale, float(np.median(known[..., -1])), reasons)


def true_chains(codec: LinearCodec, scenes: Scenes) -> Iterable[np.ndarray]:
    """Yield the known clips of all scenes [N, 21, H, W, 3], encoded and decoded."""
    for clip in range(scenes.num_known):
        yield coded(codec, scenes, clip)


def score(chain: Chain, scenes: Scenes, reference: Reference, clips: Iterable[np.ndarray]) -> Scores:
    """Measure chains whose `clips` [N, 21, H, W, 3] come one by one."""
    psnr, object_error = [], []

    def watched() -> Iterable[np.ndarray]:
        for clip, frames in enumerate(clips):
            if clip < scenes.num_known:
                new = shown(chain, clip)
                difference = (frames[:, new].astype(np.float32) - scenes.true_clip(clip)[:, new].astype(np.float32)) / 255
                psnr.append(float(-10 * np.log10((difference**2).mean() + 1e-10)))
                if scenes.truth[0].x is not None:
                    object_error.append(_object_error(difference, scenes, clip, new))
            yield frames

    reports = _reports(chain, scenes, scenes.num_clips, watched())
    features = np.array([[_features(clip) for clip in report.clips] for report in reports])
    apart = (features - reference.features) / reference.scale
    distance = np.sqrt((apart**2).mean(axis=2)).mean(axis=0)
    everything = reference.known.reshape(-1, reference.known.shape[-1])
    theirs = [reference.known[:, clip] if clip < scenes.num_known else everything for clip in range(scenes.num_clips)]
    frechet = [
        frechet_distance(features[:, clip] / reference.scale, own / reference.scale) for clip, own in enumerate(theirs)
    ]
    seams = [clip.seam for report in reports for clip in report.clips if clip.seam is not None]
    seam = float(np.median(seams)) if seams else None
    motion_ratio = float(np.median(features[..., -1])) / reference.motion
    drift = float(distance[1:].mean() - distance[0]) if len(distance) > 1 else 0.0
    verdict = _verdict(reports, reference, motion_ratio)
    as_tuple = [tuple(float(value) for value in values) for values in (distance, frechet, psnr, object_error)]
    return Scores(verdict, as_tuple[0], drift, *as_tuple[1:], seam, motion_ratio)


def frechet_distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the Frechet distance between Gaussians fitted to features [N, M] and [N', M]."""
    first, second = np.cov(ours, rowvar=False), np.cov(theirs, rowvar=False)
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    mixed = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(min=0)).sum()
    apart = ((ours.mean(axis=0) - theirs.mean(axis=0)) ** 2).sum()
    return float(apart + np.trace(first) + np.trace(second) - 2 * mixed)


def _reports(chain: Chain, scenes: Scenes, num_clips: int, clips: Iterable[np.ndarray]) -> list[DriftReport]:
    num_frames = [len(range(NUM_FRAMES)[shown(chain, clip)]) for clip in range(num_clips)]
    meters = [DriftMeter(num_frames) for _ in scenes.seeds]
    for clip, frames in enumerate(clips):
        for meter, own in zip(meters, frames, strict=True):
            meter.add(own[shown(chain, clip)])
    return [meter.report() for meter in meters]


def _features(clip: ClipMeasure) -> tuple[float, ...]:
    colour = (clip.brightness, clip.contrast, clip.saturation, clip.red, clip.blue)
    return (*colour, clip.sharpness, *clip.spectrum, clip.motion)


def _object_error(difference: np.ndarray, scenes: Scenes, clip: int, new: slice) -> float:
    """Return the mean absolute `difference` [N, T, H, W, 3] within reach of each object's true centre."""
    rows, columns = np.mgrid[: difference.shape[2], : difference.shape[3]]
    errors = []
    for own, truth in zip(difference, scenes.truth, strict=True):
        x, y = truth.x[clip][new][:, None, None], truth.y[clip][new][:, None, None]
        near = (columns - x) ** 2 + (rows - y) ** 2 <= OBJECT_RADIUS**2
        errors.append(np.abs(own[near]).mean())
    return float(np.mean(errors))


def _verdict(reports: list[DriftReport], reference: Reference, motion_ratio: float) -> str:
    """Say why the chains cannot be compared, if they cannot: one in ten cheats, or they do not move as the truth does."""
    cheats = [set(report.reasons) - true for report, true in zip(reports, reference.reasons, strict=True)]
    num_cheats, found = sum(map(bool, cheats)), []
    if num_cheats * 10 > len(reports):
        found.append(f"{num_cheats} of {len(reports)} chains are {' or '.join(sorted(set().union(*cheats)))}")
    if not MOTION_RANGE[0] <= motion_ratio <= MOTION_RANGE[1]:
        found.append(f"motion is {motion_ratio:.2f} of the truth's")
    return f"INVALID: {'; '.join(found)}" if found else "valid"
