"""Three clips of four steps by this pack, by stock nodes and by diffusers: ``python -m benchmarks.gpu.loop [--weights bf16]``.

Ours and stock share the loaded models and run in the order ours, stock, stock, ours, after one clip each that is not counted
(the attention probe is in it). diffusers has bf16 weights only, so it is compared with --weights bf16. "% of limit" is the
lower bound for the transformer's and the VAE's operations (docs/METHOD.md, 11.1), over the time measured.

Two rows vary ours: each expert fetched from host memory when its turn comes, as on a card that holds one (prefetching could
gain at most this cost), and both compiled as TorchCompileModel does.
"""

import sys
from dataclasses import replace
from typing import Any

import torch

from benchmarks.gpu.comfyui import pack_module
from benchmarks.gpu.command import Bench, Row, open_bench, print_report
from benchmarks.gpu.jobs import Job, diffusers_pipeline, make_diffusers, make_ours, make_stock, timed_job
from benchmarks.gpu.stopwatch import Stopwatch
from benchmarks.gpu.weights import KINDS

NUM_CLIPS = 3
ORDER = (("ours", make_ours), ("stock", make_stock), ("stock", make_stock), ("ours", make_ours))
COLUMNS = (
    "s", "s per new frame", "% of limit", "peak GiB", "conditioning", "transformer", "decode", "waiting for video", "pipeline",
    "rest", "compiling", "deviation",
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
    bench.measure("ours, each expert fetched when its turn comes", lambda: timed_job(job, make_with_swaps, NUM_CLIPS))
    bench.measure("ours, compiled", lambda: compiled_row(job))
    if bench.chosen["weights"] == "bf16":
        measure_diffusers(bench, job)
    print_report(bench.report(COLUMNS, bars="s per new frame", notes=[comparison(bench, rows)]))
    return 0


def make_with_swaps(job: Job, num_clips: int, watch: Stopwatch) -> int:
    """Make the video like ours, but empty the card before each expert; return its frames."""
    import comfy.model_management

    sampling = pack_module("nodes.bridge.sampling")
    sample = sampling.sample_stage

    def fetch_and_sample(*arguments: Any) -> torch.Tensor:
        comfy.model_management.unload_all_models()
        return sample(*arguments)

    sampling.sample_stage = fetch_and_sample
    try:
        return make_ours(job, num_clips, watch)
    finally:
        sampling.sample_stage = sample


def compiled_row(job: Job) -> Row:
    """Return the time of ours with compiled experts, of its first clip, and its largest deviation from the plain way."""
    compiled, latents = with_compiled_experts(job), []
    for way in (job, compiled):
        first = timed_job(way, make_ours, num_clips=1)
        latents.append(only_latent(job))
    deviation = float((latents[1] - latents[0]).abs().max())
    return timed_job(compiled, make_ours, NUM_CLIPS) | {"compiling": first["s"], "deviation": deviation}


def with_compiled_experts(job: Job) -> Job:
    """Return `job` with its experts compiled as ComfyUI's TorchCompileModel does; without a GPU, by a quick backend."""
    high, low, vae = job.models
    compiled = replace(job)
    vars(compiled)["models"] = (*(compile_expert(model, job.device) for model in (high, low)), vae)
    return compiled


def compile_expert(model: Any, device: torch.device) -> Any:
    """Return a clone of the MODEL whose transformer is compiled while ComfyUI calls it."""
    from comfy.patcher_extension import WrappersMP

    backend = "inductor" if device.type == "cuda" else "eager"
    options = {"guard_filter_fn": _without_options}
    compiled = torch.compile(model.get_model_object("diffusion_model"), backend=backend, options=options)

    def run_compiled(executor: Any, *arguments: Any, **options: Any) -> torch.Tensor:
        owner, plain = executor.class_obj, executor.class_obj.diffusion_model
        owner.diffusion_model = compiled
        try:
            return executor(*arguments, **options)
        finally:
            owner.diffusion_model = plain

    clone = model.clone(disable_dynamic=True)
    clone.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "torch.compile", run_compiled)
    return clone


def _without_options(guards: list) -> list[bool]:
    return ["transformer_options" not in guard.name for guard in guards]


def only_latent(job: Job) -> torch.Tensor:
    """Return the latent of the only clip of the last run."""
    from safetensors.torch import load_file

    (path,) = (job.folder / "run" / "clips").glob("*.safetensors")
    return load_file(path)["latent"].float()


def measure_diffusers(bench: Bench, job: Job) -> None:
    """Time diffusers' pipeline twice, after a warm-up clip."""

    def measured() -> Row:
        unload_comfy_models(job)
        if diffusers_pipeline.cache_info().currsize == 0:
            diffusers_pipeline(job)
            timed_job(job, make_diffusers, num_clips=1)
        return timed_job(job, make_diffusers, NUM_CLIPS)

    for row in ("5: diffusers", "6: diffusers"):
        bench.measure(row, measured)


def unload_comfy_models(job: Job) -> None:
    """Free the device for diffusers' two experts."""
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
