"""Work between clips: frames to the host in three ways, colours and clips of frames, and decoding on a second stream."""

import functools
from collections.abc import Callable

import torch

from benchmarks.gpu.bench import Bench, Measured
from benchmarks.gpu.comfyui import pack_module
from benchmarks.gpu.kernels import normal
from benchmarks.gpu.vae import load_vae, vae_call

FRAMES_AT_ONCE = 8
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
    for place, device in (("host", torch.device("cpu")), ("device", bench.device)):
        bench.measure(f"colours of a clip matched on the {place}", functools.partial(colours_row, bench, frames, device))
        bench.measure(f"a clip of frames made ready on the {place}", functools.partial(ready_row, bench, frames, device))
    for row, beside in (("decoding after sampling", False), ("decoding beside sampling, second stream", True)):
        bench.measure(row, functools.partial(overlap_row, bench, beside))


def colours_row(bench: Bench, frames: torch.Tensor, device: torch.device) -> Measured:
    """Return the time of correcting a clip's decoded frames on `device`, and the largest deviation from the host's."""
    colour = pack_module("svi_core.video.colour")

    def run(device: torch.device) -> torch.Tensor:
        chunks = [chunk.half().to(device) for chunk in frames.split(FRAMES_AT_ONCE)]
        end = colour.match_colour(chunks[-1].float(), frames[:1].to(device), 1.0)
        ends = colour.ColourCorrection(), end, len(frames)
        return torch.cat([colour.corrected(c.float(), FRAMES_AT_ONCE * n, *ends) for n, c in enumerate(chunks)])

    return _beside_the_host(bench, run, device)


def ready_row(bench: Bench, frames: torch.Tensor, device: torch.device) -> Measured:
    """Return the time of making the VAE's input from one known frame and padding on `device`, as ComfyUI scales it."""
    build_y = pack_module("svi_core.conditioning.build_y")
    known = frames[:1].cpu()

    def run(device: torch.device) -> torch.Tensor:
        clip = build_y.padded_frames(known.to(device), None, bench.shapes.num_frames).movedim(-1, 0)[None]
        return (clip * 2.0 - 1.0).to(torch.bfloat16).to(bench.device)

    return _beside_the_host(bench, run, device)


def _beside_the_host(bench: Bench, run: Callable[[torch.device], torch.Tensor], device: torch.device) -> Measured:
    found, out = bench.milliseconds(lambda: run(device), runs=2), run(device)
    host = run(torch.device("cpu")).to(out.device)
    return Measured({**found, "deviation": float((out.float() - host.float()).abs().max())}, [out])


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
