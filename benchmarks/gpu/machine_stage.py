"""What is installed, which backends import, and how much memory there is; a product on the device shows that it works."""

import shutil
import subprocess
import time
from pathlib import Path

import torch

from benchmarks.gpu.bench import Bench, Measured
from benchmarks.gpu.comfyui import load_pack, pack_module
from benchmarks.gpu.record import Row
from benchmarks.machine import release

PACKAGES = ("triton", "comfy-kitchen", "comfy-aimdo", "fa3-fwd", "flash-attn", "sageattention", "torchsde", "einops")


def measure(bench: Bench) -> None:
    """Measure the rows of this stage."""
    for row, look in (("packages", packages), ("ComfyUI and the pack", imports), ("memory", memory)):
        bench.measure(row, lambda look=look: measured(bench, look))


def measured(bench: Bench, look) -> Measured:
    """Return what `look` finds, the seconds that it takes, and a small product of the device."""
    began = time.perf_counter()
    found = look(bench)
    product = torch.ones(64, 64, device=bench.device) @ torch.ones(64, 64, device=bench.device)
    bench.synchronize()
    return Measured({"seconds": time.perf_counter() - began, **found}, [product])


def packages(bench: Bench) -> Row:
    """Return the versions of what matters here."""
    return {name: release(name) for name in PACKAGES}


def imports(bench: Bench) -> Row:
    """Import all of it; return the kernels that can be compared and the backends of comfy-kitchen that are in use.

    Without its CUDA part comfy-kitchen quantises by PyTorch's plain operations: ComfyUI turns its Triton kernels off.
    """
    load_pack()
    import comfy.quant_ops  # noqa: F401  it turns backends off
    import comfy_kitchen

    backends = comfy_kitchen.list_backends()
    used = [name for name, found in backends.items() if found["available"] and not found["disabled"]]
    kernels = pack_module("nodes.bridge.attention_kernels").known_kernels()
    return {"attention kernels": ", ".join(kernels), "comfy-kitchen uses": ", ".join(used), "ffmpeg": ffmpeg()}


def ffmpeg() -> str:
    """Return the version of the ffmpeg that writes the videos."""
    import imageio_ffmpeg

    done = subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-version"], capture_output=True, text=True, check=True)
    return done.stdout.split()[2]


def memory(bench: Bench) -> Row:
    """Return the free memory of the device, and of the folder of weights."""
    found: Row = {"GB free for weights": shutil.disk_usage(_existing(bench.work)).free / 1e9, "weights in": str(bench.work)}
    if bench.device.type == "cuda":
        free, total = torch.cuda.mem_get_info(bench.device)
        found |= {"GiB of the card": total / 2**30, "of it free": free / 2**30}
    return found


def _existing(path: Path) -> Path:
    return path if path.exists() else _existing(path.parent)
