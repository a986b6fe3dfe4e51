"""Ours as people run it: SVI's LoRA of rank 128 and a distilled one on both experts, and ComfyUI's dynamic memory.

Nothing is warmed up, and no choice of a kernel is remembered: the first clip loads the experts, applies the LoRAs and compares
kernels; the further clips are what a long video costs.
"""

from benchmarks.gpu.bench import Bench, Measured
from benchmarks.gpu.comfyui import pack_module, start_dynamic_memory
from benchmarks.gpu.jobs import frames_of_ours, job_of, make_ours, timed_job
from benchmarks.gpu.weights import LORAS, lora_file


def measure(bench: Bench) -> None:
    """Measure the rows of this stage."""
    bench.measure("with both LoRAs", lambda: measured(bench))


def measured(bench: Bench) -> Measured:
    """Return the times of a video with both LoRAs."""
    dynamic = start_dynamic_memory()
    job = job_of(bench, loras=tuple(lora_row(bench, name) for name in LORAS))
    found = timed_job(bench, job, make_ours, frames_of_ours(job))
    return Measured({**found.values, "dynamic memory": dynamic}, found.results)


def lora_row(bench: Bench, name: str) -> object:
    """Return the pack's row of a LoRA, the same file for both experts, from a folder that ComfyUI knows."""
    import folder_paths

    path = lora_file(bench.work, bench.shapes, bench.device, name)
    folder_paths.add_model_folder_path("loras", str(path.parent))
    return pack_module("nodes.lora").LoraRow(path.name, 1.0, path.name, 1.0)
