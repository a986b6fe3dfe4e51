"""One optimizer step of our trainer on one clip.

A LoRA of the published rank on all linear layers of the blocks, blocks checkpointed, AdamW, batch 1, fp8 weights; drawing and
storing errors is part of it. "% of limit" counts bf16 operations only (docs/METHOD.md, 11.2).
"""

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

Memory = dict[str, Any]  # settings of training.settings.sections.MemoryConfig
ROWS: dict[str, dict[str, Memory]] = {
    "training": {"plain": {}, "attention kept": {"keep_attention": True}, "compiled": {"compile": True}},
    "more training": {
        "attention kept, cuDNN": {"keep_attention": True, "attention": "cudnn"},
        "block inputs on the host": {"offload_block_inputs": True},
    },
}


def measure(bench: Bench) -> None:
    """Measure the rows of this stage."""
    for row, memory in ROWS[bench.stage].items():
        bench.measure(row, partial(our_steps, bench, memory))


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


def our_steps(bench: Bench, memory: Memory) -> Measured:
    """Return the times of the trainer's own step, without the first one."""
    provide_av()
    from training.method.distributed import Group
    from training.method.erft_step import training_step
    from training.model.loading import load_backbone
    from training.run.assembly import assemble
    from training.settings.reader import config_from

    shapes, run = bench.shapes, bench.work / "training"
    table = {
        "run": str(run),
        "memory": memory,
        "lora": {"rank": shapes.lora_rank, "alpha": float(shapes.lora_rank)},
        "recycling": {"capacity": 4},
        "loop": {"steps": 1000},
    }
    file = expert_file(bench.work, shapes, bench.device)
    on_host = memory.get("swapped_blocks", 0) > 0
    backbone = load_backbone(file, attention=memory.get("attention", "auto"), device=bench.device, on_host=on_host)
    trainer = assemble(config_from(table), backbone, RandomClips(shapes), Group(), run)
    losses = []
    try:
        bench.reset_peak()
        first, *taken = bench.seconds(lambda: losses.append(training_step(trainer).loss), TRAINING_STEPS, warm_up=False)
    finally:
        trainer.banks.close()
    values = {"s": min(taken), "most": max(taken), "first step, s": first, "peak GiB": bench.peak_gib()}
    if limit := shapes.training_limit(bench.device_name, memory.get("keep_attention", False)):
        values["% of limit"] = 100 * limit / values["s"]
    return Measured(values, [torch.tensor(losses), *(parameter.detach() for parameter in trainer.parameters())])
