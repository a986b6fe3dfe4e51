"""Which cards are large enough, by limiting PyTorch's memory: ``python -m benchmarks.gpu.smallest_card``.

Each try is a process of its own that may hold a number of GiB (torch.cuda.set_per_process_memory_fraction) and whose ComfyUI is
told to leave the rest of the card alone, as --reserve-vram does. A real card of that size has a little less, for its driver and
the desktop: about 1 GiB. Weights that do not fit wait in host memory, which is not limited here. On a CPU nothing is limited.
"""

import argparse
import json
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import torch

from benchmarks.gpu.comfyui import pack_module
from benchmarks.gpu.command import Bench, Row, open_bench, print_report
from benchmarks.gpu.jobs import Job, make_ours, timed_job
from benchmarks.gpu.shapes import SHAPES
from dev.environment import REPOSITORY

CARDS = (8, 12, 16, 24, 32, 48, 80)  # GiB
TRAINING = {  # memory settings of training/configs/memory_*.toml
    24: {"swapped_blocks": "all", "offload_block_inputs": True},
    48: {"offload_block_inputs": True},
    80: {},
}
TRY_SECONDS = 300
COLUMNS = ("s", "peak GiB", "works")


def main(arguments: list[str] | None = None) -> int:
    """Try the cards from small to large, one clip and one training step each, until one is large enough."""
    bench = open_bench("smallest_card", __doc__.splitlines()[0], arguments)
    for what, cards in (("one clip", CARDS), ("a training step", tuple(TRAINING))):
        for card in cards:
            found = bench.measure(f"{what} in {card} GiB", partial(tried, bench, what, card))
            if found.get("works") == "yes":
                break
    print_report(bench.report(COLUMNS, bars="s"))
    return 0


def tried(bench: Bench, what: str, card: int) -> Row:
    """Return the result of one try in a process of its own.

    Raises:
        ChildProcessError: it failed, but not for lack of memory.
    """
    command = [sys.executable, "-m", "benchmarks.gpu.smallest_card", "--try", what, "--gib", str(card)]
    command += ["--shapes", bench.shapes.name, "--device", str(bench.device), "--output", str(bench.folder)]
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=TRY_SECONDS)
    except subprocess.TimeoutExpired:
        return {"works": f"no: more than {TRY_SECONDS} s"}
    if done.returncode:
        if "memory" not in done.stderr.lower():
            raise ChildProcessError(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
        return {"works": f"no: {(done.stderr.strip().splitlines() or ['no message'])[-1][:100]}"}
    return json.loads(done.stdout.strip().splitlines()[-1]) | {"works": "yes"}


def try_once(options: argparse.Namespace) -> Row:
    """Do one clip or one training step in this process, within the limit."""
    device, shapes = torch.device(options.device), SHAPES[options.shapes]
    limit_memory(device, options.gib)
    job = Job(shapes, device, options.output, "fp8")
    if options.what == "one clip":
        return timed_job(job, make_ours, num_clips=1)
    from benchmarks.gpu.training_step import our_steps

    memory = dict(TRAINING[options.gib])
    if memory.get("swapped_blocks") == "all":
        memory["swapped_blocks"] = shapes.num_layers
    began = time.perf_counter()
    bench = Bench("try", shapes, device, options.output, None, {"weights": "fp8", "attention": "auto"})
    row = our_steps(bench, memory)
    return row | {"all": time.perf_counter() - began}


def limit_memory(device: torch.device, gib: int) -> None:
    """Let this process hold at most `gib` GiB of the card, and let ComfyUI plan with that."""
    if device.type != "cuda":
        return
    total = torch.cuda.get_device_properties(device).total_memory
    if gib * 2**30 < total:
        torch.cuda.set_per_process_memory_fraction(gib * 2**30 / total, device)
    pack_module("nodes.generate")
    import comfy.model_management

    comfy.model_management.EXTRA_RESERVED_VRAM += max(0, total - gib * 2**30)


def try_options(arguments: list[str]) -> argparse.Namespace:
    """Return the arguments of a try."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--try", dest="what", required=True)
    parser.add_argument("--gib", type=int, required=True)
    parser.add_argument("--shapes", required=True)
    parser.add_argument("--device", required=True)
    parser.add_argument("--output", type=Path, required=True)
    return parser.parse_args(arguments)


if __name__ == "__main__":
    if "--try" in sys.argv:
        sys.stdout.write(json.dumps(try_once(try_options(sys.argv[1:]))) + "\n")
        sys.exit(0)
    sys.exit(main())
