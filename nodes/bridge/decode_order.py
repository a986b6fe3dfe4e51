"""Choose the memory order in which clips are decoded, by timing both once for each size. On CUDA, and only where asked for.

Convolutions may be faster where the channels of a place lie side by side, but they then add up in another order. So this is off
unless the environment variable SVI_DECODE is "timed". The choice is kept on disk, so that a clip is decoded alike on two days.
"""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from ...svi_core.out_of_memory import is_out_of_memory
from .attention import CLEAR_GAIN, gpu_milliseconds, machine_name
from .attention_choices import StoredChoices, comfyui_file

SETTING = "SVI_DECODE"
CONTIGUOUS, LAST = "contiguous", "channels last"
ORDERS = {CONTIGUOUS: torch.contiguous_format, LAST: torch.channels_last_3d}
_log = logging.getLogger(__name__)


@dataclass
class TimedOrder:
    """The order of the latents that a decoder gets; its layers keep it.

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

    def __call__(self, decode: Callable[[torch.Tensor], object], slots: torch.Tensor) -> torch.memory_format:
        """Return the order for latents like `slots` [1, 16, f, h, w]; `decode` may be called any number of times."""
        place = machine_name(slots.device), f"{slots.dtype} {list(slots.shape)}"
        if place not in self.chosen:
            known = self.stored.get(*place)
            self.chosen[place] = known if known in ORDERS else self._compare(decode, slots, place)
        return ORDERS[self.chosen[place]]

    def _compare(self, decode: Callable[[torch.Tensor], object], slots: torch.Tensor, place: tuple[str, str]) -> str:
        times = {}
        for name, order in ORDERS.items():
            ordered = slots.contiguous(memory_format=order)
            try:
                times[name] = self.milliseconds(lambda ordered=ordered: decode(ordered))
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
