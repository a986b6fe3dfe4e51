"""Choose the memory order in which clips are decoded, by timing both once for each size. On CUDA, and only where asked for.

Convolutions may be faster where the channels of a place lie side by side, but they then add up in another order. So this is off
unless the environment variable SVI_DECODE is "timed". The choice is kept on disk, so that a clip is decoded alike on two days.

A convolution works in the order of its input. Norms and activations keep it, but attention and upsampling in time do not, and
frames that a decoder keeps between two chunks would bring their own. So all of these are brought into one order.
"""

import functools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from ...svi_core.out_of_memory import is_out_of_memory
from .attention import CLEAR_GAIN, gpu_milliseconds, machine_name
from .attention_choices import StoredChoices, comfyui_file

SETTING = "SVI_DECODE"
CONTIGUOUS, LAST = "contiguous", "channels last"
_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of dimensions
_ORDERED = (torch.nn.Conv3d, torch.nn.Conv2d, torch.nn.Upsample)  # upsampling multiplies what would be copied behind it
_log = logging.getLogger(__name__)


def in_order(order: str, parts: Iterable[object]) -> list:
    """Return `parts` with their tensors [B, C, T, H, W] in `order`, without a copy where they are in it."""
    return [_reordered(part) if order == LAST and isinstance(part, torch.Tensor) else part for part in parts]


@contextmanager
def working_in(order: str, decoder: torch.nn.Module) -> Iterator[None]:
    """Let the layers of `decoder` take and give tensors in `order` within the block; contiguous: as ComfyUI has them.

    Weights stay as they are: cuDNN rearranges them at each call.
    """
    hooks = []
    for module in decoder.modules() if order == LAST else ():
        if isinstance(module, _ORDERED):
            hooks.append(module.register_forward_pre_hook(lambda _, inputs: (_reordered(inputs[0]), *inputs[1:])))
            hooks.append(module.register_forward_hook(lambda _, inputs, out: _reordered(out)))  # cuDNN's has that order already
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _decode(decoder: torch.nn.Module, slots: torch.Tensor, *kept: object) -> object:
    """Return the frames of `slots`, without a change of what is kept of the chunks before."""
    return decoder(slots, feat_cache=list(kept), feat_idx=[0])


def _reordered(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous(memory_format=_FORMATS[x.ndim])


@dataclass
class TimedOrder:
    """The order in which a causal decoder works.

    Attributes:
        milliseconds: times a decode.
        device_type: the device on which orders are compared.
        stored: choices of other processes.
        chosen: the order's name by what it was chosen for.
    """

    milliseconds: Callable[[Callable[[], object]], float] = gpu_milliseconds
    device_type: str = "cuda"
    stored: StoredChoices = field(default_factory=lambda: StoredChoices(lambda: comfyui_file("decode_order.json")))
    chosen: dict[tuple[str, str], str] = field(default_factory=dict)

    def is_asked_for(self, device: torch.device) -> bool:
        """Whether orders are to be compared on `device`."""
        return device.type == self.device_type and _setting() == "timed"

    def __call__(self, decoder: torch.nn.Module, slots: torch.Tensor, kept: Sequence[object]) -> str:
        """Return the order for latents like `slots` [1, 16, f, h, w], where `decoder` has `kept` that of the chunks before."""
        place = machine_name(slots.device), f"{slots.dtype} {list(slots.shape)}"
        if place not in self.chosen:
            known = self.stored.get(*place)
            self.chosen[place] = known if known in (CONTIGUOUS, LAST) else self._compare(decoder, slots, kept, place)
        return self.chosen[place]

    def _compare(self, decoder: torch.nn.Module, slots: torch.Tensor, kept: Sequence[object], place: tuple[str, str]) -> str:
        times = {}
        for order in (CONTIGUOUS, LAST):
            try:
                decode = functools.partial(_decode, decoder, *in_order(order, (slots, *kept)))
                with working_in(order, decoder):
                    times[order] = self.milliseconds(decode)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                _log.warning("SVI: there is not enough memory to compare orders of the VAE; it decodes as ComfyUI does.")
                return CONTIGUOUS
        best = LAST if times[LAST] <= CLEAR_GAIN * times[CONTIGUOUS] else CONTIGUOUS
        told = ", ".join(f"{name} {time:.1f} ms" for name, time in times.items())
        _log.info("SVI: VAE, %d slots at once: %s; using %s.", slots.shape[2], told, best)
        self.stored.put(*place, best)
        return best


def require_decode_setting() -> None:
    """Raise ValueError for a value of the environment variable that is none."""
    _setting()


def _setting() -> str:
    setting = os.environ.get(SETTING) or "plain"
    if setting not in ("plain", "timed"):
        raise ValueError(f"The environment variable {SETTING} is {setting!r}: set it to plain or timed, or remove it.")
    return setting


ORDER = TimedOrder()
