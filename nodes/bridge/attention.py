"""Choose the fastest exact attention kernel for each shape by timing PyTorch's kernels once.

ComfyUI asks PyTorch for FlashAttention 2 first, but on some GPUs (Hopper) cuDNN's kernel is much faster. The best kernel
depends on GPU, driver and shape. So the first attention of each shape times every kernel on its real inputs, and the process
keeps the winner. Attention that the user chose (--use-sage-attention, --use-flash-attention, xformers, another node's
override) is left alone, and so is the CPU. For torch.compile (TorchCompileModel) the choice is one opaque operator; otherwise
the timing would be compiled too and would break the graph in every block.

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
MIN_TOKENS = 1024  # below this the kernel does not matter
DTYPES = (torch.bfloat16, torch.float16)  # of the exact kernels
CLEAR_GAIN = 0.95  # of ComfyUI's time; kernels differ in the last bits, so small gains must not switch
_TIMED_RUNS = 2
_log = logging.getLogger(__name__)
Attend = Callable[[], torch.Tensor]


def gpu_milliseconds(attend: Attend) -> float:
    """Return the mean time of `attend` on the current CUDA stream, after a warm-up run."""
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
    """An attention override for ComfyUI that calls the fastest kernel for each shape.

    Attributes:
        kernels: exact kernels to compare with ComfyUI's choice.
        milliseconds: times a kernel.
        device_type: the device on which kernels are compared.
        chosen: the winner's name by (device, dtype, heads, shape of q, shape of k).
    """

    kernels: Mapping[str, SDPBackend] = field(default_factory=lambda: EXACT_KERNELS)
    milliseconds: Callable[[Attend], float] = gpu_milliseconds
    device_type: str = "cuda"
    chosen: dict[tuple, str] = field(default_factory=dict)

    def __call__(self, func: Callable, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, *rest, **options):
        """Attend with q, k, v [B, tokens, heads * width]; `func` is ComfyUI's own choice."""
        theirs = functools.partial(func, q, k, v, heads, *rest, **options)
        if not self._may_choose(func, q, rest, options):
            return theirs()
        if torch.compiler.is_compiling():
            return torch.ops.svi.fastest_attention(q, k, v, heads)
        shape = (q.device, q.dtype, heads, q.shape, k.shape)
        ways = {name: functools.partial(_attend, kernel, q, k, v, heads) for name, kernel in self.kernels.items()}
        if shape not in self.chosen:
            self.chosen[shape] = self._fastest({COMFYUI: theirs, **ways}, shape)
        return ways.get(self.chosen[shape], theirs)()

    def _may_choose(self, func: Callable, q: torch.Tensor, rest: tuple, options: dict) -> bool:
        """Whether ComfyUI would call PyTorch's plain attention, on a GPU, with enough tokens to matter."""
        plain = not rest and all(value is None or name in _KNOWN for name, value in options.items())
        is_large = q.ndim == 3 and q.shape[1] >= MIN_TOKENS and q.dtype in DTYPES
        return plain and is_large and q.device.type == self.device_type and func is _pytorchs()

    def _fastest(self, ways: Mapping[str, Attend], shape: tuple) -> str:
        """Return the name of the fastest of `ways`, or ComfyUI's unless another is clearly faster."""
        times = {}
        for name, attend in ways.items():
            try:
                times[name] = self.milliseconds(attend)
            except RuntimeError as error:  # unsupported by the GPU or for this shape, or out of memory
                if name == COMFYUI:
                    raise
                _log.debug("SVI: the %s attention kernel cannot be used here (%s)", name, error)
        best = min(times, key=times.get)
        if times[best] > CLEAR_GAIN * times[COMFYUI]:
            best = COMFYUI
        listed = ", ".join(f"{name} {time:.2f} ms" for name, time in times.items())
        _log.info("SVI: attention over %d x %d tokens: %s; using %s.", shape[3][1], shape[4][1], listed, best)
        return best


def with_fastest_attention(model):
    """Return a clone of the MODEL that uses :data:`FASTEST`, or `model` itself if it already has an override."""
    if OVERRIDE in model.model_options["transformer_options"] or model.load_device.type != FASTEST.device_type:
        return model
    _operator()
    clone = model.clone()
    clone.model_options["transformer_options"][OVERRIDE] = FASTEST
    return clone


_KNOWN = {"transformer_options", "_inside_attn_wrapper", "attn_precision"}  # keywords that PyTorch's attention ignores


def _pytorchs() -> Callable:
    """Return the function that ComfyUI passes to an override for PyTorch's attention."""
    return comfy.ldm.modules.attention.attention_pytorch.__wrapped__


def _attend(kernel: SDPBackend, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """Return attention [B, tokens, heads * width] by one kernel.

    Raises:
        RuntimeError: the kernel does not support this device or shape.
    """
    split = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    with sdpa_kernel(kernel):
        out = scaled_dot_product_attention(*split)
    return out.transpose(1, 2).flatten(2)


FASTEST = FastestAttention()


@functools.cache
def _operator() -> torch.library.CustomOpDef:
    """Register :data:`FASTEST` for the compiler as one operator. It takes as long as importing the whole pack."""
    operator = torch.library.custom_op("svi::fastest_attention", _opaque_attention, mutates_args=())
    operator.register_fake(lambda q, k, v, heads: q.new_empty(q.shape))
    return operator


def _opaque_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """Return the attention of :data:`FASTEST` for q, k, v [B, tokens, heads * width]."""
    return FASTEST(_pytorchs(), q, k, v, heads).contiguous()
