"""One optimizer step on one clip: ours, and diffusers with peft: ``python -m benchmarks.gpu.training_step``.

All train a LoRA of the published rank on all linear layers of the blocks, blocks checkpointed, AdamW, batch 1. Ours includes
drawing and storing errors. "% of limit" counts bf16 operations only (docs/METHOD.md, 11.2). diffusers and peft have bf16
weights only.
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from benchmarks.gpu.comfyui import provide_av
from benchmarks.gpu.command import Bench, Row, open_bench, print_report, synchronize
from benchmarks.gpu.jobs import peak_gib
from benchmarks.gpu.shapes import TEXT_TOKENS, Shapes
from benchmarks.gpu.weights import KINDS, expert_files

if TYPE_CHECKING:
    from training.data.dataset import TrainingExample

NUM_STEPS = 3
COLUMNS = ("s", "least", "most", "% of limit", "peak GiB")
MEMORY = {
    "ours": {},
    "ours, attention kept": {"keep_attention": True},
    "ours, block inputs on the host": {"offload_block_inputs": True},
}


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing and print the table."""
    bench = open_bench("training_step", __doc__.splitlines()[0], arguments, weights=KINDS, attention=("auto", "cudnn", "flash"))
    for row, memory in MEMORY.items():
        bench.measure(row, lambda memory=memory: our_steps(bench, memory))
    if bench.chosen["weights"] == "bf16":
        bench.measure("diffusers and peft", lambda: peft_steps(bench))
    print_report(bench.report(COLUMNS, bars="s"))
    return 0


def timed_steps(bench: Bench, step: Callable[[], Any], keeps_attention: bool = False) -> Row:
    """Return the times of `step`, without the first one."""
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(bench.device)
    step()
    taken = []
    for _ in range(NUM_STEPS):
        synchronize(bench.device)
        began = time.perf_counter()
        step()
        synchronize(bench.device)
        taken.append(time.perf_counter() - began)
    row = {"s": median(taken), "least": min(taken), "most": max(taken), "peak GiB": peak_gib(bench.device)}
    limit = bench.shapes.training_limit(bench.device_name, keeps_attention)
    return row | ({"% of limit": 100 * limit / row["s"]} if limit else {})


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


def our_steps(bench: Bench, memory: dict[str, bool | int]) -> Row:
    """Return the times of the trainer's own step."""
    provide_av()
    from training.method.distributed import Group
    from training.method.erft_step import training_step
    from training.model.loading import load_backbone
    from training.run.assembly import assemble
    from training.settings.reader import config_from

    shapes, run = bench.shapes, bench.folder / "training"
    attention = bench.chosen["attention"]
    table = {
        "run": str(run),
        "memory": {"attention": attention, **memory},
        "lora": {"rank": shapes.lora_rank, "alpha": float(shapes.lora_rank)},
        "recycling": {"capacity": 4},
        "loop": {"steps": 1000},
    }
    file = expert_files(bench.folder / "weights", shapes, bench.device, bench.chosen["weights"])[0]
    on_host = memory.get("swapped_blocks", 0) > 0
    backbone = load_backbone(Path(file), attention=attention, device=bench.device, on_host=on_host)
    trainer = assemble(config_from(table), backbone, RandomClips(shapes), Group(), run)
    try:
        return timed_steps(bench, lambda: training_step(trainer), memory.get("keep_attention", False))
    finally:
        trainer.banks.close()


def peft_steps(bench: Bench) -> Row:
    """Return the times of a plain flow-matching step of diffusers' transformer with a peft LoRA.

    Raises:
        ModuleNotFoundError: diffusers or peft is not installed.
    """
    from diffusers import WanTransformer3DModel
    from peft import LoraConfig

    shapes, device = bench.shapes, bench.device
    sizes = {"num_attention_heads": shapes.num_heads, "attention_head_dim": shapes.dim // shapes.num_heads}
    sizes |= {"ffn_dim": shapes.ffn_dim, "num_layers": shapes.num_layers, "text_dim": shapes.text_dim}
    torch.manual_seed(0)
    with device:
        model = WanTransformer3DModel(in_channels=36, out_channels=16, **sizes).bfloat16().requires_grad_(False)
    targets = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]
    model.add_adapter(LoraConfig(r=shapes.lora_rank, lora_alpha=shapes.lora_rank, target_modules=targets))
    model.enable_gradient_checkpointing()
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in parameters:
        parameter.data = parameter.data.float()  # trained in fp32, as ours are
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)
    clips = RandomClips(shapes)

    def step() -> None:
        example = clips.example(0, 0, 0)
        noise = torch.randn_like(example.latent)
        noisy = 0.5 * example.latent + 0.5 * noise
        known = torch.cat([example.mask.expand(4, -1, -1, -1), example.y_latent])
        inputs = torch.cat([noisy, known])[None].to(device, torch.bfloat16)
        with torch.autocast(device.type, torch.bfloat16):
            text = example.text[None].to(device, torch.bfloat16)
            velocity = model(inputs, torch.tensor([500.0], device=device), text, return_dict=False)[0]
        loss = (velocity[0].float() - (noise - example.latent).to(device)).square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return timed_steps(bench, step)


if __name__ == "__main__":
    sys.exit(main())
