"""The models of a run with the LoRA strengths of each clip: each setting is patched once, so ComfyUI sees the same clones."""

from pathlib import Path

from ..svi_core.schedule.spec import ClipSpec
from ..svi_core.systems.lora import LoraFile, read_lora
from .bridge.attention import with_fastest_attention
from .lora import LoraRow, apply_rows, with_strengths

MAX_LORA_SETTINGS = 8  # patched clones kept, for schedules that go back and forth


class PatchedModels:
    """A model, or a high / low pair of experts, and the LoRA rows whose strengths a schedule may change."""

    def __init__(self, model, model_low_noise, rows: tuple[LoraRow, ...]):
        self._models = model, model_low_noise
        self._rows = rows
        self._files: dict[str, LoraFile] = {}  # read once each: clones of different strengths share their matrices
        self._clones: dict[tuple[LoraRow, ...], tuple] = {}

    def for_clip(self, spec: ClipSpec) -> tuple:
        """Return (model, low-noise model or None) with the strengths of `spec`; the settings used last are kept."""
        rows = with_strengths(self._rows, spec.loras)
        clones = self._clones.pop(rows, None)
        if clones is None:
            models = apply_rows(*self._models, rows, self._read)[:2] if rows else self._models
            clones = tuple(model and with_fastest_attention(model) for model in models)
        self._clones[rows] = clones
        if len(self._clones) > MAX_LORA_SETTINGS:
            del self._clones[next(iter(self._clones))]
        return clones

    def _read(self, path: Path, name: str) -> LoraFile:
        if name not in self._files:
            self._files[name] = read_lora(path, name)
        return self._files[name]
