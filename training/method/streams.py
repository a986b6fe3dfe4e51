"""One random generator for each (seed, step, place in the step, purpose).

So checkpoints hold no random state: a resumed run, and a run over several processes, draws the same numbers as an uninterrupted
run in one process.
"""

import hashlib
import struct

import torch


def stream(seed: int, step: int, slot: int, purpose: str) -> torch.Generator:
    """Return the CPU generator for `purpose` of example `slot` (over all processes) in training step `step`."""
    digest = hashlib.sha256(struct.pack("<qqq", seed, step, slot) + purpose.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
