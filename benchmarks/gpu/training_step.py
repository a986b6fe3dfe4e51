"""One optimizer step of our trainer on one clip.

A LoRA of the published rank on all linear layers of the blocks, blocks checkpointed, AdamW, batch 1, fp8 weights; drawing and
storing errors is part of it. "% of limit" counts bf16 operations only (docs/METHOD.md, 11.2).
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.gpu.bench import Bench, Measured
from benchmarks.gpu.comfyui import provide_av
from benchmarks.gpu.shapes import TEXT_TOKENS, Shapes
from benchmarks.gpu.stages import TRAINING_STEPS
from benchmarks.gpu.weights import expert_file

if TYPE_CHECKING:
    from training.data.dataset import TrainingExample

Settings = dict[str, dict[str, Any]]  # of training.settings, by section; a number of blocks may be ALL_BLOCKS
ALL_BLOCKS = "all"
KEPT = {"keep_attention": True}
ALL_ON_HOST = {"offload_block_inputs": True, "swapped_blocks": ALL_BLOCKS}
IN_LINE = "copied within the computation"  # as before there was a side stream
ROWS: dict[str, dict[str, Settings]] = {
    "training": {
        "plain": {},
        "attention kept": {"memory": KEPT},
        "attention kept, compiled": {"memory": {**KEPT, "compile": True}},
    },
    "more training": {
        "attention kept, gradients in fp8": {"memory": KEPT, "model": {"fp8_backward": True}},
        "attention kept, cuDNN": {"memory": {**KEPT, "attention": "cudnn"}},
        "block inputs on the host": {"memory": {"offload_block_inputs": True}},
        "block inputs and all weights on the host": {"memory": ALL_ON_HOST},
        f"block inputs and all weights on the host, {IN_LINE}": {"memory": ALL_ON_HOST},
        "compiled": {"memory": {"compile": True}},
    },
}


def measure(bench: Bench) -> None:
    """Measure the rows of this stage."""
    for row, settings in ROWS[bench.stage].items():
        bench.measure(row, partial(our_steps, bench, settings, copies_in_line=IN_LINE in row))


class RandomClips:
    """Normal numbers of the size of one encoded clip."""

    content_hash = "random"

    def __init__(self, shapes: Shapes):
        self.shapes = shapes

    def __len__(self) -> int:
        return 1000

    def example(self, seed: int, step: int, slot: int) -> "TrainingExample":
        """Return the clip of one step."""
        from training.data.dataset import TrainingExample  # it imports PyAV

        random = torch.Generator().manual_seed(1000 * step + slot)
        shape = self.shapes.latent_shape[1:]
        latent, y_latent = (torch.randn(shape, generator=random) for _ in range(2))
        mask = torch.zeros(1, *shape[1:])
        mask[:, 0] = 1.0
        text = torch.randn(TEXT_TOKENS, self.shapes.text_dim, generator=random)
        return TrainingExample("clip", latent, y_latent, mask, range(1, 2), text, None, {})

    def validation(self) -> list["TrainingExample"]:
        """Nothing is held out."""
        return []


def our_steps(bench: Bench, settings: Settings, copies_in_line: bool = False) -> Measured:
    """Return the times of the trainer's own step, without the first one, and the loss of the last one."""
    provide_av()
    from training.method.distributed import Group
    from training.method.erft_step import training_step
    from training.model.loading import load_backbone
    from training.run.assembly import assemble
    from training.settings.reader import config_from

    shapes, run = bench.shapes, bench.work / "training"
    memory, model = dict(settings.get("memory", {})), settings.get("model", {})
    if memory.get("swapped_blocks") == ALL_BLOCKS:
        memory["swapped_blocks"] = shapes.num_layers
    table = {
        "run": str(run),
        "memory": memory,
        "model": model,
        "lora": {"rank": shapes.lora_rank, "alpha": float(shapes.lora_rank)},
        "recycling": {"capacity": 4},
        "loop": {"steps": 1000},
    }
    file = expert_file(bench.work, shapes, bench.device)
    options = {"attention": memory.get("attention", "auto"), "on_host": memory.get("swapped_blocks", 0) > 0, **model}
    backbone = load_backbone(file, device=bench.device, **options)
    with quick_compiler(bench.device), in_line() if copies_in_line else nullcontext():
        trainer = assemble(config_from(table), backbone, RandomClips(shapes), Group(), run)
    losses = []
    try:
        bench.reset_peak()
        first, *taken = bench.seconds(lambda: losses.append(training_step(trainer).loss), TRAINING_STEPS, warm_up=False)
    finally:
        trainer.banks.close()
    values = {"s": min(taken), "most": max(taken), "first step, s": first, "peak GiB": bench.peak_gib(), "loss": losses[-1]}
    if limit := shapes.training_limit(bench.device_name, memory.get("keep_attention", False)):
        values["% of limit"] = 100 * limit / values["s"]
    return Measured(values, [torch.tensor(losses), *(parameter.detach() for parameter in trainer.parameters())])


@contextmanager
def in_line() -> Iterator[None]:
    """Let a model that is prepared within the block copy on the stream of its computation, which waits for every copy."""
    from training.model import block_memory

    beside = block_memory.SideStream

    class InLine(beside):
        """Copies on the stream that asks for them."""

        def __init__(self, device: torch.device):
            super().__init__(device)
            self._stream = None

    block_memory.SideStream = InLine
    try:
        yield
    finally:
        block_memory.SideStream = beside


@contextmanager
def quick_compiler(device: torch.device) -> Iterator[None]:
    """Without a GPU, let torch.compile run graphs as they are within the block: compiling takes longer than all else."""
    plain = torch.compile
    if device.type != "cuda":
        torch.compile = partial(plain, backend="eager")
    try:
        yield
    finally:
        torch.compile = plain
