"""Kernels that compute exact attention, which of them may be compared for given inputs, and how far one differs from another.

Candidates are PyTorch's own kernels, FlashAttention 3 where a package with it is installed, and every attention function that
is registered with ComfyUI (sage, flash, the 8-bit one of newer versions). Which are exact is not assumed but measured.

Source: https://github.com/pytorch/pytorch/pull/171532 (cuDNN before 9.15.1 and lengths that 128 does not divide); ComfyUI's
comfy/ldm/modules/attention.py, register_attention_function.
"""

import functools
import importlib
import importlib.util
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, packages_distributions, version

import comfy.ldm.modules.attention
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

Attend = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int], torch.Tensor]  # q, k, v, heads
# see deviation(); measured on a CPU: exact kernels up to 0.0055 in bf16 and 0.0005 in fp16, 8-bit ones from 0.018
MAX_DEVIATION = {torch.bfloat16: 0.01, torch.float16: 0.0015}
EXACT_CUDNN = 91501  # 9.15.1, as torch.backends.cudnn.version() gives it
CUDNN_TILE = 128
FLASH_3 = ("flash_attn_interface", "fa3_fwd_interface")  # modules with flash_attn_func of FlashAttention 3
REGISTERED = ("sageattention", "sageattn3", "flash_attn", "xformers", "comfy_kitchen")  # what registered functions may call
SLOWER = {"pytorch", "sub_quad", "split"}  # ComfyUI's own choice here, and what it has for GPUs without kernels
_CHUNK = 4096  # tokens
_log = logging.getLogger(__name__)


def always(q: torch.Tensor, k: torch.Tensor) -> bool:
    """Any length is welcome."""
    return True


@dataclass(frozen=True)
class Kernel:
    """One way to attend.

    Attributes:
        attend: returns attention [B, tokens, heads * width] from q, k, v of that shape; raises where it does not run.
        takes: whether it may be compared for q and k.
        release: of the package that holds it; empty for PyTorch's.
    """

    attend: Attend
    takes: Callable[[torch.Tensor, torch.Tensor], bool] = always
    release: str = ""


def known_kernels() -> dict[str, Kernel]:
    """Return the candidates of this process by name."""
    return {
        "cudnn": Kernel(functools.partial(attend_by, SDPBackend.CUDNN_ATTENTION), cudnn_is_exact),
        "flash": Kernel(functools.partial(attend_by, SDPBackend.FLASH_ATTENTION)),
        **_flash_3(),
        **_registered(),
    }


def cudnn_is_exact(q: torch.Tensor, k: torch.Tensor) -> bool:
    """Whether cuDNN's kernel is exact for q, k [B, tokens, ...]: by its version, or at lengths that fill its tiles."""
    if (torch.backends.cudnn.version() or 0) >= EXACT_CUDNN:
        return True
    return q.shape[1] % CUDNN_TILE == 0 and k.shape[1] % CUDNN_TILE == 0


def attend_by(kernel: SDPBackend, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """Return attention [B, tokens, heads * width] by one of PyTorch's kernels.

    Raises:
        RuntimeError: the kernel does not support this device or shape.
    """
    split = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    with sdpa_kernel(kernel):
        out = scaled_dot_product_attention(*split)
    return out.transpose(1, 2).flatten(2)


def deviation(found: torch.Tensor, expected: torch.Tensor, heads: int) -> float:
    """Return the largest difference of any token in any head, relative to its size or, if larger, to the head's usual size.

    Both are [B, tokens, heads * width]. NaN, infinity and another shape are an infinite deviation. One number for all tokens
    would hide a kernel that is wrong in its last tile only.
    """
    if found.shape != expected.shape:
        return math.inf
    sizes, differences = [], []
    for ours, theirs in zip(found.split(_CHUNK, 1), expected.split(_CHUNK, 1), strict=True):
        ours, theirs = (t.float().unflatten(-1, (heads, -1)) for t in (ours, theirs))
        sizes.append(theirs.norm(dim=-1))
        differences.append((ours - theirs).norm(dim=-1))
    size = torch.cat(sizes, 1)
    usual = size.square().mean(1, keepdim=True).sqrt()
    largest = float((torch.cat(differences, 1) / torch.maximum(size, usual)).max())
    return largest if math.isfinite(largest) else math.inf


@functools.cache
def _flash_3() -> dict[str, Kernel]:
    """Return FlashAttention 3 of the first package that imports."""
    for name in FLASH_3:
        if importlib.util.find_spec(name) is None:
            continue
        try:
            attend = importlib.import_module(name).flash_attn_func
        except Exception as error:  # built for another PyTorch, CUDA or Python
            _log.warning("SVI: %s is installed but does not import (%s); it is not compared.", name, error)
            continue
        return {"flash 3": Kernel(functools.partial(_attend_by_flash_3, attend), release=_release(name))}
    return {}


def _attend_by_flash_3(attend: Callable, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    out = attend(*(t.unflatten(-1, (heads, -1)) for t in (q, k, v)))
    return (out[0] if isinstance(out, tuple) else out).flatten(2)  # some releases return the log-sum-exp too


def _registered() -> dict[str, Kernel]:
    """Return the functions that are registered with ComfyUI, by ComfyUI or by a pack."""
    functions = comfy.ldm.modules.attention.REGISTERED_ATTENTION_FUNCTIONS
    release = ", ".join(_release(name) for name in REGISTERED if importlib.util.find_spec(name))
    return {f"ComfyUI's {name}": Kernel(attend, release=release) for name, attend in functions.items() if name not in SLOWER}


def _release(module: str) -> str:
    """Return name and version of the package that holds a module."""
    for package in packages_distributions().get(module, ()):
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    return module
