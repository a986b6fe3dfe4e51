"""Weights and block inputs that a training step copies between host and card: how many GB the computation waits for."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from unittest.mock import patch

import torch
from torch import Tensor, nn

from benchmarks.gpu.shapes import SHAPES, Shapes
from benchmarks.memory.models import BYTES_BF16, transformer, weight_bytes
from training.model import block_memory
from training.model.block_memory import BlockMemory, KeptAttention
from training.model.host_memory import Copies, SideStream
from training.settings.sections import MemoryConfig

WIDTH = 3  # of the blocks that stand for the transformer's


class CountedStream(SideStream):
    """Counts copies by kind, and those that the computation needs at once, since no block was computed after they began.

    Attributes:
        copied, waited: copies of each kind: "weights" to the card, "inputs" to the card, "inputs to the host".
        num_computed: blocks computed so far.
    """

    def __init__(self, device: torch.device):
        super().__init__(device)
        self.copied, self.waited, self.num_computed = Counter(), Counter(), 0

    def copy(self, make: Callable[[], list[Tensor]], source: Tensor | None = None) -> Copies:
        """Copy at once, as on a CPU, and count."""
        copies, began = super().copy(make, source), self.num_computed
        kind = "weights" if copies.tensors[0].shape == (WIDTH, WIDTH) else "inputs" if source is None else "inputs to the host"
        self.copied[kind] += 1
        ready = copies.ready

        def noted() -> list[Tensor]:
            self.waited[kind] += self.num_computed == began
            return ready()

        copies.ready = noted
        return copies


def count_copies(num_blocks: int) -> CountedStream:
    """Return what the trainer's own code copies in a forward and a backward pass over `num_blocks` blocks, all on the host."""
    device = torch.device("cpu")
    blocks = [nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(num_blocks)]
    x = torch.ones(1, WIDTH, requires_grad=True)
    with patch.object(block_memory, "SideStream", CountedStream):
        memory = BlockMemory(device, x, MemoryConfig(offload_block_inputs=True, swapped_blocks=num_blocks), KeptAttention())
    counted = memory._side
    for block in blocks:
        _count(block, counted)
        memory.save(block, swap=True)
    tokens = x
    for block in blocks:
        tokens = block.forward(tokens)
    tokens.sum().backward()
    return counted


def _count(block: nn.Module, counted: CountedStream) -> None:
    forward = block.forward

    def run(x: Tensor) -> Tensor:
        counted.num_computed += 1
        return forward(x)

    block.forward = run


def copies_waited_for(sizes, shapes: Shapes = SHAPES["14b"]) -> dict[str, object]:
    """Return the GB of a step that the computation waits for: copied within it, as before, which is all; and beside it (after).

    Copies are counted on narrow blocks, their bytes are those of a scaled fp8 block and of its input in bf16.
    """
    counted = count_copies(shapes.num_layers)
    weights = weight_bytes(transformer(replace(shapes, num_layers=1)).blocks[0], "blocks.0.")
    tokens = BYTES_BF16 * shapes.num_tokens * shapes.dim
    size = {"weights": weights, "inputs": tokens, "inputs to the host": tokens}

    def gb(counts: Counter) -> float:
        return 1e-9 * sum(size[kind] * count for kind, count in counts.items())

    return {"before": [gb(counted.copied)], "after": [gb(counted.waited)], "deviation": ""}
