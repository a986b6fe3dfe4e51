"""Three clips of four steps by this pack and by what stock nodes do, in one process, with the same loaded models.

Before each row two steps of one clip of the same kind, which are not counted: kernels are chosen in them. "% of limit" is the
least time of the operations with 8-bit operands (docs/METHOD.md, 11.1), over the time measured.
"""

from collections.abc import Callable
from dataclasses import replace

from benchmarks.gpu.bench import Bench, Measured
from benchmarks.gpu.jobs import (
    WARM_UP_STEPS,
    Job,
    Make,
    frames_of_ours,
    frames_of_stock,
    job_of,
    make_ours,
    make_stock,
    timed_job,
)

KINDS: dict[str, tuple[Make, Callable[[Job], int]]] = {
    "ours": (make_ours, frames_of_ours),
    "stock": (make_stock, frames_of_stock),
}


def measure(bench: Bench) -> None:
    """Measure both, ours first; the second time stock first."""
    for kind in KINDS if bench.stage == "loop" else reversed(KINDS):
        bench.measure(kind, lambda kind=kind: measured(bench, *KINDS[kind]))


def measured(bench: Bench, make: Make, num_frames: Callable[[Job], int]) -> Measured:
    """Return the times of one kind, after a warm-up."""
    job = job_of(bench)
    warm_up = replace(job, num_clips=1, num_steps=WARM_UP_STEPS)
    timed_job(bench, warm_up, make, num_frames(warm_up))
    return timed_job(bench, job, make, num_frames(job))
