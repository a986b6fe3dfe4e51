"""Train a transformer in little memory: checkpointed blocks, offloaded inputs, swapped weights.

A block keeps only its input for the backward pass, which runs the block again. Where memory allows, it also keeps the output of
self-attention, its most expensive part. An autograd function of our own does this, not `torch.utils.checkpoint`, because a
swapped block needs its weights on the device twice: during its forward, and during its recomputation *and* backward together.
Source: docs/METHOD.md, 11.2 (what a 14B training step holds) and 12.4, traps 2, 4 and 10.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from training.model.host_memory import Shelf, SideStream, StoredInput, SwappedWeights
from training.settings.sections import MemoryConfig

FUSED_ATTENTION = frozenset(
    getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}").default
    for kernel in ("cudnn_attention", "flash_attention", "efficient_attention", "flash_attention_for_cpu")
)


class KeptAttention:
    """Lets a block's self-attention be computed once: what it gave in the forward pass serves the recomputation too.

    The block memory says where a block's results lie; the attention function asks for them by :meth:`around`. Only the kernel
    runs within PyTorch's selective checkpointing, so that the rest of a block may be compiled.
    """

    def __init__(self):
        self._results: AbstractContextManager = nullcontext()

    @contextmanager
    def using(self, results: AbstractContextManager) -> Iterator[None]:
        """Store self-attention in, or take it from, `results` within the block."""
        before, self._results = self._results, results
        try:
            yield
        finally:
            self._results = before

    def around(self, q: Tensor, k: Tensor) -> AbstractContextManager:
        """Return the context in which to attend; q, k: [..., tokens, width]. Cross-attention is cheap, but as large."""
        return self._results if q.shape[-2] == k.shape[-2] else nullcontext()


class _Recomputed(torch.autograd.Function):
    """``run(x)`` that keeps only x for the backward pass, optionally in host memory, and optionally attention's outputs."""

    @staticmethod
    def forward(
        ctx,
        x: Tensor,
        trainable: Tensor,
        run: Callable[[Tensor], Tensor],
        hold,
        shelf: Shelf | None,
        kept: KeptAttention | None,
    ) -> Tensor:
        """Run without a graph. `trainable` is any tensor that requires grad, which makes the output require grad too."""
        ctx.run, ctx.hold, ctx.again = run, hold, nullcontext()
        stored = x.detach() if shelf is None else StoredInput(x, shelf)
        ctx.take = stored.take if shelf is not None else lambda: stored
        if kept is None:
            with torch.no_grad(), hold():
                return run(x)
        keeping, again = create_selective_checkpoint_contexts(_keeps)
        ctx.again = kept.using(again)
        with torch.enable_grad(), hold(), kept.using(keeping):  # without a graph the kernels skip what their backward needs
            return run(x.detach().requires_grad_(ctx.needs_input_grad[0])).detach()

    @staticmethod
    def backward(ctx, grad_output: Tensor):
        """Run again with a graph and backpropagate through it, which also gives the parameters inside `run` their gradients."""
        x = ctx.take().detach().requires_grad_(ctx.needs_input_grad[0])
        ctx.take = None
        with ctx.hold(backward=True):
            with torch.enable_grad(), ctx.again:
                output = ctx.run(x)
            torch.autograd.backward(output, grad_output)
        return x.grad, None, None, None, None, None


class BlockMemory:
    """Arranges the blocks of one model, in the order in which they run."""

    def __init__(self, device: torch.device, trainable: Tensor, memory: MemoryConfig, kept: KeptAttention):
        """Prepare for a model on `device`.

        Args:
            trainable: any tensor that requires grad: a block contains trained layers even where its input needs no gradient.
            memory: what to keep for the backward pass, and where.
            kept: what the model's attention function asks, for `keep_attention`.
        """
        self._device, self._trainable, self._memory = device, trainable, memory
        self._kept = kept if memory.keep_attention else None
        self._side = SideStream(device)
        self._shelf = Shelf(self._side) if memory.offload_block_inputs else None
        self._swapped: SwappedWeights | None = None

    def save(self, block: nn.Module, swap: bool) -> None:
        """Replace `block.forward` by one that needs less memory and computes the same values, bit for bit.

        Args:
            swap: keep this block's weights in host memory.

        Raises:
            ValueError: offloading or swapping is on without checkpointing.
        """
        if not self._memory.checkpointing:
            if self._memory.offload_block_inputs or swap:
                raise ValueError(
                    "memory.checkpointing is off, but offload_block_inputs and swapped_blocks need it, since they recompute "
                    "the block in the backward pass: turn it on."
                )
            return
        forward, hold = block.forward, self._swap(block) if swap else _nothing

        def low_memory_forward(x: Tensor, **conditions) -> Tensor:
            def run(tokens: Tensor) -> Tensor:
                return forward(tokens, **conditions)

            if torch.is_grad_enabled():
                return _Recomputed.apply(x, self._trainable, run, hold, self._shelf, self._kept)
            with hold():
                return run(x)

        block.forward = low_memory_forward

    def _swap(self, block: nn.Module) -> Callable[..., AbstractContextManager]:
        swapped = SwappedWeights(block, self._device, self._side)
        if self._swapped is not None:
            swapped.follow(self._swapped)
        self._swapped = swapped
        return swapped.on_device


@contextmanager
def _nothing(backward: bool = False) -> Iterator[None]:
    yield


def _keeps(_context, operator, *_inputs, **_options) -> CheckpointPolicy:
    """Keep the outputs of fused attention."""
    return CheckpointPolicy.MUST_SAVE if operator in FUSED_ATTENTION else CheckpointPolicy.PREFER_RECOMPUTE
