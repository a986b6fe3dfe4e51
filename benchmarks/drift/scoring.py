"""How far a set of chains is from the truth, clip by clip, and whether it cheats. The measures are those of SVI Drift Report.

Of real clips only the filmed part is known: all clips of a chain are compared with its mean features.

Shapes: N scenes, K clips, M = 11 features of a clip: ten of colour and detail, one of motion.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from svi_core.look.drift import FROZEN_DIFFERENCE, ClipMeasure, DriftMeter, DriftReport

from .codec import LinearCodec
from .data import Chain
from .objects import ObjectReading, read_objects
from .rollout import Scenes, coded, shown
from .world import NUM_FRAMES

OBJECT_RADIUS = 6  # pixels around the object's true centre that count as the object
CLEARLY_APART = 2 * FROZEN_DIFFERENCE  # of two true clips that a chain must not show as one
MOTION_RANGE = (0.8, 1.25)  # of the truth's motion; outside it a set of videos is INVALID


@dataclass(frozen=True)
class Reference:
    """The measures of the truth, encoded and decoded.

    Attributes:
        features: [N, K, M] that a chain's are compared with: those of each clip where all are known, otherwise for every clip,
            the known ones included, the scene's mean over its known clips. This favours no clip.
        known: [N, known clips, M].
        scale: [M], standard deviation of each feature over all known clips: the unit of distances.
        motion: median motion of true clips.
        cheats: of each scene, what would make a video invalid but is true: an object may rest, or go there and back.
        apart: [N, 2, known clips, known clips], which true clips clearly differ from which other ones, forwards and backwards.
        last_frames: [known clips, N, H, W, 3] uint8, of true clips, encoded and decoded.
        scenery: [N, 3, H, W], the picture without the object, encoded and decoded; None for real clips.
    """

    features: np.ndarray
    known: np.ndarray
    scale: np.ndarray
    motion: float
    cheats: tuple[frozenset[str], ...]
    apart: np.ndarray
    last_frames: np.ndarray
    scenery: Tensor | None


@dataclass(frozen=True)
class Scores:
    """The measures of N chains of K clips.

    Attributes:
        verdict: "valid", or INVALID with reasons; then no other number means anything.
        distance: paired distance of features from the truth, mean over scenes, for each clip.
        drift: mean distance of clips 2..K minus that of clip 1: the primary figure.
        scene_drift: the same of each scene.
        frechet: Frechet distance between features of generated and true clips, for each clip; from all known ones where not all
            are known.
        psnr: of frames against the true ones in dB, for each known clip.
        object_error: mean absolute error around the object's true centre, in [0, 1], for each clip; empty for real clips.
        object_lost, object_place, object_colour, object_shape: of the object in each clip's last frame, see
            `objects.ObjectReading`: share of scenes, median, means; empty for real clips.
        seam: median change at a seam, in multiples of the change around it; None for one clip.
        motion_ratio: median motion over the truth's.
    """

    verdict: str
    distance: tuple[float, ...]
    drift: float
    scene_drift: tuple[float, ...]
    frechet: tuple[float, ...]
    psnr: tuple[float, ...]
    object_error: tuple[float, ...]
    object_lost: tuple[float, ...]
    object_place: tuple[float, ...]
    object_colour: tuple[float, ...]
    object_shape: tuple[float, ...]
    seam: float | None
    motion_ratio: float


def make_reference(codec: LinearCodec, chain: Chain, scenes: Scenes) -> Reference:
    """Measure the truth of `scenes`, encoded and decoded."""
    last_frames = []

    def watched() -> Iterable[np.ndarray]:
        for frames in true_chains(codec, scenes):
            last_frames.append(frames[:, -1])
            yield frames

    meters = _meters(chain, scenes, scenes.num_known, watched())
    reports = [meter.report() for meter in meters]
    known = np.array([[_features(clip) for clip in report.clips] for report in reports])
    scale = known.reshape(-1, known.shape[-1]).std(axis=0)
    features = known
    if scenes.num_known < scenes.num_clips:
        features = known.mean(axis=1, keepdims=True).repeat(scenes.num_clips, axis=1)
    cheats = tuple(frozenset(report.reasons) for report in reports)
    apart, scenery = _differences(meters) > CLEARLY_APART, None
    if scenes.truth[0].scenery is not None:
        scenery = codec.decode(codec.encode(torch.stack([own.scenery for own in scenes.truth])[:, None]))[:, 0].clamp(0, 1)
    motion = float(np.median(known[..., -1]))
    return Reference(features, known, scale, motion, cheats, apart, np.stack(last_frames), scenery)


def true_chains(codec: LinearCodec, scenes: Scenes) -> Iterable[np.ndarray]:
    """Yield the known clips of all scenes [N, 21, H, W, 3], encoded and decoded."""
    for clip in range(scenes.num_known):
        yield coded(codec, scenes, clip)


def score(chain: Chain, scenes: Scenes, reference: Reference, clips: Iterable[np.ndarray]) -> Scores:
    """Measure chains whose `clips` [N, 21, H, W, 3] come one by one."""
    psnr, object_error, readings = [], [], []

    def watched() -> Iterable[np.ndarray]:
        for clip, frames in enumerate(clips):
            if clip < scenes.num_known:
                new = shown(chain, clip)
                difference = (frames[:, new].astype(np.float32) - scenes.true_clip(clip)[:, new].astype(np.float32)) / 255
                psnr.append(float(-10 * np.log10((difference**2).mean() + 1e-10)))
                if scenes.truth[0].x is not None:
                    object_error.append(_object_error(difference, scenes, clip, new))
                    readings.append(_read_objects(frames[:, -1], scenes, reference, clip))
            yield frames

    meters = _meters(chain, scenes, scenes.num_clips, watched())
    reports = [meter.report() for meter in meters]
    features = np.array([[_features(clip) for clip in report.clips] for report in reports])
    apart = (features - reference.features) / reference.scale
    distances = np.sqrt((apart**2).mean(axis=2))
    everything = reference.known.reshape(-1, reference.known.shape[-1])
    all_known = scenes.num_known == scenes.num_clips
    theirs = [reference.known[:, clip] if all_known else everything for clip in range(scenes.num_clips)]
    frechet = [frechet_distance(features[:, clip] / reference.scale, own / reference.scale) for clip, own in enumerate(theirs)]
    seams = [clip.seam for report in reports for clip in report.clips if clip.seam is not None]
    seam = float(np.median(seams)) if seams else None
    motion_ratio = float(np.median(features[..., -1])) / reference.motion
    scene_drift = distances[:, 1:].mean(axis=1) - distances[:, 0]
    verdict = _verdict(reports, _differences(meters), reference, motion_ratio)
    objects = (
        [reading.lost.float().mean() for reading in readings],
        [reading.place.median() for reading in readings],
        [reading.colour.mean() for reading in readings],
        [reading.shape.mean() for reading in readings],
    )
    lists = (distances.mean(axis=0), scene_drift, frechet, psnr, object_error, *objects)
    distance, by_scene, *others = (tuple(float(value) for value in values) for values in lists)
    return Scores(verdict, distance, float(scene_drift.mean()), by_scene, *others, seam, motion_ratio)


def frechet_distance(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Return the Frechet distance between Gaussians fitted to features [N, M] and [N', M]."""
    first, second = np.cov(ours, rowvar=False), np.cov(theirs, rowvar=False)
    values, vectors = np.linalg.eigh(first)
    root = (vectors * np.sqrt(values.clip(min=0))) @ vectors.T
    mixed = np.sqrt(np.linalg.eigvalsh(root @ second @ root).clip(min=0)).sum()
    apart = ((ours.mean(axis=0) - theirs.mean(axis=0)) ** 2).sum()
    return float(apart + np.trace(first) + np.trace(second) - 2 * mixed)


def _meters(chain: Chain, scenes: Scenes, num_clips: int, clips: Iterable[np.ndarray]) -> list[DriftMeter]:
    num_frames = [len(range(NUM_FRAMES)[shown(chain, clip)]) for clip in range(num_clips)]
    meters = [DriftMeter(num_frames) for _ in scenes.seeds]
    for clip, frames in enumerate(clips):
        for meter, own in zip(meters, frames, strict=True):
            meter.add(own[shown(chain, clip)])
    return meters


def _differences(meters: list[DriftMeter]) -> np.ndarray:
    """Return how far the clips of each chain are from each other, [N, 2, K, K]: forwards, and one of them played backwards."""
    return np.stack([[meter.clip_differences(reverse) for reverse in (False, True)] for meter in meters])


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


def _read_objects(last: np.ndarray, scenes: Scenes, reference: Reference, clip: int) -> ObjectReading:
    """Find the object in the `last` frames [N, H, W, 3] of a clip."""
    seen, truth = (torch.from_numpy(frames).movedim(-1, 1).float() / 255 for frames in (last, reference.last_frames[clip]))
    x, y = (torch.tensor([getattr(own, name)[clip, -1] for own in scenes.truth]) for name in ("x", "y"))
    return read_objects(seen, truth, reference.scenery, x, y)


def _verdict(reports: list[DriftReport], differences: np.ndarray, reference: Reference, motion_ratio: float) -> str:
    """Return "valid", or why the chains cannot be compared: one in ten cheats, or they do not move like the truth.

    A chain repeats or reverses clips if two of them look the same that clearly differ in the truth. Unknown clips must all look
    different.
    """
    apart = np.ones_like(differences, bool)
    num_known = reference.apart.shape[-1]
    apart[..., :num_known, :num_known] = reference.apart
    alike = ((differences < FROZEN_DIFFERENCE) & apart).any(axis=(2, 3))
    cheats = []
    for report, true, (repeats, reverses) in zip(reports, reference.cheats, alike, strict=True):
        own = set(report.reasons) - true - {"repeated", "reversed"}
        cheats.append(own | ({"repeated"} if repeats else set()) | ({"reversed"} if reverses else set()))
    num_cheats, found = sum(map(bool, cheats)), []
    if num_cheats * 10 > len(reports):
        found.append(f"{num_cheats} of {len(reports)} chains are {' or '.join(sorted(set().union(*cheats)))}")
    if not MOTION_RANGE[0] <= motion_ratio <= MOTION_RANGE[1]:
        found.append(f"motion is {motion_ratio:.2f} of the truth's")
    return f"INVALID: {'; '.join(found)}" if found else "valid"
