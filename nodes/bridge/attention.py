"""The fastest exact attention kernel of the device for each shape, found by timing PyTorch's own kernels once.

ComfyUI asks PyTorch for FlashAttention 2 first, on every GPU. On some (Hopper) cuDNN's kernel does the same sum much faster.
Which one it is depends on GPU, driver and shape, so it is measured: the first attention of each shape runs every kernel on
its real queries, keys and values, the winner is kept for the life of the process. Attention that the user chose otherwise
(--use-sage-attention, --use-flash-attention, xformers, an override of another node) is left alone, and so is the CPU.

In a compiled model (ComfyUI's TorchCompileModel) the choice is one operator that the compiler does not look into. Otherwise it
would compile the timing too, and cut every block into pieces around it.

Source: docs/METHOD.md, 11.1 (what the wrong kernel costs); ComfyUI's comfy/ldm/modules/attention.py, wrap_attn.
"""

import functools
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import comfy.ldm.modules.attention
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

OVERRIDE = "optimized_attention_override"
EXACT_KERNELS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}
COMFYUI = "ComfyUI's"
MIN_TOKENS = 1024  # below, the kernel does not matter
DTYPES = (torch.bfloat16, torch.float16)  # that the exact kernels take
CLEAR_GAIN = 0.95  # of ComfyUI's time: results differ in the last bit between kernels, so a close race must not decide
_TIMED_RUNS = 2
_log = logging.getLogger(__name__)
Attend = Callable[[], torch.Tensor]


def gpu_milliseconds(attend: Attend) -> float:
    """Return the mean time of `attend` on the current CUDA stream, after one run that is not counted."""
    attend()
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(_TIMED_RUNS):
        attend()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / _TIMED_RUNS


@dataclass
class FastestAttention:
    """ComfyUI's override of attention: calls the kernel that was fastest for the shape at hand.

    Attributes:
        kernels: what is compared with ComfyUI's own choice; all of them exact.
        milliseconds: how a kernel is timed.
        device_type: where kernels are compared at all.
        chosen: the name of the winner by (device, dtype, heads, shape of q, shape of k).
    """

    kernels: Mapping[str, SDPBackend] = field(default_factory=lambda: EXACT_KERNELS)
    milliseconds: Callable[[Attend], float] = gpu_milliseconds
    device_type: str = "cuda"
    chosen: dict[tuple, str] = field(default_factory=dict)

    def __call__(self, func: Callable, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, *rest, **options):
        """Attend with q, k, v [B, tokens, heads * width]; `func` is the attention that ComfyUI was about to call."""
        theirs = functools.partial(func, q, k, v, heads, *rest, **options)
        if not self._may_choose(func, q, rest, options):
            return theirs()
        if torch.compiler.is_compiling():
            return _not_looked_into(q, k, v, heads)
        shape = (q.device, q.dtype, heads, q.shape, k.shape)
        ways = {name: functools.partial(_attend, kernel, q, k, v, heads) for name, kernel in self.kernels.items()}
        if shape not in self.chosen:
            self.chosen[shape] = self._fastest({COMFYUI: theirs, **ways}, shape)
        return ways.get(self.chosen[shape], theirs)()

    def _may_choose(self, func: Callable, q: torch.Tensor, rest: tuple, options: dict) -> bool:
        """Whether this is plain attention that ComfyUI would give to PyTorch, on a GPU, and large enough to matter."""
        plain = not rest and all(value is None or name in _KNOWN for name, value in options.items())
        is_large = q.ndim == 3 and q.shape[1] >= MIN_TOKENS and q.dtype in DTYPES
        return plain and is_large and q.device.type == self.device_type and func is _pytorchs()

    def _fastest(self, ways: Mapping[str, Attend], shape: tuple) -> str:
        """Return the name of the fastest of `ways`; ComfyUI's, unless another is clearly faster."""
        times = {}
        for name, attend in ways.items():
            try:
                times[name] = self.milliseconds(attend)
            except RuntimeError as error:  # a kernel that this GPU or this shape does not have, or that needs too much memory
                if name == COMFYUI:
                    raise
                _log.debug("SVI: the %s attention kernel cannot be used here (%s)", name, error)
        best = min(times, key=times.get)
        if times[best] > CLEAR_GAIN * times[COMFYUI]:
            best = COMFYUI
        told = ", ".join(f"{name} {time:.2f} ms" for name, time in times.items())
        _log.info("SVI: attention over %d x %d tokens: %s; using %s.", shape[3][1], shape[4][1], told, best)
        return best


def with_fastest_attention(model):
    """Return a clone of the MODEL that uses :data:`FASTEST`, or `model` itself where another override is on it already.

    The clone has the patches of `model`, so ComfyUI keeps its weights as they are.
    """
    if OVERRIDE in model.model_options["transformer_options"] or model.load_device.type != FASTEST.device_type:
        return model
    clone = model.clone()
    clone.model_options["transformer_options"][OVERRIDE] = FASTEST
    return clone


_KNOWN = {"transformer_options", "_inside_attn_wrapper", "attn_precision"}  # keywords that PyTorch's attention does not read


def _pytorchs() -> Callable:
    """Return what ComfyUI hands to an override when it is about to use PyTorch's attention."""
    return comfy.ldm.modules.attention.attention_pytorch.__wrapped__


def _attend(kernel: SDPBackend, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """Return attention [B, tokens, heads * width] by one kernel.

    Raises:
        RuntimeError: the kernel cannot be used for this device or shape.
    """
    split = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    with sdpa_kernel(kernel):
        out = scaled_dot_product_attention(*split)
    return out.transpose(1, 2).flatten(2)


FASTEST = FastestAttention()


@torch.library.custom_op("svi::fastest_attention", mutates_args=())
def _not_looked_into(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """Return what :data:`FASTEST` makes of q, k, v [B, tokens, heads * width]; to a compiler this is one operator."""
    return FASTEST(_pytorchs(), q, k, v, heads).contiguous()


@_not_looked_into.register_fake
def _(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """Return a tensor like the result, for a compiler that only asks for its shape."""
    return q.new_empty(q.shape)
