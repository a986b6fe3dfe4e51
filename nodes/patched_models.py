"""The models of a run with the LoRA strengths of each clip; each setting is patched once, so ComfyUI sees the same clones."""

import functools

from ..svi_core.schedule.spec import ClipSpec
from ..svi_core.systems.lora import read_lora
from .bridge.attention import with_fastest_attention
from .lora import LoraRow, ReadLora, apply_rows, with_strengths

MAX_LORA_SETTINGS = 8  # patched clones to keep, for schedules that alternate


class PatchedModels:
    """A model, or a pair of experts, and the LoRA rows whose strengths a schedule may change."""

    def __init__(self, model, model_low_noise, rows: tuple[LoraRow, ...]):
        read = functools.cache(read_lora)  # clones with different strengths share one copy of each file
        patched = functools.partial(_patched, model, model_low_noise, read)
        self._rows = rows
        self._with_rows = functools.lru_cache(MAX_LORA_SETTINGS)(patched)

    def for_clip(self, spec: ClipSpec) -> tuple:
        """Return (model, low-noise model or None) with the strengths of `spec`."""
        return self._with_rows(with_strengths(self._rows, spec.loras))


def _patched(model, model_low_noise, read: ReadLora, rows: tuple[LoraRow, ...]) -> tuple:
    if rows:
        model, model_low_noise, _ = apply_rows(model, model_low_noise, rows, read)
    return with_fastest_attention(model), model_low_noise and with_fastest_attention(model_low_noise)
