"""A stage whose ComfyUI manages the card's memory as users have it: dynamically, and with PyTorch's asynchronous allocator.

Both must be set before PyTorch is imported. Otherwise as :mod:`benchmarks.gpu.stage_process`.
Source: https://github.com/comfyanonymous/ComfyUI, main.py and cuda_malloc.py.
"""

import importlib.util
import os
import sys

ALLOCATOR = "PYTORCH_CUDA_ALLOC_CONF"


def prepare() -> None:
    """Do what ComfyUI's main.py does before it imports PyTorch."""
    asked = [part for part in os.environ.get(ALLOCATOR, "").split(",") if part]
    if not any(part.startswith("backend:") for part in asked):
        os.environ[ALLOCATOR] = ",".join([*asked, "backend:cudaMallocAsync"])
    if importlib.util.find_spec("comfy_aimdo") is not None:
        import comfy_aimdo.control

        comfy_aimdo.control.init(nvml_pressure=True)


if __name__ == "__main__":
    prepare()
    from benchmarks.gpu.stage_process import main

    sys.exit(main(sys.argv[1:]))
