"""A clip's frames to the host in three ways, and decoding beside sampling on a second stream."""

import functools

import torch

from benchmarks.gpu.bench import Bench, Measured
from benchmarks.gpu.comfyui import pack_module
from benchmarks.gpu.kernels import normal
from benchmarks.gpu.vae import load_vae, vae_call

LINEAR_LAYERS = 20  # for each block: what a sampler does meanwhile


def measure(bench: Bench) -> None:
    """Measure the rows of this stage."""
    shapes = bench.shapes
    to_uint8 = pack_module("svi_core.video.video_file").to_uint8
    frames = normal(bench, shapes.num_frames, shapes.height, shapes.width, 3).float().sigmoid()

    def pinned() -> torch.Tensor:
        small = frames.mul(255.0).round_().clamp_(0.0, 255.0).to(torch.uint8)
        host = torch.empty(small.shape, dtype=torch.uint8, pin_memory=bench.device.type == "cuda")
        host.copy_(small, non_blocking=True)
        bench.synchronize()
        return host

    for name, way in {"fp32": frames.cpu, "uint8": lambda: torch.as_tensor(to_uint8(frames)), "uint8, pinned": pinned}.items():
        bench.measure(f"frames of a clip to the host, {name}", lambda way=way: Measured(bench.milliseconds(way), [way()]))
    for row, beside in (("decoding after sampling", False), ("decoding beside sampling, second stream", True)):
        bench.measure(row, functools.partial(overlap_row, bench, beside))


@torch.inference_mode()
def overlap_row(bench: Bench, beside: bool) -> Measured:
    """Return the time of one decode and of linear layers as a sampler has them."""
    decode = vae_call(bench, load_vae(bench.work, bench.shapes, bench.device), "decode")
    x, weight = normal(bench, bench.shapes.num_tokens, bench.shapes.dim), normal(bench, bench.shapes.dim, bench.shapes.dim)
    stream = torch.cuda.Stream() if beside and bench.device.type == "cuda" else None

    def run() -> torch.Tensor:
        if stream is not None:
            with torch.cuda.stream(stream):
                decoded = decode()
        for _ in range(LINEAR_LAYERS * bench.shapes.num_layers):
            torch.nn.functional.linear(x, weight)
        return decode() if stream is None else decoded

    return Measured(bench.milliseconds(run, runs=2), [run()])
