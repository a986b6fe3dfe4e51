"""Ours with each expert fetched from host memory when its turn comes, as on a card that holds one.

Fetching earlier, beside the sums, could gain at most what this takes more than the row "ours".
"""

from typing import Any

import torch

from benchmarks.gpu.bench import Bench, Measured
from benchmarks.gpu.comfyui import pack_module
from benchmarks.gpu.jobs import Job, frames_of_ours, job_of, make_ours, timed_job
from benchmarks.gpu.stopwatch import Stopwatch


def measure(bench: Bench) -> None:
    """Measure the rows of this stage."""
    bench.measure("ours, each expert fetched when its turn comes", lambda: fetched_row(bench))


def fetched_row(bench: Bench) -> Measured:
    """Return the times of three clips."""
    job = job_of(bench)
    return timed_job(bench, job, make_with_swaps, frames_of_ours(job))


def make_with_swaps(job: Job, watch: Stopwatch) -> list[torch.Tensor]:
    """Make the video like ours, but empty the card before each expert."""
    import comfy.model_management

    sampling = pack_module("nodes.bridge.sampling")
    sample = sampling.sample_stage

    def fetch_and_sample(*arguments: Any) -> torch.Tensor:
        comfy.model_management.unload_all_models()
        return sample(*arguments)

    sampling.sample_stage = fetch_and_sample
    try:
        return make_ours(job, watch)
    finally:
        sampling.sample_stage = sample
