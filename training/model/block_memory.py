"""Train a transformer in little memory: checkpointed blocks, offloaded inputs, swapped weights.

A block keeps only its input for the backward pass, which runs the block again. Where memory allows, it also keeps the output of
self-attention, its most expensive part. An autograd function of our own does this, not `torch.utils.checkpoint`, because a
swapped block needs its weights on the device twice: during its forward, and during its recomputation *and* backward together.
Source: docs/METHOD.md, 11.2 (what a 14B training step holds) and 12.4, traps 2, 4 and 10.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from training.settings.sections import MemoryConfig

FUSED_ATTENTION = frozenset(
    getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}").default
    for kernel in ("cudnn_attention", "flash_attention", "efficient_attention", "flash_attention_for_cpu")
)


class SwappedWeights:
    """The frozen weights of one block, in host memory except while :meth:`on_device` is open."""

    def __init__(self, block: nn.Module, device: torch.device):
        self._device = device
        self._places: list[tuple[nn.Module, str, nn.Parameter]] = []
        pin = device.type == "cuda"
        for module in block.modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is not None:
                    host = _of_each_part(parameter.data, lambda part: part.cpu().pin_memory() if pin else part.cpu())
                    module._parameters[name] = nn.Parameter(host, requires_grad=False)
                    self._places.append((module, name, module._parameters[name]))

    @contextmanager
    def on_device(self) -> Iterator[None]:
        """Use copies of the weights on the device."""
        for module, name, host in self._places:
            copy = _of_each_part(host.data, lambda part: part.to(self._device, copy=True, non_blocking=True))
            module._parameters[name] = nn.Parameter(copy, requires_grad=False)
        try:
            yield
        finally:
            for module, name, host in self._places:
                module._parameters[name] = host


class _Recomputed(torch.autograd.Function):
    """``run(x)`` that keeps only x for the backward pass, optionally in host memory, and optionally attention's outputs."""

    @staticmethod
    def forward(
        ctx, x: Tensor, trainable: Tensor, run: Callable[[Tensor], Tensor], hold, offload: bool, keep_attention: bool
    ) -> Tensor:
        """Run without a graph. `trainable` is any tensor that requires grad, which makes the output require grad too."""
        ctx.run, ctx.hold, ctx.device, ctx.again = run, hold, x.device, _nothing()
        ctx.stored = _to_host(x) if offload else x.detach()
        if not keep_attention:
            with torch.no_grad(), hold():
                return run(x)
        keeping, ctx.again = create_selective_checkpoint_contexts(_keeps)
        with torch.enable_grad(), hold(), keeping:  # without a graph the kernels skip what their backward needs
            return run(x.detach().requires_grad_(ctx.needs_input_grad[0])).detach()

    @staticmethod
    def backward(ctx, grad_output: Tensor):
        """Run again with a graph and backpropagate through it, which also gives the parameters inside `run` their gradients."""
        x = ctx.stored.to(ctx.device, non_blocking=True).detach().requires_grad_(ctx.needs_input_grad[0])
        ctx.stored = None
        with ctx.hold():
            with torch.enable_grad(), ctx.again:
                output = ctx.run(x)
            torch.autograd.backward(output, grad_output)
        return x.grad, None, None, None, None, None


def save_memory(block: nn.Module, device: torch.device, trainable: Tensor, memory: MemoryConfig, swap: bool) -> None:
    """Replace `block.forward` by one that needs less memory and computes the same values, bit for bit.

    Args:
        trainable: any tensor that requires grad: a block contains trained layers even where its input needs no gradient.
        memory: what to keep for the backward pass, and where.
        swap: keep this block's weights in host memory.

    Raises:
        ValueError: offloading or swapping is on without checkpointing.
    """
    if not memory.checkpointing:
        if memory.offload_block_inputs or swap:
            raise ValueError(
                "memory.checkpointing is off, but offload_block_inputs and swapped_blocks need it, since they recompute the "
                "block in the backward pass: turn it on."
            )
        return
    forward = block.forward
    hold = SwappedWeights(block, device).on_device if swap else _nothing

    def low_memory_forward(x: Tensor, **conditions) -> Tensor:
        def run(tokens: Tensor) -> Tensor:
            return forward(tokens, **conditions)

        if torch.is_grad_enabled():
            return _Recomputed.apply(x, trainable, run, hold, memory.offload_block_inputs, memory.keep_attention)
        with hold():
            return run(x)

    block.forward = low_memory_forward


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def _of_each_part(tensor: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return `change` of a tensor, or for a quantised tensor of each plain tensor inside it.

    A quantised tensor dequantises itself for operations that it does not know, such as `pin_memory`.
    """
    if not hasattr(tensor, "__tensor_flatten__"):
        return change(tensor)
    names, context = tensor.__tensor_flatten__()
    parts = {name: change(getattr(tensor, name)) for name in names}
    return type(tensor).__tensor_unflatten__(parts, context, tensor.size(), tensor.stride())


def _keeps(_context, operator, *inputs, **_options) -> CheckpointPolicy:
    """Keep the outputs of self-attention, which has as many queries as keys. Cross-attention is cheap, but as large."""
    if operator in FUSED_ATTENTION and inputs[0].shape[-2] == inputs[1].shape[-2]:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE


def _to_host(x: Tensor) -> Tensor:
    """Return a copy of `x` in host memory, pinned if `x` is on a GPU."""
    host = torch.empty(x.shape, dtype=x.dtype, device="cpu", pin_memory=x.is_cuda)
    return host.copy_(x)
