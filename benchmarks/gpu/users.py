"""Ours as people run it: SVI's LoRA of rank 128 and a distilled one on both experts, and ComfyUI's dynamic memory.

Nothing is warmed up: the first clip loads the experts, applies the LoRAs and chooses kernels; the further clips are what a long
video costs.
"""

from benchmarks.gpu.bench import Bench, Measured
from benchmarks.gpu.comfyui import pack_module, start_dynamic_memory
from benchmarks.gpu.jobs import Job, frames_of_ours, job_of, make_ours, timed_job
from benchmarks.gpu.weights import LORAS, lora_file


def measure(bench: Bench) -> None:
    """Measure the rows of this stage."""
    dynamic = start_dynamic_memory()
    for row, names in (("with both LoRAs", tuple(LORAS)), ("without a LoRA", ())):
        bench.measure(row, lambda names=names: measured(bench, names, dynamic))


def measured(bench: Bench, names: tuple[str, ...], dynamic: str) -> Measured:
    """Return the times of a video with these LoRAs."""
    job: Job = job_of(bench, loras=tuple(lora_row(bench, name) for name in names))
    found = timed_job(bench, job, make_ours, frames_of_ours(job))
    return Measured({**found.values, "dynamic memory": dynamic}, found.results)


def lora_row(bench: Bench, name: str) -> object:
    """Return the pack's row of a LoRA, the same file for both experts, from a folder that ComfyUI knows."""
    import folder_paths

    path = lora_file(bench.work, bench.shapes, bench.device, name)
    folder_paths.add_model_folder_path("loras", str(path.parent))
    return pack_module("nodes.lora").LoraRow(path.name, 1.0, path.name, 1.0)
