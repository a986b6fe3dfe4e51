"""Let ComfyUI's Wan model or VAE decoder fail, or stand still, at a chosen call; linked into custom_nodes by tests only.

What shall happen is read from fault.json in the server's working folder, see tests/e2e/faults.py. It adds no nodes.
"""

import functools
import json
import time
from collections.abc import Callable
from pathlib import Path

import comfy.ldm.wan.model
import comfy.ldm.wan.vae
import comfy.model_management
import torch

NODE_CLASS_MAPPINGS: dict[str, type] = {}

FAULT, STANDING_STILL = Path("fault.json"), Path("standing_still")
ERRORS = {
    "OutOfMemoryError": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "RuntimeError": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
    "MemoryError": MemoryError(),
}
_count = {"fault": "", "calls": 0}


def meet_fault(place: str) -> None:
    """Count a call at `place`, and raise or stand still if it is the one that the fault is for."""
    fault = FAULT.read_text() if FAULT.exists() else ""
    if fault != _count["fault"]:
        _count.update(fault=fault, calls=0)
    if not fault or json.loads(fault)["place"] != place:
        return
    _count["calls"] += 1
    if _count["calls"] != json.loads(fault)["call"]:
        return
    if json.loads(fault)["kind"] == "stand still":
        _stand_still()
    else:
        error = ERRORS[json.loads(fault)["kind"]]
        raise type(error)(*error.args)


def _stand_still() -> None:
    """Wait in the middle of a step until told to go on, or interrupted as any of ComfyUI's operations is."""
    STANDING_STILL.touch()
    try:
        while STANDING_STILL.exists():
            comfy.model_management.throw_exception_if_processing_interrupted()
            time.sleep(0.01)
    finally:
        STANDING_STILL.unlink(missing_ok=True)


def _watched(place: str, real: Callable) -> Callable:
    @functools.wraps(real)
    def call(*args, **kwargs):
        meet_fault(place)
        return real(*args, **kwargs)

    return call


comfy.ldm.wan.model.WanModel.forward = _watched("model", comfy.ldm.wan.model.WanModel.forward)
comfy.ldm.wan.vae.Decoder3d.forward = _watched("decoder", comfy.ldm.wan.vae.Decoder3d.forward)
