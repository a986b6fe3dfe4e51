"""Choose the fastest exact attention kernel for each shape by comparing and timing all candidates once.

ComfyUI asks PyTorch for FlashAttention 2 first, but on some GPUs (Hopper) other kernels are much faster. The best one depends
on GPU, driver and shape. So the first attention of each shape runs every candidate on its real inputs, and on sharper ones, as
later blocks have them; one that differs from ComfyUI's result by more than rounding is out, the fastest of the others is kept,
on disk too. Attention that the user chose
(--use-sage-attention, --use-flash-attention, xformers, another node's override) is left alone, and so is the CPU; with the
environment variable SVI_ATTENTION=off nothing is installed, and ComfyUI alone chooses. For torch.compile (TorchCompileModel)
the choice is one opaque operator; otherwise the timing would be compiled too and would break the graph in every block.

Source: docs/METHOD.md, 11.1 (what the wrong kernel costs); ComfyUI's comfy/ldm/modules/attention.py, wrap_attn.
"""

import functools
import logging
import os
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import comfy.ldm.modules.attention
import torch

from ...svi_core.out_of_memory import is_out_of_memory
from .attention_choices import StoredChoices
from .attention_kernels import MAX_DEVIATION, Kernel, deviation, known_kernels
from .requirements import comfyui_version

OVERRIDE = "optimized_attention_override"
SETTING = "SVI_ATTENTION"
COMFYUI = "ComfyUI's"
DRIVER_FILE = Path("/proc/driver/nvidia/version")  # on Linux
MIN_TOKENS = 1024  # below this the kernel does not matter
CLEAR_GAIN = 0.95  # of ComfyUI's time; kernels differ in the last bits, so small gains must not switch
SHARPNESS = (1.0, 3.0)  # factors of q: over sharp attention 8-bit kernels differ by 0.08, exact ones as little as before
_TIMED_RUNS = 5
# Several GPUs sample in several threads. Timing beside another would mislead, and PyTorch's choice of kernels, which candidates
# and ComfyUI set while they attend, is the whole process's. A GPU works on what it was given while others are given theirs.
_one_at_a_time = threading.RLock()
_log = logging.getLogger(__name__)
Attend = Callable[[], torch.Tensor]
AttendWith = Callable[[torch.Tensor], torch.Tensor]  # for given queries


def gpu_milliseconds(attend: Attend) -> float:
    """Return the median time of `attend` on the current CUDA stream, after a warm-up run."""
    attend()
    times = []
    for _ in range(_TIMED_RUNS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        attend()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end))
    return median(times)


@dataclass(frozen=True)
class Comparison:
    """What the candidates of one shape took.

    Attributes:
        times: milliseconds of ComfyUI's choice and of each kernel that gives the same.
        refused: why each of the others is out: by how much it differs, or its error.
    """

    times: Mapping[str, float]
    refused: Mapping[str, str | Exception]

    @property
    def is_lasting(self) -> bool:
        """Whether another process would choose the same: not if a kernel lacked memory."""
        return not any(isinstance(why, Exception) and is_out_of_memory(why) for why in self.refused.values())

    @property
    def best(self) -> str:
        """The fastest, or ComfyUI's unless another is clearly faster."""
        best = min(self.times, key=self.times.get)
        return best if self.times[best] <= CLEAR_GAIN * self.times[COMFYUI] else COMFYUI

    def __str__(self) -> str:
        told = [f"{name} {time:.2f} ms" for name, time in self.times.items()]
        for name, why in self.refused.items():
            told.append(f"{name} {why}" if isinstance(why, str) else f"{name} does not run here ({type(why).__name__})")
        return f"{', '.join(told)}; using {self.best}."


@dataclass
class FastestAttention:
    """An attention override for ComfyUI that calls the fastest exact kernel for each shape.

    Attributes:
        kernels: returns the candidates.
        milliseconds: times a kernel.
        device_type: the device on which kernels are compared.
        stored: choices of other processes; None compares anew in each process.
        chosen: the winner's name by (device, dtype, heads, shape of q, shape of k).
    """

    kernels: Callable[[], Mapping[str, Kernel]] = known_kernels
    milliseconds: Callable[[Attend], float] = gpu_milliseconds
    device_type: str = "cuda"
    stored: StoredChoices | None = None
    chosen: dict[tuple, str] = field(default_factory=dict)

    def __call__(self, func: Callable, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, *rest, **options):
        """Attend with q, k, v [B, tokens, heads * width]; `func` is ComfyUI's own choice."""
        may_choose = self._may_choose(func, q, rest, options)
        if torch.compiler.is_compiling():
            return torch.ops.svi.fastest_attention(q, k, v, heads) if may_choose else func(q, k, v, heads, *rest, **options)
        with _one_at_a_time:
            if may_choose and (out := self._attend(func, q, k, v, heads, options)) is not None:
                return out
            return func(q, k, v, heads, *rest, **options)

    def _attend(
        self, func: Callable, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int, options: dict
    ) -> torch.Tensor | None:
        """Return attention by the kernel that is chosen for this shape; None if that is ComfyUI's."""
        shape = (q.device, q.dtype, heads, q.shape, k.shape)
        if shape not in self.chosen:
            self.chosen[shape] = self._choose(lambda queries: func(queries, k, v, heads, **options), q, k, v, heads)
        if self.chosen[shape] == COMFYUI:
            return None
        try:
            return self._candidates[self.chosen[shape]].attend(q, k, v, heads)
        except Exception as error:  # chosen before an update, say, or on other data
            if is_out_of_memory(error):
                raise
            self._give_up(shape, error)
        return None

    def _may_choose(self, func: Callable, q: torch.Tensor, rest: tuple, options: dict) -> bool:
        """Whether ComfyUI would call PyTorch's plain attention, on a GPU, with enough tokens to matter."""
        plain = not rest and all(value is None or name in _KNOWN for name, value in options.items())
        is_large = q.ndim == 3 and q.shape[1] >= MIN_TOKENS and q.dtype in MAX_DEVIATION
        return plain and is_large and q.device.type == self.device_type and func is _pytorchs()

    @functools.cached_property
    def _candidates(self) -> Mapping[str, Kernel]:
        return self.kernels()

    def _choose(self, theirs: AttendWith, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> str:
        """Return the name of the kernel for this shape: the stored one, or the winner of a comparison, which is stored.

        A comparison takes more memory than attention; where that is lacking, this process leaves the shape to ComfyUI.
        """
        candidates = {name: kernel for name, kernel in self._candidates.items() if kernel.takes(q, k)}
        place, over = self._place(q.device, q.dtype, heads, q.shape, k.shape), _over(q.shape, k.shape)
        known = self.stored and self.stored.get(*place)
        if known == COMFYUI or known in candidates:
            _log.info("%s: using %s, as chosen before.", over, known)
            return known
        ways = {name: functools.partial(_with, kernel, k, v, heads) for name, kernel in candidates.items()}
        try:
            compared = self._compare(theirs, ways, q, heads)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            _log.warning("%s: there is not enough memory to compare kernels; using %s.", over, COMFYUI)
            return COMFYUI
        _log.info("%s: %s", over, compared)
        if self.stored and compared.is_lasting:
            self.stored.put(*place, compared.best)
        return compared.best

    def _compare(self, theirs: AttendWith, ways: Mapping[str, AttendWith], q: torch.Tensor, heads: int) -> Comparison:
        """Run every way; only one whose results are ComfyUI's, up to rounding, is timed."""
        refused: dict[str, str | Exception] = {}
        for factor in SHARPNESS:
            left = {name: way for name, way in ways.items() if name not in refused}
            refused |= _refusals(theirs, left, q if factor == 1.0 else q * factor, heads)
        times = {COMFYUI: self.milliseconds(lambda: theirs(q))}
        for name, way in ways.items():
            if name not in refused:
                try:
                    times[name] = self.milliseconds(functools.partial(way, q))
                except Exception as error:
                    refused[name] = error
        return Comparison(times, refused)

    def _give_up(self, shape: tuple, error: Exception) -> None:
        """Leave a shape to ComfyUI from now on, since the kernel that was chosen for it failed."""
        _log.warning("%s: %s failed (%s); using %s from now on.", _over(*shape[3:]), self.chosen[shape], error, COMFYUI)
        self.chosen[shape] = COMFYUI
        if self.stored:
            self.stored.forget(*self._place(*shape))

    def _place(self, device: torch.device, dtype: torch.dtype, heads: int, queries: torch.Size, keys: torch.Size):
        """Return under which machine and shape a choice is stored."""
        return _machine(device, self._candidates), f"{dtype} {heads} heads {list(queries)} {list(keys)}"


def _refusals(
    theirs: AttendWith, ways: Mapping[str, AttendWith], queries: torch.Tensor, heads: int
) -> dict[str, str | Exception]:
    """Return by how much those ways differ that do not give ComfyUI's result, up to rounding, or their error."""
    expected, found = theirs(queries), {}
    for name, way in ways.items():
        try:
            differs = deviation(way(queries), expected, heads)
        except Exception as error:  # a kernel of any package, which does not support this GPU or shape
            found[name] = error
            _log.debug("SVI: %s cannot be used: %s", name, error)
            continue
        if differs > MAX_DEVIATION[queries.dtype]:
            found[name] = f"differs by {differs:.2g}"
    return found


def _with(kernel: Kernel, k: torch.Tensor, v: torch.Tensor, heads: int, q: torch.Tensor) -> torch.Tensor:
    return kernel.attend(q, k, v, heads)


def _over(queries: torch.Size, keys: torch.Size) -> str:
    return f"SVI: attention over {queries[1]} x {keys[1]} tokens"


def require_attention_setting() -> None:
    """Raise ValueError for a value of the environment variable that is none."""
    _is_off()


def with_fastest_attention(model):
    """Return a clone of the MODEL that uses :data:`FASTEST`; `model` itself if it has an override, or SVI_ATTENTION is off."""
    has_override = OVERRIDE in model.model_options["transformer_options"]
    if has_override or model.load_device.type != FASTEST.device_type or _is_off():
        return model
    _operator()
    clone = model.clone()
    clone.model_options["transformer_options"][OVERRIDE] = FASTEST
    return clone


def _is_off() -> bool:
    setting = os.environ.get(SETTING) or "fastest"
    if setting not in ("fastest", "off"):
        raise ValueError(f"The environment variable {SETTING} is {setting!r}: set it to fastest or off, or remove it.")
    return setting == "off"


_KNOWN = {"transformer_options", "_inside_attn_wrapper", "attn_precision"}  # keywords that PyTorch's attention ignores


def _pytorchs() -> Callable:
    """Return the function that ComfyUI passes to an override for PyTorch's attention."""
    return comfy.ldm.modules.attention.attention_pytorch.__wrapped__


def machine_name(device: torch.device) -> str:
    """Return what times depend on besides the code that is timed: device, driver, PyTorch, cuDNN, ComfyUI."""
    name, driver = device.type, ""
    if device.type == "cuda":
        name, driver = torch.cuda.get_device_name(device), f", driver{_driver()} for CUDA {torch._C._cuda_getDriverVersion()}"
    return f"{name}{driver}; PyTorch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}; {comfyui_version()}"


def _driver() -> str:
    """Return the version of NVIDIA's driver where the system shows it; elsewhere only the CUDA that it is for can be told."""
    try:
        found = re.search(r"\d+\.[\d.]+", DRIVER_FILE.read_text(encoding="utf-8"))
    except OSError:
        return ""
    return f" {found[0]}" if found else ""


def _machine(device: torch.device, candidates: Mapping[str, Kernel]) -> str:
    """Return what a choice depends on besides the shape: the machine, and the candidates with their packages."""
    listed = ", ".join(f"{name} ({kernel.release})" if kernel.release else name for name, kernel in candidates.items())
    return f"{machine_name(device)}; {listed}"


FASTEST = FastestAttention(stored=StoredChoices())


@functools.cache
def _operator() -> torch.library.CustomOpDef:
    """Register :data:`FASTEST` for the compiler as one operator. It takes as long as importing the whole pack."""
    operator = torch.library.custom_op("svi::fastest_attention", _opaque_attention, mutates_args=())
    operator.register_fake(lambda q, k, v, heads: q.new_empty(q.shape))
    return operator


def _opaque_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, heads: int) -> torch.Tensor:
    """Return the attention of :data:`FASTEST` for q, k, v [B, tokens, heads * width]."""
    return FASTEST(_pytorchs(), q, k, v, heads).contiguous()
