"""Count the memory of a clip and of a training step, and name the cards that have it: ``python -m benchmarks.memory``."""

import argparse
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.chart import draw_bars
from benchmarks.gpu.shapes import SHAPES, Shapes
from benchmarks.gpu.smallest_card import CARDS
from benchmarks.loop.report import table
from benchmarks.machine import machine_facts
from benchmarks.results import Results
from dev.environment import REPOSITORY
from training.model.comfy_runtime import start_comfy

OUTPUT = REPOSITORY / ".runtime" / "benchmarks"
GIB = 2**30
GAPS, DRIVER = 1.1, 1.0  # 10 % for gaps and kernel workspace; GiB for driver and desktop
ADAM_STATES = 2


@dataclass(frozen=True)
class Need:
    """The memory on the card of one way to do a job, in bytes.

    Attributes:
        weights: frozen ones.
        trained: the LoRA and its optimizer's state.
        tensors: everything else, at its peak.
    """

    weights: int
    tensors: int
    trained: int = 0

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.tensors + self.trained

    @property
    def card(self) -> str:
        """The smallest common card in GiB that is large enough, with a margin."""
        fits = (card for card in CARDS if self.total * GAPS / GIB + DRIVER <= card)
        return f"{next(fits, f'more than {CARDS[-1]}')}"


def main(arguments: list[str] | None = None) -> int:
    """Count and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--shapes", choices=SHAPES, default="14b", help="sizes of model and clip (default: 14b)")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"folder of memory.json, .md, .png (default: {OUTPUT})")
    parser.add_argument("--fresh", action="store_true", help="count everything again")
    options = parser.parse_args(arguments)
    shapes, facts = SHAPES[options.shapes], machine_facts(start_comfy())
    results = Results(options.output / "memory.json", asdict(shapes), facts, options.fresh)
    counted = results.get("bytes", lambda: {name: asdict(need) for name, need in needs(shapes).items()})
    text = report({name: Need(**parts) for name, parts in counted.items()}, results.content["machine"])
    (options.output / "memory.md").write_text(text, encoding="utf-8")
    in_all = {name: sum(parts.values()) / GIB for name, parts in counted.items()}
    draw_bars(f"Wan {shapes.name}, {shapes.width} x {shapes.height} x {shapes.num_frames}: GiB, counted", in_all).save(
        options.output / "memory.png"
    )
    sys.stdout.write(text)
    return 0


def report(found: dict[str, Need], machine: dict[str, str]) -> str:
    """Return the table and its conditions."""
    rows = [
        (name, *(f"{part / GIB:.1f}" for part in (need.weights, need.trained, need.tensors, need.total)), need.card)
        for name, need in found.items()
    ]
    counted = table(("GiB", "weights", "LoRA and AdamW", "other tensors", "in all", "smallest card"), rows)
    return f"{counted}\n\n{table(('counted on', ''), machine.items())}\n"


def needs(shapes: Shapes) -> dict[str, Need]:
    """Return the memory of each way to do a job, weights in fp8."""
    from benchmarks.memory import models

    model = models.transformer(shapes)
    expert, block = models.weight_bytes(model), models.weight_bytes(model.blocks[0], "blocks.0.")
    decoding = models.decoding_bytes(shapes)
    working = max(models.sampling_bytes(shapes), decoding)
    plain, offloaded, kept = (models.training_bytes(shapes, *way) for way in ((False,), (True,), (False, True)))
    trained = (1 + ADAM_STATES) * plain[1]
    rest = expert - shapes.num_layers * block
    return {
        "clip, both experts stay on the card": Need(2 * expert, working),
        "clip, one expert at a time": Need(expert, working),
        "clip, weights pass through block by block": Need(rest + 2 * block, working),
        "training, attention kept (memory_141gb)": Need(expert, kept[0], trained),
        "training, all on the card (memory_80gb)": Need(expert, plain[0], trained),
        "training, block inputs on the host (memory_48gb)": Need(expert, offloaded[0], trained),
        "training, blocks too (memory_24gb)": Need(rest + 2 * block, offloaded[0], trained),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
