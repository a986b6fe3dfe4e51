"""Draw and write the random files that the other stages load, each once."""

import time
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import safe_open

from benchmarks.gpu.bench import Bench, Measured
from benchmarks.gpu.comfyui import load_pack
from benchmarks.gpu.weights import LORAS, expert_file, lora_file, vae_file
from training.model.comfy_runtime import start_comfy

SAMPLED = 20  # tensors of a file that are checked


def measure(bench: Bench) -> None:
    """Measure the rows of this stage."""
    start_comfy()
    load_pack()
    files: dict[str, Callable[[], Path]] = {
        "an expert, scaled fp8": lambda: expert_file(bench.work, bench.shapes, bench.device),
        "the VAE": lambda: vae_file(bench.work, bench.shapes, bench.device),
    }
    for name in LORAS:
        files[f"a LoRA, {name}"] = lambda name=name: lora_file(bench.work, bench.shapes, bench.device, name)
    for row, write in files.items():
        bench.measure(row, lambda write=write: written(write))


def written(write: Callable[[], Path]) -> Measured:
    """Return the seconds that a file took, its size, and some of its tensors."""
    began = time.perf_counter()
    path = write()
    seconds = time.perf_counter() - began
    with safe_open(path, "pt") as file:
        keys = sorted(file.keys())
        sampled = [file.get_tensor(key).float() for key in keys[:: max(1, len(keys) // SAMPLED)]]
    gb = path.stat().st_size / 1e9
    return Measured({"s": seconds, "GB": gb, "GB/s": gb / seconds}, [torch.stack([t.mean() for t in sampled])])
