"""Fill one grid cell, then time draws and insertions: ``python -m benchmarks.bank``."""

import argparse
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import torch

from benchmarks.chart import draw_bars
from benchmarks.gpu.shapes import SHAPES
from benchmarks.loop.report import table
from benchmarks.machine import machine_facts
from benchmarks.results import Results
from dev.environment import REPOSITORY, say
from svi_core.recycling.config import ErrorRecyclingConfig
from svi_core.recycling.error_bank import ErrorBank
from svi_core.recycling.error_recycling import draw_injection, make_bank, store
from training.model.comfy_runtime import find_comfyui

OUTPUT = REPOSITORY / ".runtime" / "benchmarks"
ENTRY_SHAPE, QUICK_SHAPE = (16, 21, 60, 104), (16, 3, 8, 8)  # 81 frames at 832 x 480
CAPACITIES, QUICK_CAPACITIES = (10, 100, 500), (2, 4)
SIGMA = 0.5
NUM_STEPS = 8
BACKWARD_SECONDS, QUICK_BACKWARD_SECONDS = 3.0, 0.2  # over half of the least step is its backward pass


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bank", description="What the error bank costs a step.")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"folder of bank.json, .md, .png (default: {OUTPUT})")
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    parser.add_argument("--quick", action="store_true", help="to see that it works, not to publish")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    shape, capacities = (QUICK_SHAPE, QUICK_CAPACITIES) if options.quick else (ENTRY_SHAPE, CAPACITIES)
    backward = QUICK_BACKWARD_SECONDS if options.quick else BACKWARD_SECONDS
    settings = {"entry_shape": list(shape), "capacities": list(capacities), "num_steps": NUM_STEPS, "backward": backward}
    results = Results(options.output / "bank.json", settings, machine_facts(find_comfyui()), options.fresh)
    for capacity in capacities:
        for storage in ("RAM", "file"):
            say(f"bank: {capacity} entries in the cell, {storage}")
            folder = options.output / "bank.work" if storage == "file" else None
            results.get(f"{capacity} {storage}", lambda folder=folder, n=capacity: measure(shape, n, folder, backward))
    text = report(results)
    (options.output / "bank.md").write_text(text, encoding="utf-8")
    waited = {name: found["waited"] for name, found in results.measured.items()}
    draw_bars("What a training step waits for the error bank, ms", waited).save(options.output / "bank.png")
    sys.stdout.write(text)
    return 0


def measure(shape: tuple[int, ...], capacity: int, folder: Path | None, backward: float) -> dict[str, float]:
    """Return the milliseconds of draws and insertions with a cell of `capacity` entries, in `folder` or in RAM.

    `backward` is the seconds of other work during an insertion.
    """
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)
    config = ErrorRecyclingConfig(
        capacity=capacity, num_grids=2, noise_prob=1.0, latent_prob=1.0, image_prob=1.0, clean_prob=0.0
    )
    bank = make_bank(shape, config, folder, num_snapshots=2, expected_entries=capacity + NUM_STEPS)
    random = torch.Generator().manual_seed(0)
    try:
        for _ in range(capacity):
            store(bank, torch.randn(shape, generator=random), SIGMA, config, random)
        steps = [time_step(bank, shape, config, random, backward) for _ in range(NUM_STEPS)]
    finally:
        bank.close()
        if folder is not None:
            shutil.rmtree(folder)
    draws, insertions, waits = zip(*steps, strict=True)
    waited = [draw + wait for draw, wait in zip(draws, waits, strict=True)]
    return {"draw": median(draws), "insertion": median(insertions), "waited": median(waited), "most": max(waited)}


def time_step(
    bank: ErrorBank, shape: tuple[int, ...], config: ErrorRecyclingConfig, random: torch.Generator, backward: float
) -> tuple[float, float, float]:
    """Return the milliseconds of a draw, an insertion, and an insertion beside other work.

    The draw is of all three errors, the insertion into a full cell. The last number is the part of the insertion that
    outlasts `backward` seconds of other work.
    """
    residual = torch.randn(shape, generator=random)
    began = time.perf_counter()
    injection = draw_injection(bank, SIGMA, config, random, range(shape[1]))
    drawn = time.perf_counter()
    assert injection.noise_error is not None and injection.image_error is not None

    def insert() -> float:
        store(bank, residual, SIGMA, config, random)
        return time.perf_counter()

    with ThreadPoolExecutor(max_workers=1) as beside:
        inserted = beside.submit(insert)
        time.sleep(backward)
        slept = time.perf_counter()
        ended = inserted.result()
    return 1e3 * (drawn - began), 1e3 * (ended - drawn), 1e3 * max(0.0, ended - slept)


def report(results: Results) -> str:
    """Return the table, with each row's share of the shortest possible training step."""
    step = SHAPES["14b"].training_limit("H200", keeps_attention=False)
    rows = []
    for name, found in results.measured.items():
        shares = [f"{value / step / 10:.2f}" for value in (found["draw"] + found["insertion"], found["waited"])]
        rows.append((name, *(f"{found[key]:.1f}" for key in ("draw", "insertion", "waited", "most")), *shares))
    of_step = f"% of the least step, {step:.2f} s"
    head = (
        "entries in the cell",
        "draw, ms",
        "insertion, ms",
        "waited, ms",
        "most, ms",
        f"{of_step}: one after the other",
        "waited",
    )
    facts = table(("measured on", ""), results.content["machine"].items())
    return f"{table(head, rows)}\n\n{facts}\n"


if __name__ == "__main__":
    sys.exit(main())
