"""The order of training examples: a pure function of (seed, step, slot), with no state to save.

So a resumed run, and a run over several processes, sees the same examples as an uninterrupted run in one process. Examples of
one size form a bucket. All slots of a step come from one bucket, so that they can be stacked. Buckets take turns in proportion
to their sizes. Within a bucket, every example comes once before any comes twice.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch

from svi_core.files.fingerprint import fingerprint


class ExampleOrder:
    """The order over buckets of examples.

    Attributes:
        counts: number of examples of each bucket, none of them 0.
        slots_per_step: examples of one step over all processes.
    """

    def __init__(self, counts: Sequence[int], slots_per_step: int = 1):
        if not counts or min(counts) < 1 or slots_per_step < 1:
            raise ValueError(f"there are {list(counts)} examples for {slots_per_step} slots a step: both must be 1 or more.")
        self.counts = tuple(counts)
        self.slots_per_step = slots_per_step

    def place(self, seed: int, step: int, slot: int) -> tuple[int, int]:
        """Return (bucket, number within the bucket) of the example of `slot` in `step`, both counted from 0.

        Step 0 takes the first bucket, which has the largest size, so that a lack of memory shows at once.
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
    """Return the bucket of each step of a turn, and that bucket's number of earlier steps in the turn.

    In a turn, bucket b has counts[b] steps.
    """
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
    """Return a permutation of 0 .. `count` - 1, a pure function of the arguments."""
    generator = torch.Generator().manual_seed(int(fingerprint("svi order", seed, purpose, number)[:15], 16))
    return torch.randperm(count, generator=generator).numpy()
