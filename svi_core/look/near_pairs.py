"""Find points that lie close together without comparing each with each.

The points are split at the middle of the axis along which fewest of them lie near the middle, and each half again. Points near
a cut go to both halves, so no near pair is lost.
"""

from collections.abc import Iterator

import numpy as np

_BLOCK = 2**14  # pairs that are compared at once


def near_pairs(first: np.ndarray, second: np.ndarray, reach: float) -> Iterator[np.ndarray]:
    """Yield in arrays [P, 2] all pairs (i, j), once, whose points differ by less than `reach` along every axis.

    For points that are spread out, the work grows as N log N.

    Args:
        first: [N, M].
        second: [K, M].
        reach: above 0.
    """
    groups = [(np.arange(len(first)), np.arange(len(second)))]
    while groups:
        ours, theirs = groups.pop()
        if len(ours) * len(theirs) <= _BLOCK:
            yield _near(first, second, ours, theirs, reach)
            continue
        halves = list(_halves(first, second, ours, theirs, reach))
        if sum(len(ours) * len(theirs) for ours, theirs in halves) < 0.9 * len(ours) * len(theirs):
            groups += halves
        else:  # too close together for splitting to help
            num_blocks = min(len(ours), -(-len(ours) * len(theirs) // _BLOCK))
            for block in np.array_split(ours, num_blocks):
                yield _near(first, second, block, theirs, reach)


def _near(first: np.ndarray, second: np.ndarray, ours: np.ndarray, theirs: np.ndarray, reach: float) -> np.ndarray:
    """Return those pairs of the points `ours` and `theirs` that are near each other, [P, 2], by comparing each with each."""
    near = np.ones((len(ours), len(theirs)), bool)
    for one, other in zip(first[ours].T, second[theirs].T, strict=True):
        near &= np.abs(one[:, None] - other) < reach
    rows, columns = near.nonzero()
    return np.stack([ours[rows], theirs[columns]], axis=1)


def _halves(
    first: np.ndarray, second: np.ndarray, ours: np.ndarray, theirs: np.ndarray, reach: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield two groups; each of `ours` is in one of them, together with all of `theirs` that may be near it."""
    middles = np.median(first[ours], axis=0)
    axis = int((np.abs(second[theirs] - middles) < reach).sum(axis=0).argmin())
    places, others = first[ours, axis], second[theirs, axis]
    for side in (places < middles[axis], places >= middles[axis]):
        if side.any():
            low, high = places[side].min() - reach, places[side].max() + reach
            yield ours[side], theirs[(low < others) & (others < high)]
