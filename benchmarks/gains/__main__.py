"""Measure every gain, before and after in turn: ``python -m benchmarks.gains``."""

import argparse
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from benchmarks.chart import draw_bars
from benchmarks.gains.copies import copies_waited_for
from benchmarks.gains.host import colours_matched, colours_off, decode_bytes, decoded, drift_measured, frames_prepared
from benchmarks.gains.models import compiled_pass, vae_weights
from benchmarks.gains.training import attention_kept, fp8_gradients, fp8_share, kept_and_compiled, lora_scaled
from benchmarks.gains.video import clip_seconds
from benchmarks.loop.report import table
from benchmarks.machine import machine_facts
from benchmarks.results import Results
from dev.environment import REPOSITORY, say
from training.model.comfy_runtime import find_comfyui, start_comfy

Way = Callable[[], tuple[float, list[torch.Tensor]]]  # returns (what it took, its result)
OUTPUT = REPOSITORY / ".runtime" / "benchmarks"


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        width, height, num_frames: of a clip whose file is written.
        sampling_seconds: of a clip.
        num_slots, side: of the latent that a training step goes over.
        num_tokens, dim: of the layer with a LoRA.
        vae_dim, decoded_slots, decoded_side: of the VAE, and of the latent that it decodes.
        compiler: PyTorch's backend of that name compiles.
        turns: how often each way is measured.
    """

    width: int = 832
    height: int = 480
    num_frames: int = 81
    sampling_seconds: float = 6.0
    num_slots: int = 5
    side: int = 64
    num_tokens: int = 2048
    dim: int = 1536
    vae_dim: int = 96
    decoded_slots: int = 2
    decoded_side: int = 12
    compiler: str = "inductor"
    turns: int = 4


QUICK = Sizes(64, 64, 9, 0.5, 1, 16, 64, 64, 4, 2, 4, "eager", 2)


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gains", description="Each gain, before and after, on CPU.")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"folder of gains.json, .md, .png (default: {OUTPUT})")
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    parser.add_argument("--quick", action="store_true", help="small sizes: to see that it works, not to publish")
    parser.add_argument("--only", default="", metavar="TEXT", help="measure only the rows whose name contains it")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    start_comfy()
    sizes = QUICK if options.quick else Sizes()
    results = Results(options.output / "gains.json", asdict(sizes), machine_facts(find_comfyui()), options.fresh)
    for name, measure in ROWS.items():
        if options.only in name:
            say(f"gains: {name}")
            results.get(name, lambda measure=measure: measure(sizes))
    text = report(results)
    (options.output / "gains.md").write_text(text, encoding="utf-8")
    drawn = {name: median(found["after"]) / median(found["before"]) for name, found in results.measured.items()}
    draw_bars("After / before", drawn).save(options.output / "gains.png")
    sys.stdout.write(text)
    return 0


def in_turn(make_ways: Callable[[Sizes], tuple[Way, Way]], sizes: Sizes) -> dict[str, Any]:
    """Return the times of both ways, run in the order before, after, after, before, and how their results differ.

    The first run of each is not counted.
    """
    ways = make_ways(sizes)
    results = [way()[1] for way in ways]
    deviation = max((float((a.float() - b.float()).abs().max()) for a, b in zip(*results, strict=True)), default=0.0)
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(sizes.turns):
        for index in (0, 1) if turn % 2 == 0 else (1, 0):
            taken[index].append(ways[index]()[0])
    return {"before": taken[0], "after": taken[1], "deviation": deviation}


def report(results: Results) -> str:
    """Return the table: medians with lowest and highest, their ratio, and the deviation."""
    rows = []
    for name, found in results.measured.items():
        before, after = found["before"], found["after"]
        ratio = f"**{median(after) / median(before):.2g}**"
        deviation = found["deviation"] if isinstance(found["deviation"], str) else f"{found['deviation']:.2g}"
        rows.append((name, *(f"{median(v):.3g} ({min(v):.3g} to {max(v):.3g})" for v in (before, after)), ratio, deviation))
    facts = table(("measured on", ""), results.content["machine"].items())
    return f"{table(('', 'before', 'after', 'after / before', 'largest deviation'), rows)}\n\n{facts}\n"


ROWS: dict[str, Callable[[Sizes], dict[str, Any]]] = {
    "a clip whose file is written beside the next one's sampling, wall s": partial(in_turn, clip_seconds),
    "a training step that keeps what self-attention gave, CPU s": partial(in_turn, attention_kept),
    "a LoRA's term scaled while it is narrow, CPU ms": partial(in_turn, lora_scaled),
    "a forward pass compiled by TorchCompileModel, CPU s": partial(in_turn, compiled_pass),
    "a VAE whose weights lie channels last, decode, CPU s": partial(in_turn, vae_weights),
    "share of a LoRA left in fp8": fp8_share,
    "a training step with kept attention, compiled too, CPU s": partial(in_turn, kept_and_compiled),
    "GB that a training step waits for, with weights and block inputs on the host": copies_waited_for,
    "colours of a clip matched, CPU s": partial(in_turn, colours_matched),
    "a clip of frames made ready for the VAE, the processor's s": partial(in_turn, frames_prepared),
    "drift of a clip measured, CPU s": partial(in_turn, drift_measured),
    "a lean VAE decode, CPU s": partial(in_turn, decoded),
    "GB that decoding a clip writes": partial(decode_bytes, column="written"),
    "GB of the tensors that it makes": partial(decode_bytes, column="made"),
    "a LoRA's gradients off by products in fp8: forward only, and backward too": fp8_gradients,
    "red and blue off by rounding, in textured frames": partial(colours_off, has_texture=True),
    "red and blue off by rounding, in frames of one colour": partial(colours_off, has_texture=False),
}


if __name__ == "__main__":
    sys.exit(main())
