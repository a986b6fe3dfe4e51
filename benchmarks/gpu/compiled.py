"""Ours with both experts compiled as TorchCompileModel does: its first clip, three clips, and what it changes."""

from dataclasses import replace
from typing import Any

import torch

from benchmarks.gpu.bench import Bench, Measured
from benchmarks.gpu.jobs import Job, frames_of_ours, job_of, make_ours, timed_job


def measure(bench: Bench) -> None:
    """Measure the rows of this stage."""
    bench.measure("ours, compiled", lambda: compiled_row(bench))


def compiled_row(bench: Bench) -> Measured:
    """Return the time of three clips, of the first one with compiling, and the largest deviation from the plain way."""
    plain = job_of(bench)
    compiled = with_compiled_experts(plain)
    first = [timed_job(bench, job, make_ours, frames_of_ours(job)) for job in (_one_clip(plain), _one_clip(compiled))]
    latents = [found.results[0] for found in first]
    deviation = float((latents[1] - latents[0]).abs().max() / latents[0].abs().max())
    found = timed_job(bench, compiled, make_ours, frames_of_ours(compiled))
    return Measured({**found.values, "with compiling": first[1].values["s"], "deviation": deviation}, found.results)


def _one_clip(job: Job) -> Job:
    return replace(job, num_clips=1)


def with_compiled_experts(job: Job) -> Job:
    """Return `job` with its experts compiled as ComfyUI's TorchCompileModel does; without a GPU, by a quick backend."""
    high, low, vae = job.models
    with torch.inference_mode():  # in which the models were loaded
        return replace(job, models=(*(compile_expert(model, job.device) for model in (high, low)), vae))


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
