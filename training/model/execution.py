"""How the model runs on this machine: dtypes, matrix multiplication and attention kernels, found by tracing one block."""

import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.model.adapters import LoraAdapters
from training.model.backbone import TEXT_TOKENS, Backbone


@dataclass(frozen=True)
class Execution:
    """How a loaded model runs.

    Attributes:
        weights: dtypes of the linear layers' stored weights, with counts.
        matmul: the operators of the linear layers that one block called, forward and backward: `addmm` and `mm` on plain
            numbers, `_scaled_mm` on fp8, `comfy_kitchen::...` where numbers are quantised or dequantised.
        attention: the attention kernels that one block called.
        compute: dtype of the activations.
    """

    weights: str
    matmul: str
    attention: str
    compute: str

    @property
    def multiplies_in_fp8(self) -> bool:
        """Whether any product runs on fp8 numbers: the activations are quantised then too."""
        return "scaled_mm" in self.matmul or "::quantize_fp8" in self.matmul


def describe_execution(backbone: Backbone, num_tokens: int = 256) -> Execution:
    """Return how the model's blocks run, from their layers and from tracing one block on random tokens.

    Call it before :meth:`Backbone.use_memory`. It moves the first block to the device.

    Raises:
        ValueError: the chosen attention kernel cannot run here.
    """
    kinds = Counter(map(_storage_of, _linear_weights(backbone.transformer.blocks)))
    weights = ", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items()))
    try:
        operators = _traced_operators(backbone, num_tokens)
    except RuntimeError as error:
        raise ValueError(f"memory.attention is {backbone.attention!r}, which cannot run here ({error}): use 'auto'.") from error
    attention = sorted(name for name in operators if "scaled_dot_product" in name and name != "scaled_dot_product_attention")
    matmul = sorted(name for name in operators if name in ("mm", "addmm") or "scaled_mm" in name or "comfy_kitchen" in name)
    return Execution(weights, ", ".join(matmul), ", ".join(attention), str(backbone.compute_dtype).removeprefix("torch."))


def _traced_operators(backbone: Backbone, num_tokens: int) -> set[str]:
    """Return the names of the operators that one block's forward and backward call."""
    with torch.autograd.profiler.profile(use_kineto=False) as trace, torch.enable_grad():
        _run_block(backbone, 0, num_tokens).sum().backward()
    return {event.key.removeprefix("aten::") for event in trace.key_averages() if "::" in event.key}


def require_lora_runs(backbone: Backbone, lora: LoraAdapters) -> None:
    """Check that ComfyUI calls every layer of its blocks that carries a pair of `lora`: only then is the pair's term added.

    A ComfyUI may fold a layer into another operation, as 0.33 does with INT8 layers outside training. One block of each
    combination of stored dtypes runs, as in training and as in sample videos; it moves to the device. Call it before
    :meth:`Backbone.use_memory`.

    Raises:
        ValueError: a layer is not called.
    """
    first_of_kind: dict[tuple[str, ...], int] = {}
    for index, block in enumerate(backbone.transformer.blocks):
        first_of_kind.setdefault(tuple(map(_storage_of, _linear_weights(block))), index)
    called: set[str] = set()
    marks = [pair.register_forward_pre_hook(lambda *_, name=name: called.add(name)) for name, pair in lora.pairs.items()]
    try:
        for index, has_graph in itertools.product(first_of_kind.values(), (True, False)):
            called.clear()
            with torch.set_grad_enabled(has_graph):
                _run_block(backbone, index, num_tokens=8)
            if missed := [name for name in lora.pairs if name.startswith(f"blocks.{index}.") and name not in called]:
                raise ValueError(
                    f"this ComfyUI computes {missed[0]} of {backbone.name} without calling the layer, so a LoRA on it would do "
                    "nothing: leave it out of lora.targets, use another file of the model, or use another version of ComfyUI."
                )
    finally:
        for mark in marks:
            mark.remove()


def _run_block(backbone: Backbone, index: int, num_tokens: int) -> Tensor:
    """Return the output of a block for random tokens, which require gradients where they are enabled."""
    transformer = backbone.transformer
    x = torch.zeros(1, num_tokens, transformer.dim, device=backbone.device, dtype=backbone.compute_dtype)
    x.normal_(generator=torch.Generator(backbone.device).manual_seed(0))
    e = torch.zeros(1, 1, 6, transformer.dim, device=backbone.device, dtype=backbone.compute_dtype)
    freqs = transformer.rope_encode(1, 2, 2 * num_tokens, device=backbone.device, dtype=backbone.compute_dtype)
    options = {"optimized_attention_override": backbone.attend}
    context_img_len = 257 if backbone.needs_clip_vision else None
    context = x[:, :1].expand(1, TEXT_TOKENS + (context_img_len or 0), -1).contiguous()
    return transformer.blocks[index].to(backbone.device)(
        x.requires_grad_(), e=e, freqs=freqs, context=context, context_img_len=context_img_len, transformer_options=options
    )


def _linear_weights(module: nn.Module) -> Iterator[Tensor]:
    for layer in module.modules():
        if hasattr(layer, "in_features") and isinstance(weight := getattr(layer, "weight", None), Tensor):
            yield weight


def _storage_of(weight: Tensor) -> str:
    """Return the dtype of a stored weight; ComfyUI's quantised tensors keep the dtype they compute in apart from it."""
    stored = getattr(weight, "storage_dtype", None)
    return f"scaled {stored}".replace("torch.", "") if stored else str(weight.dtype).removeprefix("torch.")
