"""One pass of the transformer over a clip with each attention kernel: the figure that published ones can be compared with.

In bf16 as they are, then as ComfyUI runs a scaled-fp8 file by itself (fp16 on most GPUs). For products in bf16 the fp8 weights
are widened in each layer, which reads and writes them once more: 16 ms of a pass on an H200.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.gpu.bench import Bench, Measured, kept
from benchmarks.gpu.comfyui import pack_module
from benchmarks.gpu.kernels import normal
from benchmarks.gpu.shapes import TEXT_TOKENS
from benchmarks.gpu.weights import expert_file

SIGMA = 0.5
COMFYUIS, PACKS = "ComfyUI's choice", "the pack's choice"
Override = Callable[..., torch.Tensor] | None
_plain: dict[tuple, torch.Tensor] = {}  # what ComfyUI's choice gave in this process, by dtype and products


@dataclass(frozen=True)
class Way:
    """How a pass is computed.

    Attributes:
        dtype: of activations; None: as ComfyUI chooses.
        fp8: whether products are in fp8.
        attention: COMFYUIS, PACKS, or a kernel.
        runs: passes; the first one of a kind, which fills caches or compares kernels, is shown as "most".
    """

    dtype: torch.dtype | None
    fp8: bool
    attention: str
    runs: int = 1

    def __str__(self) -> str:
        activations = "ComfyUI's dtype" if self.dtype is None else "bf16"
        return f"{'fp8' if self.fp8 else 'bf16'} products, {activations}, {self.attention}"


def measure(bench: Bench) -> None:
    """Measure the rows of this stage."""
    kernels = pack_module("nodes.bridge.attention_kernels").known_kernels()
    ways = [Way(torch.bfloat16, True, name, runs=2) for name in (COMFYUIS, PACKS)]  # the pack's has run every kernel
    ways += [Way(torch.bfloat16, True, name) for name in kernels]
    ways += [Way(None, True, COMFYUIS), Way(None, True, PACKS, runs=2)]
    ways += [Way(torch.bfloat16, False, name) for name in (COMFYUIS, PACKS)]
    for way in ways:
        bench.measure(str(way), functools.partial(pass_row, bench, way))


@kept
def expert(file: str) -> Any:
    """Return the expert as ComfyUI loads it, wholly on the device."""
    import comfy.model_management
    import comfy.sd

    with torch.inference_mode():
        patcher = comfy.sd.load_diffusion_model(file)
        comfy.model_management.load_models_gpu([patcher], force_full_load=True)
    return patcher


@torch.inference_mode()
def pass_row(bench: Bench, way: Way) -> Measured:
    """Return the seconds of a pass, its operations per second, and how far it is from ComfyUI's own."""
    model = expert(str(expert_file(bench.work, bench.shapes, bench.device))).model
    run = functools.partial(one_pass, bench, model, _override(way.attention))
    with _Computing(model, way):
        bench.reset_peak()
        outs: list[torch.Tensor] = []
        taken = bench.seconds(lambda: outs.append(run()), way.runs, warm_up=False)
        values = {
            "s": min(taken),
            "most": max(taken),
            "TFLOP/s": (bench.shapes.linear_tflop + bench.shapes.attention_tflop) / min(taken),
            "dtype": str(model.get_dtype_inference()).removeprefix("torch."),
            "peak GiB": bench.peak_gib(),
        }
    if way.attention == PACKS:
        values["chosen"] = ", ".join(dict.fromkeys(_pack_choice().chosen.values())) or "ComfyUI's"
    kind = (way.dtype, way.fp8)
    if way.attention == COMFYUIS:
        _plain[kind] = outs[-1]
    elif kind in _plain:
        values["deviation"] = float((outs[-1] - _plain[kind]).abs().max() / _plain[kind].abs().max())
    return Measured(values, [outs[-1]])


def one_pass(bench: Bench, model: Any, override: Override) -> torch.Tensor:
    """Return the denoised latent of one pass."""
    shape = bench.shapes.latent_shape
    latent = normal(bench, *shape, dtype=torch.float32)
    known = normal(bench, 1, 20, *shape[2:], dtype=torch.float32)
    text = normal(bench, 1, TEXT_TOKENS, bench.shapes.text_dim)
    options = {} if override is None else {"optimized_attention_override": override}
    sigma = torch.full((1,), SIGMA, device=bench.device)
    return model.apply_model(latent, sigma, c_concat=known, c_crossattn=text, transformer_options=options)


def _override(attention: str) -> Override:
    """Return the attention override of that name for ComfyUI; None for its own choice."""
    if attention == COMFYUIS:
        return None
    if attention == PACKS:
        return _pack_choice()
    kernel = pack_module("nodes.bridge.attention_kernels").known_kernels()[attention]

    def attend(func: Callable, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, *rest, **options):
        return kernel.attend(q, k, v, heads)

    return attend


@functools.cache
def _pack_choice() -> Any:
    """Return the pack's override with a memory of its own, which chooses anew in this process."""
    return pack_module("nodes.bridge.attention").FastestAttention()


class _Computing:
    """Let a model compute in one way within the block."""

    def __init__(self, model: Any, way: Way):
        from comfy.quant_ops import QuantizedTensor

        self.model, self.way, self.manual = model, way, model.manual_cast_dtype
        layers = [layer for layer in model.modules() if isinstance(getattr(layer, "weight", None), QuantizedTensor)]
        self.layers = {layer: (layer._full_precision_mm, layer.weight.dtype) for layer in layers}

    def __enter__(self) -> None:
        for layer, (is_plain, _) in self.layers.items():
            layer._full_precision_mm = is_plain or not self.way.fp8
            if self.way.dtype is not None:
                layer.to(dtype=self.way.dtype)  # of its output: the codes stay as they are
        if self.way.dtype is not None:
            self.model.manual_cast_dtype = self.way.dtype

    def __exit__(self, *_) -> None:
        self.model.manual_cast_dtype = self.manual
        for layer, (is_plain, dtype) in self.layers.items():
            layer._full_precision_mm = is_plain
            layer.to(dtype=dtype)
