"""Which cards are large enough, by limiting PyTorch's memory, from small to large until one is.

Each try is a process of its own that may hold a number of GiB (torch.cuda.set_per_process_memory_fraction) and whose ComfyUI is
told to leave the rest of the card alone, as --reserve-vram does. A real card of that size has a little less, for its driver and
the desktop: about 1 GiB. Weights that do not fit wait in host memory, which is not limited here. On a CPU nothing is limited.
"""

import json
import subprocess
import sys
from dataclasses import asdict
from functools import partial

import torch

from benchmarks.gpu.bench import Bench, Measured
from benchmarks.gpu.comfyui import pack_module
from benchmarks.gpu.jobs import frames_of_ours, job_of, make_ours, timed_job
from benchmarks.gpu.record import MEASURED
from benchmarks.gpu.stage_process import Options, open_bench
from benchmarks.gpu.training_step import ALL_BLOCKS, our_steps
from dev.environment import REPOSITORY

CARDS = (8, 12, 16, 24, 32, 48, 80)  # GiB
TRAINING = {  # memory settings of training/configs/memory_*.toml
    24: {"swapped_blocks": ALL_BLOCKS, "offload_block_inputs": True},
    48: {"offload_block_inputs": True},
    80: {},
}
TRY_SECONDS = 300


def measure(bench: Bench) -> None:
    """Try the cards until one is large enough for a clip, and for a training step."""
    for what, cards in (("one clip", CARDS), ("a training step", tuple(TRAINING))):
        for card in cards:
            row = f"{what} in {card} GiB"
            bench.measure(row, partial(tried, bench, what, card))
            if bench.record.rows(bench.stage)[row]["outcome"] == MEASURED:
                break


def tried(bench: Bench, what: str, card: int) -> Measured:
    """Return what one try in a process of its own took.

    Raises:
        RuntimeError: it did not fit, or failed in another way; the message is the last line of its own.
        TimeoutError: it took too long.
    """
    told = Options(bench.shapes.name, str(bench.device), str(bench.record.path.parent), str(bench.work))
    command = [sys.executable, "-m", "benchmarks.gpu.smallest_card", what, str(card), json.dumps(asdict(told))]
    try:
        done = subprocess.run(
            command,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TRY_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError(f"it took more than {TRY_SECONDS} s") from error
    sys.stderr.write(done.stderr)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["it ended without a message"])[-1])
    values = json.loads(done.stdout.strip().splitlines()[-1])
    return Measured(values, [torch.tensor([value for value in values.values() if isinstance(value, float)])])


def try_once(what: str, card: int, options: Options) -> Measured:
    """Do one clip or one training step in this process, within the limit."""
    bench = open_bench("smallest card", options)
    limit_memory(bench.device, card)
    if what == "one clip":
        job = job_of(bench, num_clips=1)
        return timed_job(bench, job, make_ours, frames_of_ours(job))
    return our_steps(bench, {"memory": TRAINING[card]})


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


def main(arguments: list[str]) -> int:
    """Print what one try measured, as JSON."""
    what, card, options = arguments
    found = try_once(what, int(card), Options(**json.loads(options)))
    found.require_finite()
    sys.stdout.write(json.dumps(found.values) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
