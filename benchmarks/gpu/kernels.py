"""Time the kernels of a forward pass, of the VAE and of transfers to the host: ``python -m benchmarks.gpu.kernels``.

Matrix products in bf16 and fp8, every attention kernel forward and with its backward pass, the VAE in both memory formats,
frames to the host in three ways, and decoding during sampling on a second stream. Where results can
differ, a row has the largest deviation from the plain way.
"""

import functools
import sys
from collections.abc import Callable

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.gpu.comfyui import pack_module
from benchmarks.gpu.command import Bench, Row, milliseconds, open_bench, print_report
from benchmarks.gpu.shapes import TEXT_TOKENS
from benchmarks.gpu.weights import vae_file

BACKENDS = {
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
}
COLUMNS = ("ms", "least", "most", "TFLOP/s", "deviation", "chosen")


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing and print the table."""
    bench = open_bench("kernels", __doc__.splitlines()[0], arguments)
    measure_products(bench)
    measure_attention(bench)
    measure_vae(bench)
    measure_transfers(bench)
    print_report(bench.report(COLUMNS, bars="ms"))
    return 0


def normal(bench: Bench, *shape: int) -> torch.Tensor:
    """Return normal bf16 numbers on the device, the same ones for the same shape."""
    random = torch.Generator(bench.device).manual_seed(sum(shape))
    return torch.randn(shape, generator=random, device=bench.device, dtype=torch.bfloat16)


def timed(bench: Bench, run: Callable[[], torch.Tensor], tflop: float) -> Row:
    """Return the times of `run`, and its operations per second."""
    row = milliseconds(run, bench.device)
    return row | {"TFLOP/s": 1e3 * tflop / row["ms"]}


def measure_products(bench: Bench) -> None:
    """Time the two largest kinds of linear layers, in bf16 and as scaled fp8."""
    shapes = bench.shapes
    for name, inner, outer in (("attention", shapes.dim, shapes.dim), ("FFN", shapes.dim, shapes.ffn_dim)):
        tflop = 2e-12 * shapes.num_tokens * inner * outer
        for kind, product in (("bf16", bf16_product), ("fp8", fp8_product)):
            run = functools.partial(product, bench, inner, outer)
            bench.measure(f"product, {name} layer, {kind}", lambda run=run, tflop=tflop: timed(bench, run(), tflop))


def bf16_product(bench: Bench, inner: int, outer: int) -> Callable[[], torch.Tensor]:
    """Return a call of the product [tokens, inner] x [inner, outer] in bf16."""
    x, weight = normal(bench, bench.shapes.num_tokens, inner), normal(bench, outer, inner)
    return lambda: torch.nn.functional.linear(x, weight)


def fp8_product(bench: Bench, inner: int, outer: int) -> Callable[[], torch.Tensor]:
    """Return a call of the same product in fp8 with one scale for each operand, as scaled-fp8 files are multiplied."""
    x, weight = (
        t.to(torch.float8_e4m3fn) for t in (normal(bench, bench.shapes.num_tokens, inner), normal(bench, outer, inner))
    )
    one = torch.ones((), device=bench.device)
    return lambda: torch._scaled_mm(x, weight.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16)


def measure_attention(bench: Bench) -> None:
    """Time every kernel over the clip, a quarter of it, and the text; then what the pack chooses."""
    tokens = bench.shapes.num_tokens
    for name, queries, keys in (
        ("clip", tokens, tokens),
        ("a quarter of the clip", tokens // 4, tokens // 4),
        ("text", tokens, TEXT_TOKENS),
    ):
        for kernel in BACKENDS:
            for backward in (False, True):
                row = f"attention over {name}, {kernel}{', and backward' if backward else ''}"
                bench.measure(row, functools.partial(attention_row, bench, kernel, queries, keys, backward))
        bench.measure(f"attention over {name}, the pack's choice", functools.partial(chosen_row, bench, queries, keys))


def attention_row(bench: Bench, kernel: str, queries: int, keys: int, backward: bool) -> Row:
    """Return the time of one kernel, and how far it is from PyTorch's plain formula on the first queries."""
    heads, width = bench.shapes.num_heads, bench.shapes.dim // bench.shapes.num_heads
    q, k, v = (normal(bench, 1, heads, tokens, width).requires_grad_(backward) for tokens in (queries, keys, keys))
    gradient = torch.ones_like(q)

    def run() -> torch.Tensor:
        with sdpa_kernel(BACKENDS[kernel]):
            out = scaled_dot_product_attention(q, k, v)
        return torch.autograd.grad(out, (q, k, v), gradient)[0] if backward else out

    found = timed(bench, run, 4e-12 * queries * keys * bench.shapes.dim * (3.5 if backward else 1.0))
    if backward:
        return found
    return found | {"deviation": float((run()[:, :, :64] - plain_attention(q, k, v)).abs().max())}


def plain_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Return softmax(q k^T) v of the first 64 queries, in fp32."""
    weights = (q[:, :, :64].float() @ k.float().transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(-1)
    return weights @ v.float()


def chosen_row(bench: Bench, queries: int, keys: int) -> Row:
    """Return the time of attention as SVI Generate calls it, and which kernel its probe chose."""
    module, comfy_attention = pack_module("nodes.bridge.attention"), _comfy_attention()
    q, k, v = (normal(bench, 1, tokens, bench.shapes.dim) for tokens in (queries, keys, keys))
    choice = module.FastestAttention()
    attend = functools.partial(choice, comfy_attention, q, k, v, heads=bench.shapes.num_heads)
    theirs = comfy_attention(q, k, v, heads=bench.shapes.num_heads)
    found = timed(bench, attend, 4e-12 * queries * keys * bench.shapes.dim)
    chosen = next(iter(choice.chosen.values()), f"{module.COMFYUI} (not compared here)")
    return found | {"deviation": float((attend() - theirs).abs().max()), "chosen": chosen}


def _comfy_attention() -> Callable:
    import comfy.ldm.modules.attention

    return comfy.ldm.modules.attention.attention_pytorch.__wrapped__


def measure_vae(bench: Bench) -> None:
    """Time encoding and decoding with weights in the usual memory format and in the one that convolutions may prefer."""
    frames = bench.shapes.num_frames
    for what in (f"VAE encode of {frames} frames", "VAE encode of 1 frame", f"VAE decode of {frames} frames"):
        for layout in ("contiguous", "channels last"):
            bench.measure(f"{what}, {layout}", functools.partial(vae_row, bench, what, layout))


@functools.cache
def load_vae(bench_folder, shapes, device: torch.device):
    """Return ComfyUI's VAE of random weights, on the device."""
    pack_module("nodes.generate")
    import comfy.model_management
    import comfy.sd
    import comfy.utils

    vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(str(vae_file(bench_folder / "weights", shapes, device))))
    comfy.model_management.load_models_gpu([vae.patcher], force_full_load=True)
    return vae


@torch.inference_mode()
def vae_row(bench: Bench, what: str, layout: str) -> Row:
    """Return the time of one direction, and its largest deviation from the contiguous format."""
    vae = load_vae(bench.folder, bench.shapes, bench.device)
    model, run = vae.first_stage_model, vae_call(bench, vae, what)
    plain = run().float()
    for module in model.modules():
        if isinstance(module, torch.nn.Conv3d | torch.nn.Conv2d) and layout == "channels last":
            wanted = torch.channels_last_3d if isinstance(module, torch.nn.Conv3d) else torch.channels_last
            module.weight.data = module.weight.data.to(memory_format=wanted)
    try:
        found = milliseconds(run, bench.device, runs=3)
        return found | {"deviation": float((run().float() - plain).abs().max())}
    finally:
        for parameter in model.parameters():
            parameter.data = parameter.data.contiguous()


def vae_call(bench: Bench, vae, what: str) -> Callable[[], torch.Tensor]:
    """Return the call that `what` names."""
    shapes, model = bench.shapes, vae.first_stage_model
    if "decode" in what:
        latent = normal(bench, *shapes.latent_shape).to(vae.vae_dtype)
        return lambda: model.decode(latent)
    frames = 1 if "1 frame" in what else shapes.num_frames
    pixels = normal(bench, 1, 3, frames, shapes.height, shapes.width).to(vae.vae_dtype)
    return lambda: model.encode(pixels)


def measure_transfers(bench: Bench) -> None:
    """Time the transfer of a clip's frames to the host: as ComfyUI's VAE node does it, as the pack does, and pinned."""
    shapes = bench.shapes
    frames = normal(bench, shapes.num_frames, shapes.height, shapes.width, 3).float().sigmoid()
    to_uint8 = pack_module("svi_core.video.video_file").to_uint8

    def pinned() -> torch.Tensor:
        small = frames.mul(255.0).round_().clamp_(0.0, 255.0).to(torch.uint8)
        host = torch.empty(small.shape, dtype=torch.uint8, pin_memory=bench.device.type == "cuda")
        return host.copy_(small, non_blocking=True)

    ways = {"fp32": frames.cpu, "uint8": lambda: to_uint8(frames), "uint8, pinned": pinned}
    for name, way in ways.items():
        bench.measure(f"frames of a clip to the host, {name}", lambda way=way: milliseconds(way, bench.device))
    bench.measure("decoding after sampling", lambda: overlap_row(bench, beside=False))
    bench.measure("decoding beside sampling, second stream", lambda: overlap_row(bench, beside=True))


@torch.inference_mode()
def overlap_row(bench: Bench, beside: bool) -> Row:
    """Return the time of one decode and of linear layers as a sampler has them."""
    if bench.device.type != "cuda":
        raise NotImplementedError("a CPU has no streams")
    vae = load_vae(bench.folder, bench.shapes, bench.device)
    decode = vae_call(bench, vae, "decode")
    x, weight = normal(bench, bench.shapes.num_tokens, bench.shapes.dim), normal(bench, bench.shapes.dim, bench.shapes.dim)
    stream = torch.cuda.Stream()

    def run() -> None:
        if beside:
            with torch.cuda.stream(stream):
                decode()
        for _ in range(20 * bench.shapes.num_layers):
            torch.nn.functional.linear(x, weight)
        if not beside:
            decode()

    return milliseconds(run, bench.device, runs=3)


if __name__ == "__main__":
    sys.exit(main())
