"""Encode and decode a clip with the VAE's weights in both memory formats, and decode it in chunks as the pack does."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from benchmarks.gpu.bench import Bench, Measured, kept
from benchmarks.gpu.comfyui import pack_module
from benchmarks.gpu.kernels import normal
from benchmarks.gpu.shapes import Shapes
from benchmarks.gpu.weights import vae_file

LAYOUTS = ("contiguous", "channels last")
RUNS = 2


def measure(bench: Bench) -> None:
    """Measure the rows of this stage."""
    frames = bench.shapes.num_frames
    for what in (f"decode of {frames} frames", f"encode of {frames} frames", "encode of 1 frame"):
        for layout in LAYOUTS:
            bench.measure(f"{what}, {layout}", functools.partial(vae_row, bench, what, layout))
    for layout in LAYOUTS:
        bench.measure(f"decode in chunks, {layout}", functools.partial(vae_row, bench, "decode in chunks", layout))
    bench.measure("decode in chunks, SVI_DECODE=timed", functools.partial(timed_order_row, bench))


@kept
@torch.inference_mode()
def load_vae(work: Path, shapes: Shapes, device: torch.device) -> Any:
    """Return ComfyUI's VAE of random weights, on the device."""
    pack_module("nodes.generate")
    import comfy.model_management
    import comfy.sd
    import comfy.utils

    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(vae_file(work, shapes, device))))
    comfy.model_management.load_models_gpu([vae.patcher], force_full_load=True)
    return vae


@torch.inference_mode()
def vae_row(bench: Bench, what: str, layout: str) -> Measured:
    """Return the time of one direction, its memory, and its largest deviation from the contiguous format."""
    vae = load_vae(bench.work, bench.shapes, bench.device)
    run = vae_call(bench, vae, what)
    plain = run().float() if layout != LAYOUTS[0] else None
    _lay_out(vae.first_stage_model, layout)
    try:
        bench.reset_peak()
        found, out = bench.milliseconds(run, RUNS), run().float()
        found["peak GiB"] = bench.peak_gib()
        if plain is not None:
            found["deviation"] = float((out - plain).abs().max())
    finally:
        _lay_out(vae.first_stage_model, LAYOUTS[0])
    return Measured(found, [out])


@torch.inference_mode()
def timed_order_row(bench: Bench) -> Measured:
    """Return the time of the pack's decode with the order of memory that it chooses, and its deviation."""
    module = pack_module("nodes.bridge.decode_order")
    vae = load_vae(bench.work, bench.shapes, bench.device)
    run = vae_call(bench, vae, "decode in chunks")
    plain = run()
    with mock.patch.dict(os.environ, {module.SETTING: "timed"}), mock.patch.object(module.ORDER, "stored", NothingStored()):
        bench.reset_peak()
        found, out = bench.milliseconds(run, RUNS), run()
    chosen = ", ".join(module.ORDER.chosen.values()) or "contiguous"
    deviation = float((out.float() - plain.float()).abs().max())
    return Measured({**found, "peak GiB": bench.peak_gib(), "deviation": deviation, "chosen": chosen}, [out])


class NothingStored:
    """No choice of another process, and none for another."""

    def get(self, machine: str, shape: str) -> None:
        """Return None."""

    def put(self, machine: str, shape: str, name: str) -> None:
        """Forget it."""


def _lay_out(model: torch.nn.Module, layout: str) -> None:
    """Put the weights of convolutions into a memory format."""
    for module in model.modules():
        if isinstance(module, torch.nn.Conv3d | torch.nn.Conv2d):
            last = torch.channels_last_3d if isinstance(module, torch.nn.Conv3d) else torch.channels_last
            wanted = last if layout == "channels last" else torch.contiguous_format
            module.weight.data = module.weight.data.contiguous(memory_format=wanted)


def vae_call(bench: Bench, vae: Any, what: str) -> Callable[[], torch.Tensor]:
    """Return the call that `what` names."""
    shapes, model = bench.shapes, vae.first_stage_model
    if what == "decode in chunks":
        vaes, latent = pack_module("nodes.bridge.vaes"), normal(bench, *shapes.latent_shape)
        return lambda: torch.cat(list(vaes.decode_chunks(vae, latent, vaes.DecodeTiles.NEVER)))
    if what.startswith("decode"):
        latent = normal(bench, *shapes.latent_shape).to(vae.vae_dtype)
        return lambda: model.decode(latent)
    frames = 1 if "1 frame" in what else shapes.num_frames
    pixels = normal(bench, 1, 3, frames, shapes.height, shapes.width).to(vae.vae_dtype)
    return lambda: model.encode(pixels)
