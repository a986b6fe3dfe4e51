"""Paired comparisons of few runs, exactly: sign-flip tests, bootstrap intervals, Holm's correction."""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np

CONFIDENCE, NUM_RESAMPLES = 0.95, 20_000


def sign_flip_p(differences: Sequence[float]) -> float:
    """Return the exact two-sided p of the mean of `differences`: the share of all sign patterns with as large a mean."""
    values = np.asarray(differences, np.float64)
    if not 1 <= len(values) <= 20:
        raise ValueError(f"{len(values)} differences: the exact test takes 1 to 20.")
    signs = np.array(list(product((1.0, -1.0), repeat=len(values))))
    means = np.abs(signs @ values)
    return float((means >= means[0] * (1 - 1e-12)).mean())


def bootstrap_interval(values: Sequence[float], groups: Sequence[object], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % interval of the mean of `values`, resampling bases, then the runs within each.

    Args:
        values: one per run.
        groups: the base of each run, since runs of one base are not independent.
        seed: of the resampling.
    """
    members = [[v for v, g in zip(values, groups, strict=True) if g == name] for name in dict.fromkeys(groups)]
    sizes = np.array([len(own) for own in members])
    padded = np.array([own + [0.0] * (sizes.max() - len(own)) for own in members])
    random = np.random.default_rng(seed)
    drawn = random.integers(len(members), size=(NUM_RESAMPLES, len(members)))
    places = (random.random((*drawn.shape, sizes.max())) * sizes[drawn][..., None]).astype(int)
    counted = np.arange(sizes.max()) < sizes[drawn][..., None]
    means = ((padded[drawn[..., None], places] * counted).sum(-1) / sizes[drawn]).mean(-1)
    tail = (1 - CONFIDENCE) / 2
    return float(np.quantile(means, tail)), float(np.quantile(means, 1 - tail))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Return Holm's adjusted p of a family of tests."""
    adjusted, highest = {}, 0.0
    ranked = sorted(p_values.items(), key=lambda item: item[1])
    for rank, (name, p) in enumerate(ranked):
        highest = max(highest, min(1.0, (len(ranked) - rank) * p))
        adjusted[name] = highest
    return adjusted
