"""Three clips of four steps by this pack, by stock nodes and by diffusers: ``python -m benchmarks.gpu.loop [--weights bf16]``.

Ours and stock share the loaded models and run in the order ours, stock, stock, ours, after one clip each that is not counted
(the attention probe is in it). diffusers has bf16 weights only, so it is compared with --weights bf16. "% of limit" is the
least time in which the device could do the transformer's and the VAE's sums (FIELD_NOTES 3), over the time it took.
"""

import sys

from benchmarks.gpu.command import Bench, Row, open_bench, print_report
from benchmarks.gpu.jobs import Job, diffusers_pipeline, make_diffusers, make_ours, make_stock, timed_job
from benchmarks.gpu.weights import KINDS

NUM_CLIPS = 3
ORDER = (("ours", make_ours), ("stock", make_stock), ("stock", make_stock), ("ours", make_ours))
COLUMNS = (
    "s", "s per new frame", "% of limit", "peak GiB", "conditioning", "transformer", "decode", "waiting for video", "pipeline",
    "rest",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing and print the table."""
    bench = open_bench("loop", __doc__.splitlines()[0], arguments, weights=KINDS)
    job = Job(bench.shapes, bench.device, bench.folder, bench.chosen["weights"])
    rows = [f"{place + 1}: {name}" for place, (name, _) in enumerate(ORDER)]
    if not all(row in bench.results.measured for row in rows):
        for _, make in ORDER[:2]:
            timed_job(job, make, num_clips=1)
    for row, (_, make) in zip(rows, ORDER, strict=True):
        bench.measure(row, lambda make=make: timed_job(job, make, NUM_CLIPS))
    if bench.chosen["weights"] == "bf16":
        measure_diffusers(bench, job)
    print_report(bench.report(COLUMNS, bars="s per new frame", notes=[comparison(bench, rows)]))
    return 0


def measure_diffusers(bench: Bench, job: Job) -> None:
    """Time diffusers' pipeline twice, after one clip that is not counted."""

    def measured() -> Row:
        unload_comfy_models(job)
        if diffusers_pipeline.cache_info().currsize == 0:
            diffusers_pipeline(job)
            timed_job(job, make_diffusers, num_clips=1)
        return timed_job(job, make_diffusers, NUM_CLIPS)

    for row in ("5: diffusers", "6: diffusers"):
        bench.measure(row, measured)


def unload_comfy_models(job: Job) -> None:
    """Make room on the device for diffusers' two experts."""
    import comfy.model_management

    vars(job).pop("models", None)
    comfy.model_management.unload_all_models()
    comfy.model_management.cleanup_models_gc()


def comparison(bench: Bench, rows: list[str]) -> str:
    """Return one line: seconds of ours over seconds of stock for each new frame."""
    found = [bench.results.measured[row] for row in rows]
    if any("unavailable" in row for row in found):
        return "ours / stock: not measured"
    first, second, third, fourth = (row["s per new frame"] for row in found)
    return f"ours / stock, seconds for each new frame: **{(first + fourth) / (second + third):.3f}**"


if __name__ == "__main__":
    sys.exit(main())
