"""Copies, matrix products in bf16 and fp8, quantisation, and every attention kernel forward and with its backward pass.

Where results can differ, a row has the largest deviation from the plain way.
"""

import functools
from collections.abc import Callable, Sequence

import torch

from benchmarks.gpu.bench import Bench, Measured
from benchmarks.gpu.comfyui import pack_module
from benchmarks.gpu.shapes import TEXT_TOKENS

HAVE_BACKWARD = ("cudnn", "flash", "flash 3")  # of the candidates (fa3-fwd has none); training also has PyTorch's own choice
REFERENCES = 64  # queries that are compared with the plain formula
QUERIES_AT_ONCE = 2048  # whose plain attention, and its gradients, are in memory: 1 GiB over a clip at 832 x 480


def measure(bench: Bench) -> None:
    """Measure the rows of this stage."""
    bench.measure("copy on the device", lambda: copied(bench))
    measure_products(bench)
    measure_attention(bench)


def normal(bench: Bench, *shape: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    """Return normal numbers on the device, the same ones for the same shape."""
    random = torch.Generator(bench.device).manual_seed(sum(shape))
    return torch.randn(shape, generator=random, device=bench.device).to(dtype)


def copied(bench: Bench) -> Measured:
    """Return the time of copying a block's activations 16 times over, and the bytes read and written in a second."""
    source = normal(bench, 16, bench.shapes.num_tokens, bench.shapes.dim)
    target = torch.empty_like(source)
    found = bench.milliseconds(lambda: target.copy_(source))
    return Measured(found | {"GB/s": 2e-6 * source.nbytes / found["ms"]}, [target[-1]])


def measure_products(bench: Bench) -> None:
    """Time the largest kinds of linear layers in bf16 and as scaled fp8, and what quantising their input takes."""
    shapes = bench.shapes
    for name, inner, outer in (("attention", shapes.dim, shapes.dim), ("FFN", shapes.dim, shapes.ffn_dim)):
        ways = {
            "bf16": bf16_product,
            "fp8, fast sums": functools.partial(fp8_product, fast=True),
            "fp8, exact sums": functools.partial(fp8_product, fast=False),
        }
        for kind, product in ways.items():
            row = f"product, {name} layer, {kind}"
            bench.measure(row, lambda product=product, sizes=(inner, outer): product_row(bench, product, *sizes))
    for backend in ("as ComfyUI does", "cuda", "eager"):
        bench.measure(f"input to fp8, {backend}", lambda backend=backend: quantised(bench, backend))


def product_row(bench: Bench, product: Callable[..., Callable[[], torch.Tensor]], inner: int, outer: int) -> Measured:
    """Return the times of [tokens, inner] x [inner, outer]."""
    x, weight = normal(bench, bench.shapes.num_tokens, inner), normal(bench, outer, inner)
    run = product(x, weight)
    found = bench.milliseconds(run)
    plain = x[:REFERENCES].float() @ weight.float().T
    deviation = float((run()[:REFERENCES].float() - plain).abs().max() / plain.abs().max())
    tflop = 2e-12 * bench.shapes.num_tokens * inner * outer
    return Measured(found | {"TFLOP/s": 1e3 * tflop / found["ms"], "deviation": deviation}, [run()])


def bf16_product(x: torch.Tensor, weight: torch.Tensor) -> Callable[[], torch.Tensor]:
    """Return a call of the product in bf16."""
    return lambda: torch.nn.functional.linear(x, weight)


def fp8_product(x: torch.Tensor, weight: torch.Tensor, fast: bool) -> Callable[[], torch.Tensor]:
    """Return a call of the product in fp8 with one scale for each operand, as scaled-fp8 files are multiplied."""
    x, weight = (t.to(torch.float8_e4m3fn) for t in (x, weight))
    one = torch.ones((), device=x.device)
    options = {"scale_a": one, "scale_b": one, "out_dtype": torch.bfloat16, "use_fast_accum": fast}
    return lambda: torch._scaled_mm(x, weight.t(), **options)


def quantised(bench: Bench, backend: str) -> Measured:
    """Return the time of turning a layer's input into fp8 by comfy-kitchen."""
    pack_module("nodes.bridge.attention")
    import comfy.quant_ops  # noqa: F401  it turns backends off that ComfyUI does not use
    import comfy_kitchen

    x, scale = normal(bench, bench.shapes.num_tokens, bench.shapes.dim), torch.tensor(0.02, device=bench.device)
    quantise = functools.partial(comfy_kitchen.quantize_per_tensor_fp8, x, scale)
    if backend == "as ComfyUI does":
        return Measured(bench.milliseconds(quantise), [quantise().float()])
    with comfy_kitchen.use_backend(backend):
        return Measured(bench.milliseconds(quantise), [quantise().float()])


def measure_attention(bench: Bench) -> None:
    """Time every kernel over the clip, a quarter of it, and the text; then what the pack chooses."""
    tokens, module = bench.shapes.num_tokens, pack_module("nodes.bridge.attention")
    kernels = pack_module("nodes.bridge.attention_kernels").known_kernels()
    ways = {f"{module.COMFYUI} choice": _comfys, **{name: kernel.attend for name, kernel in kernels.items()}}
    for over, queries, keys in (
        ("the clip", tokens, tokens),
        ("the text", tokens, TEXT_TOKENS),
        ("a quarter of the clip", tokens // 4, tokens // 4),
    ):
        for name, attend in ways.items():
            row = functools.partial(attention_row, bench, attend, queries, keys)
            bench.measure(f"attention over {over}, {name}", row)
            if over == "the clip" and (name in HAVE_BACKWARD or attend is _comfys):
                bench.measure(f"attention over {over}, {name}, and backward", functools.partial(row, backward=True))
        bench.measure(f"attention over {over}, the pack's choice", functools.partial(chosen_row, bench, queries, keys))


def attention_row(bench: Bench, attend: Callable, queries: int, keys: int, backward: bool = False) -> Measured:
    """Return the time of one kernel and its deviation from the plain formula in fp32.

    Forward that is over the first and last queries; with the backward pass the largest of dq, dk and dv, see
    :func:`gradient_deviation`.
    """
    q, k, v = _inputs(bench, queries, keys, backward)
    heads, gradient = bench.shapes.num_heads, normal(bench, 1, queries, bench.shapes.dim).flip(1, 2)

    def run() -> tuple[torch.Tensor, ...]:
        out = attend(q, k, v, heads)
        if backward and not out.requires_grad:
            raise ValueError("forward only: this kernel has no backward pass")
        return torch.autograd.grad(out, (q, k, v), gradient) if backward else (out,)

    with torch.set_grad_enabled(backward):
        found, outs = bench.milliseconds(run), run()
    found["TFLOP/s"] = 4e-9 * queries * keys * bench.shapes.dim * (3.5 if backward else 1.0) / found["ms"]
    if backward:
        differs = gradient_deviation(outs, (q, k, v), gradient, heads)
    else:
        differs = deviation_from_plain(outs[0], q, k, v, heads)
    return Measured(found | {"deviation": differs}, outs)


def chosen_row(bench: Bench, queries: int, keys: int) -> Measured:
    """Return the time of attention as SVI Generate calls it, which kernel was chosen, and what comparing took."""
    module = pack_module("nodes.bridge.attention")
    q, k, v = _inputs(bench, queries, keys, backward=False)
    choice, heads = module.FastestAttention(device_type=bench.device.type), bench.shapes.num_heads
    attend = functools.partial(choice, _pytorchs(), q, k, v, heads)
    with torch.no_grad():
        found, out = bench.milliseconds(attend), attend()
    found["TFLOP/s"] = 4e-9 * queries * keys * bench.shapes.dim / found["ms"]
    chosen = next(iter(choice.chosen.values()), f"{module.COMFYUI} (too few tokens to matter)")
    return Measured(found | {"deviation": deviation_from_plain(out, q, k, v, heads), "chosen": chosen}, [out])


def deviation_from_plain(out: torch.Tensor, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> float:
    """Return the pack's measure of deviation from softmax(q k^T) v in fp32, on the first and the last queries."""
    module = pack_module("nodes.bridge.attention_kernels")
    largest = 0.0
    for place in (slice(0, REFERENCES), slice(-REFERENCES, None)):
        expected = plain_attention(q[:, place], k, v, heads)
        largest = max(largest, module.deviation(out[:, place], expected, heads))
    return largest


def plain_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """Return the exact sums of a few queries in fp32, head by head."""
    parts = [t.detach().unflatten(-1, (heads, -1)) for t in (q, k, v)]
    outs = []
    for head in range(heads):
        few, keys, values = (part[:, :, head].float() for part in parts)
        outs.append((few @ keys.mT * few.shape[-1] ** -0.5).softmax(-1) @ values)
    return torch.cat(outs, -1)


def gradient_deviation(
    found: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor], gradient: torch.Tensor, heads: int
) -> float:
    """Return the largest of the deviations of dq, dk and dv, by the pack's measure, in the first and the last head.

    Other heads compute the same from other numbers, and all of them in fp32 would take as long as a stage.

    Args:
        gradient: of the loss by the output, [1, tokens, heads * width].
    """
    module, compared = pack_module("nodes.bridge.attention_kernels"), sorted({0, heads - 1})
    split = [t.detach().unflatten(-1, (heads, -1)) for t in (*inputs, gradient)]
    plain = [plain_gradients(*(t[0, :, head].float() for t in split)) for head in compared]
    largest = 0.0
    for ours, *theirs in zip(found, *plain, strict=True):
        ours = ours.unflatten(-1, (heads, -1))[:, :, compared].flatten(2)
        largest = max(largest, module.deviation(ours, torch.cat(theirs, -1)[None], len(compared)))
    return largest


def plain_gradients(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, gradient: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return dq, dk and dv of softmax(q k^T) v for one head, all [tokens, width]; a few queries at a time."""
    rows, dk, dv = [], torch.zeros_like(k), torch.zeros_like(v)
    for few, outer in zip(q.split(QUERIES_AT_ONCE), gradient.split(QUERIES_AT_ONCE), strict=True):
        inputs = [t.clone().requires_grad_() for t in (few, k, v)]
        with torch.enable_grad():
            out = (inputs[0] @ inputs[1].mT * few.shape[-1] ** -0.5).softmax(-1) @ inputs[2]
        row, *sums = torch.autograd.grad(out, inputs, outer)
        rows.append(row)
        dk, dv = dk + sums[0], dv + sums[1]
    return torch.cat(rows), dk, dv


def _inputs(bench: Bench, queries: int, keys: int, backward: bool) -> list[torch.Tensor]:
    """Return q, k and v; drawn numbers follow from the shape, so each is turned in another way lest two of them be equal."""
    q, k, v = (normal(bench, 1, tokens, bench.shapes.dim) for tokens in (queries, keys, keys))
    return [t.requires_grad_(backward) for t in (q, k.flip(1), v.flip(2))]


def _comfys(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    return _pytorchs()(q, k, v, heads)


def _pytorchs() -> Callable:
    """Return ComfyUI's attention by PyTorch, without overrides."""
    import comfy.ldm.modules.attention

    return comfy.ldm.modules.attention.attention_pytorch.__wrapped__
