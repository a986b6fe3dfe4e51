"""The order in which examples are learned from: a function of (seed, step, slot), with no state to save.

A run that resumes at step n, and any number of processes, therefore see what one uninterrupted process would have seen.
Examples of one size form a bucket. All slots of a step come from one bucket, so that they can be stacked; buckets take turns
in proportion to their sizes; within a bucket every example comes once before any comes twice.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from svi_core.files.fingerprint import fingerprint


class ExampleOrder:
    """The order over buckets of examples.

    Attributes:
        counts: examples of each bucket, none of them 0.
        slots_per_step: examples of one step over all processes: processes x batch x accumulation.
    """

    def __init__(self, counts: Sequence[int], slots_per_step: int = 1):
        if not counts or min(counts) < 1 or slots_per_step < 1:
            raise ValueError(f"there are {list(counts)} examples for {slots_per_step} slots a step: both must be 1 or more.")
        self.counts = tuple(counts)
        self.slots_per_step = slots_per_step

    def place(self, seed: int, step: int, slot: int) -> tuple[int, int]:
        """Return (bucket, number within it) of what `slot` learns from at `step`, both counted from 0.

        Step 0 takes the first bucket, so that the largest size shows at once whether it fits into memory.
        """
        if step < 0 or not 0 <= slot < self.slots_per_step:
            raise ValueError(f"step {step}, slot {slot}: steps count from 0, and there are {self.slots_per_step} slots a step.")
        turn, within = divmod(step, sum(self.counts))
        buckets, earlier = _turn(self.counts, seed, turn)
        bucket = int(buckets[within])
        count = self.counts[bucket]
        visit = (turn * count + int(earlier[within])) * self.slots_per_step + slot
        passed, position = divmod(visit, count)
        return bucket, int(_shuffled(count, seed, f"bucket {bucket}", passed)[position])


@lru_cache(maxsize=4)
def _turn(counts: tuple[int, ...], seed: int, turn: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the bucket of each step of a turn (in which bucket b has counts[b] steps) and its earlier steps in the turn."""
    buckets = np.repeat(np.arange(len(counts)), counts)[_shuffled(sum(counts), seed, "turn", turn)]
    if turn == 0:
        first = int(np.argmax(buckets == 0))
        buckets[[0, first]] = buckets[[first, 0]]
    earlier = np.zeros(len(buckets), np.int64)
    for bucket in range(len(counts)):
        mine = buckets == bucket
        earlier[mine] = np.arange(mine.sum())
    return buckets, earlier


@lru_cache(maxsize=16)
def _shuffled(count: int, seed: int, purpose: str, number: int) -> np.ndarray:
    """Return a permutation of `count` numbers."""
    generator = torch.Generator().manual_seed(int(fingerprint("svi order", seed, purpose, number)[:15], 16))
    return torch.randperm(count, generator=generator).numpy()
