"""What a model's file says of models and LoRAs that are merged into it.

ComfyUI's nodes that save a model (ModelSave, CheckpointSave) write the graph that made it into the header. Which of its nodes
reached the file is not worked out: the answer decides about a warning only.
Source: https://github.com/comfyanonymous/ComfyUI, comfy_extras/nodes_model_merging.py, save_checkpoint.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .lora_variant import LoraVariant, variant_of_lora

_FILE = re.compile(r'"([^"\n]{1,255}\.(?:safetensors|sft|ckpt|pt|pth|bin))"', re.IGNORECASE)


@dataclass(frozen=True)
class Merged:
    """What may be inside a model's weights.

    Attributes:
        is_merge: other weights were merged into them, or may have been.
        variant: the SVI system of a LoRA among them, if one is named.
    """

    is_merge: bool = False
    variant: LoraVariant | None = None


def merged_into(name: str | None, metadata: Mapping[str, str]) -> Merged:
    """Return what the name and the header's `metadata` of a model's file say was merged into it."""
    own = variant_of_lora(name, {}) if name else None
    graph = metadata.get("prompt", "")
    named = (variant_of_lora(match[1], {}) for match in _FILE.finditer(graph))
    return Merged(bool(graph), own or next((variant for variant in named if variant), None))
