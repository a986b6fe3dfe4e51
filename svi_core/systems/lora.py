"""SVI LoRA files: convert every key dialect in use to ComfyUI's, and report what matched.

Source: docs/METHOD.md, 6.2 (key forms of the released files) and 6.1 (alpha / rank = 1 where no alpha is stored).
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..files.safetensors_file import read_tensors
from .lora_variant import LoraVariant, variant_of_lora
from .pose_keys import is_pose_key

COMFY_PREFIX = "diffusion_model."
_KOHYA_PREFIX = "lora_unet_"
_WAN_ROOTS = (
    "blocks", "text_embedding", "time_embedding", "time_projection", "patch_embedding", "head", "img_emb",
)  # fmt: skip
_ROOT = re.compile(rf"(?:^|\.)((?:{'|'.join(_WAN_ROOTS)})\..+)$")
_WRAPPERS = re.compile(r"^(?:(?:pipe|dit|model|module|_orig_mod|base_model|diffusion_model|transformer|unet)\.)+$")
_SUFFIX = re.compile(
    r"\.(?:lora_(?:A|B|down|up)(?:\.default)?(?:\.weight)?|alpha|dora_scale|diff|diff_b|diff_m|set_weight|reshape_weight)$"
)


@dataclass(frozen=True)
class LoraFile:
    """A LoRA file in ComfyUI's key dialect.

    Attributes:
        name: the file's name as the user knows it.
        tensors: by key, ``diffusion_model.<module>.<suffix>``; keys of an unknown dialect stay as they are.
        metadata: the file's own header entries.
        original_keys: the keys as stored, for error messages.
        num_pose_tensors: tensors of a pose encoder (SVI-Dance, UniAnimate) beside the LoRA; they are not in `tensors`.
    """

    name: str
    tensors: dict[str, torch.Tensor]
    metadata: dict[str, str]
    original_keys: tuple[str, ...]
    num_pose_tensors: int = 0

    @property
    def follows_poses(self) -> bool:
        """Whether it is UniAnimate's LoRA or one fine-tuned from it, as SVI-Dance is."""
        return self.num_pose_tensors > 0 or "unianimate" in self.name.lower()

    @property
    def variant(self) -> LoraVariant | None:
        """The SVI system that it was trained for, where header or name tell.

        Raises:
            ValueError: the header names a system that is not known.
        """
        return variant_of_lora(self.name, self.metadata)


@dataclass(frozen=True)
class LoraReport:
    """How one LoRA file matched one model, counted in modules (a pair of matrices each)."""

    name: str
    expert: str
    strength: float
    num_matched: int
    unmatched: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    variant: LoraVariant | None = None
    num_pose_tensors: int = 0

    def __str__(self) -> str:
        total = self.num_matched + len(self.unmatched)
        lines = [f"{self.name} -> {self.expert} at {self.strength:g}: {self.num_matched} of {total} modules matched"]
        if self.variant:
            lines.append(f"  for {self.variant}")
        if self.num_pose_tensors:
            lines.append(f"  pose encoder ({self.num_pose_tensors} tensors): not a LoRA, SVI Dance reads it")
        if self.unmatched:
            shown = ", ".join(self.unmatched[:3]) + (", ..." if len(self.unmatched) > 3 else "")
            lines.append(f"  not matched ({len(self.unmatched)}): {shown}")
        return "\n".join(lines + [f"  WARNING: {warning}" for warning in self.warnings])


def canonical_key(key: str) -> str:
    """Return `key` in ComfyUI's dialect, or unchanged if its dialect is unknown.

    ``pipe.dit.blocks.0.ffn.0.lora_A.default.weight`` (SVI 1.0), ``blocks.0...`` (2.0, DiffSynth),
    ``diffusion_model.blocks.0...`` (ComfyUI, kijai, ours) all become ``diffusion_model.blocks.0.ffn.0.lora_A.weight``;
    ComfyUI reads kohya's ``lora_unet_blocks_0_ffn_0...``, which stays.
    """
    if key.startswith(_KOHYA_PREFIX):
        return key
    match = _ROOT.search(key)
    if match is None or (match.start(1) and not _WRAPPERS.match(key[: match.start(1)])):
        return key
    return COMFY_PREFIX + re.sub(r"\.default(?=\.weight$|$)", "", match.group(1))


def module_of(key: str) -> str:
    """Return the module that `key` adapts: `key` without its ``.lora_A.weight`` or similar ending."""
    return _SUFFIX.sub("", key)


def read_lora(path: Path, name: str | None = None) -> LoraFile:
    """Read a LoRA file and convert its keys to ComfyUI's dialect.

    Raises:
        ValueError: not a sound safetensors file, or two of its keys mean the same tensor.
    """
    tensors, metadata = read_tensors(path)
    renamed: dict[str, torch.Tensor] = {}
    of_lora = {key: tensor for key, tensor in tensors.items() if not is_pose_key(key)}
    for key, tensor in of_lora.items():
        target = canonical_key(key)
        if target in renamed:
            raise ValueError(f"{path}: two keys of the LoRA both mean {target!r}: the file mixes dialects; convert it to one.")
        renamed[target] = tensor
    return LoraFile(name or path.name, renamed, metadata, tuple(of_lora), len(tensors) - len(of_lora))


def expert_named_in(name: str, metadata: dict[str, str]) -> str | None:
    """Return "high" or "low" if the file names the Wan 2.2 expert that it was trained for, else None.

    Metadata (``svi.expert``, ours) wins over the file name (``..._HIGH_...``, ``...-low-noise...``).
    """
    told = metadata.get("svi.expert", "").lower()
    if told in ("high", "low"):
        return told
    words = set(re.split(r"[^a-z]+", Path(name).stem.lower())) | {metadata.get("ss_expert", "").lower()}
    found = {side for side in ("high", "low") if {side, f"{side}noise"} & words}
    return found.pop() if len(found) == 1 else None


def report_match(lora: LoraFile, taken: set[str], left: set[str], expert: str, strength: float) -> LoraReport:
    """Report which modules of `lora` matched a model.

    Args:
        taken: modules whose patch the model accepted.
        left: the file's other modules.
        expert: "model", "high" or "low": where the file was applied.

    Raises:
        ValueError: nothing matched; the message shows three of the file's keys.
    """
    if not taken:
        raise ValueError(
            f"LoRA {lora.name}: 0 of {len(left)} modules match this model. Its keys look like "
            f"{', '.join(lora.original_keys[:3])}. It is a LoRA for another model (not Wan 14B), or in a dialect that is "
            "not known: Wan keys end in blocks.N.self_attn.q, .cross_attn.k, .ffn.0 and so on."
        )
    warnings: list[str] = []
    named = expert_named_in(lora.name, lora.metadata)
    if expert in ("high", "low") and named not in (None, expert):
        warnings.append(f"the file says it is for the {named}-noise expert but was put on the {expert}-noise one: swap them?")
    unmatched = tuple(sorted(left))
    return LoraReport(lora.name, expert, strength, len(taken), unmatched, tuple(warnings), lora.variant, lora.num_pose_tensors)


def stacking_warning(lora: LoraFile, before: Iterable[LoraFile]) -> str | None:
    """Return a warning about adding `lora` to the files `before`, or None.

    Source: docs/METHOD.md, 6.3: users report poor results of SVI-Dance with a UniAnimate LoRA, which svi-dance holds already.
    """
    if not lora.follows_poses:
        return None
    other = next((file.name for file in before if file.follows_poses), None)
    return (
        other and f"{other} follows poses too: svi-dance holds UniAnimate's LoRA, trained further, so use one of the two only."
    )


def lora_shapes(lora: LoraFile) -> dict[str, tuple[int, int]]:
    """Return (out features, in features) per module for the plain low-rank modules of `lora`."""
    ends: dict[str, dict[str, torch.Size]] = defaultdict(dict)
    for key, tensor in lora.tensors.items():
        if match := re.search(r"\.lora_(A|B|down|up)(?:\.weight)?$", key):
            ends[module_of(key)]["in" if match.group(1) in ("A", "down") else "out"] = tensor.shape
    return {name: (e["out"][0], e["in"][1]) for name, e in ends.items() if len(e) == 2 and len(e["in"]) == len(e["out"]) == 2}
