"""Speed-ups of a training step, and how much of a LoRA survives in fp8."""

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import torch
from torch.nn.functional import linear

from benchmarks.gpu.shapes import SHAPES
from benchmarks.gpu.weights import expert_file

RANK = 8
LORA_RANK = 128
CHANGES = 0.01  # of a LoRA, where weights have size 1


def attention_kept(sizes) -> tuple[Callable, Callable]:
    """Return the two ways; each returns (CPU seconds of forward and backward, gradients of the LoRA)."""
    return _steps(sizes, {}, {"keep_attention": True})


def kept_and_compiled(sizes) -> tuple[Callable, Callable]:
    """Return the two ways, both with kept attention, one with compiled blocks; see :func:`attention_kept`."""
    plain = torch.compile
    torch.compile = partial(plain, backend=sizes.compiler)
    try:
        return _steps(sizes, {"keep_attention": True}, {"keep_attention": True, "compile": True})
    finally:
        torch.compile = plain


def _steps(sizes, *settings: dict[str, bool]) -> tuple[Callable, Callable]:
    """Return a training step with each of the memory settings."""
    from training.model.conditions import Conditions

    shape = (16, sizes.num_slots, sizes.side, sizes.side)
    random = torch.Generator().manual_seed(0)
    noisy, known = (torch.randn(1, *shape, generator=random) for _ in range(2))
    conditions = Conditions(known, torch.zeros(1, 1, *shape[1:]), torch.randn(1, 7, 64, generator=random), None)

    def step(backbone, lora) -> tuple[float, list[torch.Tensor]]:
        for parameter in lora.parameters():
            parameter.grad = None
        began = time.process_time()
        backbone.velocity(noisy, torch.tensor([0.5]), conditions).square().mean().backward()
        return time.process_time() - began, [parameter.grad.clone() for parameter in lora.parameters()]

    before, after = (two_blocks(**memory) for memory in settings)
    return lambda: step(*before), lambda: step(*after)


def two_blocks(**memory: bool):
    """Return a transformer of two narrow blocks and its LoRA, with settings of training.settings.sections.MemoryConfig."""
    import comfy.model_management
    import comfy.ops
    from comfy.ldm.wan.model import WanModel

    from training.model.adapters import LoraAdapters
    from training.model.backbone import Backbone
    from training.settings.sections import MemoryConfig

    sizes = {"dim": 256, "ffn_dim": 512, "num_heads": 2, "num_layers": 2, "text_dim": 64}
    transformer = WanModel(model_type="t2v", in_dim=36, operations=comfy.ops.disable_weight_init, **sizes).requires_grad_(False)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in transformer.parameters():
            spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
            parameter.copy_(spread * torch.randn(parameter.shape, generator=random))
    comfy.model_management.in_training = True
    backbone = Backbone(transformer, SimpleNamespace(), torch.device("cpu"), torch.float32, "two blocks", "0" * 64)
    lora = LoraAdapters(transformer, rank=RANK, alpha=float(RANK), generator=random)
    with torch.no_grad():
        for pair in lora.pairs.values():
            pair.up.copy_(0.1 * torch.randn(pair.up.shape, generator=random))
    backbone.use_memory(lora.parameters()[0], MemoryConfig(**memory))
    return backbone, lora


def fp8_gradients(sizes) -> dict[str, object]:
    """Return how far a LoRA's gradients are off by products in fp8: forward only (before), and backward too (after).

    Both are norms relative to the gradients without such products, on a tiny expert of scaled fp8 weights; "deviation" is
    the distance of one from the other.
    """
    import comfy.model_management

    supports = comfy.model_management.supports_fp8_compute
    comfy.model_management.supports_fp8_compute = lambda device=None: True  # a CPU multiplies the same codes in fp32
    try:
        with tempfile.TemporaryDirectory() as folder:
            file = expert_file(Path(folder), SHAPES["tiny"], torch.device("cpu"))
            plain, forward, backward = (
                _lora_gradient(file, **options) for options in ({"fp8_matmul": False}, {}, {"fp8_backward": True})
            )
    finally:
        comfy.model_management.supports_fp8_compute = supports
        comfy.model_management.training_fp8_bwd = False

    def off(found: torch.Tensor, expected: torch.Tensor) -> float:
        return float((found - expected).norm() / expected.norm())

    return {"before": [off(forward, plain)], "after": [off(backward, plain)], "deviation": off(backward, forward)}


def _lora_gradient(file: Path, **options: bool) -> torch.Tensor:
    """Return the gradients of a LoRA on the model in `file`, in one vector, after one step's forward and backward pass."""
    from training.model.adapters import LoraAdapters
    from training.model.conditions import Conditions
    from training.model.loading import load_backbone
    from training.settings.sections import MemoryConfig

    backbone, random = load_backbone(file, device="cpu", **options), torch.Generator().manual_seed(8)
    lora = LoraAdapters(backbone.transformer, rank=RANK, alpha=float(RANK), generator=random)
    with torch.no_grad():
        for pair in lora.pairs.values():
            pair.up.copy_(0.1 * torch.randn(pair.up.shape, generator=random))
    backbone.use_memory(lora.parameters()[0], MemoryConfig())
    noisy, known = (torch.randn(1, 16, 3, 8, 8, generator=random) for _ in range(2))
    text = torch.randn(1, 7, SHAPES["tiny"].text_dim, generator=random)
    velocity = backbone.velocity(noisy, torch.tensor([0.5]), Conditions(known, torch.zeros(1, 1, 3, 8, 8), text, None))
    velocity.square().mean().backward()
    return torch.cat([parameter.grad.flatten() for parameter in lora.parameters()])


def lora_scaled(sizes) -> tuple[Callable, Callable]:
    """Return the two ways; each returns (CPU milliseconds of forward and backward, output and gradients)."""
    random = torch.Generator().manual_seed(2)
    shapes = ((sizes.num_tokens, sizes.dim), (LORA_RANK, sizes.dim), (sizes.dim, LORA_RANK), (sizes.num_tokens, sizes.dim))
    x, down, up, output = (torch.randn(shape, generator=random).requires_grad_() for shape in shapes)
    gradient = torch.randn(sizes.num_tokens, sizes.dim, generator=random)
    scale = 0.5

    def run(term: Callable[[], torch.Tensor]) -> tuple[float, list[torch.Tensor]]:
        began = time.process_time()
        result = output + term()
        gradients = torch.autograd.grad(result, (x, down, up), gradient)
        return 1e3 * (time.process_time() - began), [result.detach(), *gradients]

    return (
        lambda: run(lambda: linear(linear(x, down), up) * scale),
        lambda: run(lambda: linear(linear(x, down) * scale, up)),
    )


def fp8_share(sizes) -> dict[str, object]:
    """Return the share of a weight change that survives in fp8: rounded to nearest (before), and stochastically (after)."""
    import comfy.float

    random = torch.Generator().manual_seed(3)
    base = torch.randn(sizes.dim, sizes.dim, generator=random).to(torch.float8_e4m3fn).float()
    change = CHANGES * torch.randn(sizes.dim, sizes.dim, generator=random)

    def left(merged: torch.Tensor) -> float:
        return float(((merged.float() - base) * change).sum() / change.square().sum())

    nearest = left((base + change).to(torch.float8_e4m3fn))
    stochastic = left(comfy.float.stochastic_rounding(base + change, torch.float8_e4m3fn, seed=1))
    return {"before": [nearest], "after": [stochastic], "deviation": ""}
