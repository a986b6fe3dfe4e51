"""The models of a run with the LoRA strengths of each clip; each setting is patched once, so ComfyUI sees the same clones."""

import functools
from dataclasses import replace

from ..svi_core.schedule.spec import ClipSpec
from ..svi_core.systems.lora import read_lora
from .bridge.attention import with_fastest_attention
from .lora import LoraRow, ReadLora, apply_rows, log_reports, with_strengths

MAX_LORA_SETTINGS = 8  # patched clones to keep, for schedules that alternate


class PatchedModels:
    """A model, or a pair of experts, and the LoRA rows whose strengths a schedule may change."""

    def __init__(self, model, model_low_noise, rows: tuple[LoraRow, ...]):
        read = functools.cache(read_lora)  # clones with different strengths share one copy of each file
        patched = functools.partial(_patched, model, model_low_noise, read)
        self._rows = rows
        self._with_rows = functools.lru_cache(MAX_LORA_SETTINGS)(patched)
        self._require_row = functools.cache(functools.partial(_require_row, model, model_low_noise, read))

    def for_clip(self, spec: ClipSpec) -> tuple:
        """Return (model, low-noise model or None) with the strengths of `spec`."""
        return self._with_rows(with_strengths(self._rows, spec.loras))

    def require_loras(self, spec: ClipSpec) -> None:
        """Refuse a LoRA of `spec` that its model cannot take; each file is checked once for each model.

        Raises:
            ValueError: see :func:`apply_rows`.
        """
        for row in with_strengths(self._rows, spec.loras):
            strengths = [float(strength != 0.0) for _, strength in row.sides]  # the size of a strength does not matter
            self._require_row(replace(row, strength=strengths[0], strength_low_noise=strengths[1]))


def _patched(model, model_low_noise, read: ReadLora, rows: tuple[LoraRow, ...]) -> tuple:
    if rows:
        model, model_low_noise, reports = apply_rows(model, model_low_noise, rows, read)
        log_reports(reports)
    return with_fastest_attention(model), model_low_noise and with_fastest_attention(model_low_noise)


def _require_row(model, model_low_noise, read: ReadLora, row: LoraRow) -> None:
    apply_rows(model, model_low_noise, (row,), read)
