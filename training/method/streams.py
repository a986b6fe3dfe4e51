"""Random numbers as a function of where they are used: one generator for each (seed, step, place in the step, purpose).

So nothing about randomness has to be saved: a resumed run, and a run split over several processes, draws what an
uninterrupted one would have drawn.
"""

import hashlib
import struct

import torch


def stream(seed: int, step: int, slot: int, purpose: str) -> torch.Generator:
    """Return a CPU generator of its own for `purpose` at example `slot` (over all processes) of training step `step`."""
    digest = hashlib.sha256(struct.pack("<qqq", seed, step, slot) + purpose.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
