"""The search finds exactly what comparing each with each finds, and looks at far fewer pairs."""

import numpy as np
import pytest

from svi_core.look import near_pairs as module
from svi_core.look.near_pairs import near_pairs


def pairs_of(first, second, reach):
    return [tuple(pair) for found in near_pairs(first, second, reach) for pair in found.tolist()]


def all_pairs(first, second, reach):
    return {tuple(map(int, pair)) for pair in np.argwhere((np.abs(first[:, None] - second) < reach).all(axis=2))}


@pytest.mark.parametrize("seed", range(12))
def test_the_same_pairs_as_by_brute_force_each_once(seed):
    chance = np.random.default_rng(seed)
    first = np.round(
        chance.normal(size=(600, 3)) * chance.choice([0.01, 1.0, 1.0], 3), 2
    )  # ties, and an axis that tells little
    second = np.concatenate([first[::3] + chance.uniform(-0.1, 0.1, (200, 3)), chance.normal(size=(150, 3))])
    found = pairs_of(first, second, 0.1)
    assert len(found) == len(set(found)) and set(found) == all_pairs(first, second, 0.1) != set()


def test_points_that_are_all_equal_are_all_pairs():
    assert len(pairs_of(np.zeros((200, 2)), np.zeros((190, 2)), 1e-9)) == 38_000


def test_no_points_have_no_pairs():
    assert pairs_of(np.zeros((0, 2)), np.zeros((9, 2)), 1.0) == []


def test_the_work_grows_with_the_number_of_points(monkeypatch):
    """Each with each would be 16 times the work for 4 times the points."""
    near, work = module._near, [0]

    def counted(first, second, ours, theirs, reach):
        work[0] += len(ours) * len(theirs)
        return near(first, second, ours, theirs, reach)

    monkeypatch.setattr(module, "_near", counted)
    costs = []
    for num in (2000, 8000):
        work[0] = 0
        points = np.random.default_rng(0).normal(0, 0.05, (num, 8))
        assert {(i, j) for i, j in pairs_of(points, points, 0.0014) if i < j} == set()
        costs.append(work[0])
    assert costs[1] < 6 * costs[0] and costs[1] < 200 * 8000
