"""LoRA files: read one of any dialect with ComfyUI's keys, and report what of it a model takes.

Source: docs/METHOD.md, 6.2 (key forms of the released files) and 6.1 (alpha / rank = 1 where no alpha is stored).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..files.safetensors_file import read_header, read_tensors
from .lora_keys import canonical_key
from .lora_parts import require_fitting_parts, silent_modules
from .lora_variant import LoraVariant, variant_of_lora
from .pose_keys import is_pose_key

_DTYPES = {
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
}  # fmt: skip
_MAX_NAMED = 8  # modules that a report names of each sort


@dataclass(frozen=True)
class LoraFile:
    """A LoRA file in ComfyUI's key dialect.

    Attributes:
        name: the file's name as the user knows it.
        tensors: by key, ``diffusion_model.<module>.<suffix>``; keys of an unknown dialect stay as they are.
        metadata: the file's own header entries.
        original_keys: the keys as stored, for error messages.
        num_pose_tensors: tensors of a pose encoder (SVI-Dance, UniAnimate) beside the LoRA; they are not in `tensors`.
        silent: modules that it would leave as they are, since its matrices are zero.
    """

    name: str
    tensors: dict[str, torch.Tensor]
    metadata: dict[str, str]
    original_keys: tuple[str, ...]
    num_pose_tensors: int = 0
    silent: frozenset[str] = frozenset()

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
class LoraMatch:
    """What ComfyUI merges of one LoRA file into one model, by module.

    Attributes:
        touched: modules of which something is merged.
        misfits: of each module that is not wholly merged since a size differs: what and why.
        unmatched: of each other module that is not wholly merged: its name, or the parts that ComfyUI does not read.
    """

    touched: frozenset[str]
    misfits: Mapping[str, str]
    unmatched: Mapping[str, str]

    @property
    def merged(self) -> frozenset[str]:
        """The modules that are wholly merged."""
        return self.touched - self.misfits.keys() - self.unmatched.keys()


@dataclass(frozen=True)
class LoraReport:
    """How one LoRA file matched one model, counted in modules (a pair of matrices each).

    Attributes:
        num_matched: modules that ComfyUI merges.
        misfits: what it does not merge, since the sizes do not fit the model.
        unmatched: what it does not merge, since the model lacks it or ComfyUI does not read it.
        silent: of the merged modules those that change nothing.
    """

    name: str
    expert: str
    strength: float
    num_matched: int
    misfits: tuple[str, ...] = ()
    unmatched: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    variant: LoraVariant | None = None
    num_pose_tensors: int = 0

    @property
    def is_complete(self) -> bool:
        """Whether all of the file has its effect, and nothing is to be warned of."""
        return not (self.misfits or self.unmatched or self.silent or self.warnings)

    def __str__(self) -> str:
        total = self.num_matched + len(self.misfits) + len(self.unmatched)
        lines = [f"{self.name} -> {self.expert} at {self.strength:g}: {self.num_matched} of {total} modules matched"]
        if self.variant:
            lines.append(f"  for {self.variant}")
        if self.num_pose_tensors:
            lines.append(f"  pose encoder ({self.num_pose_tensors} tensors): not a LoRA, SVI Dance reads it")
        for title, names in (
            ("not merged", self.misfits),
            ("not matched", self.unmatched),
            ("without effect, since all zero", self.silent),
        ):
            if names:
                more = "; ..." if len(names) > _MAX_NAMED else ""
                lines.append(f"  {title} ({len(names)}): {'; '.join(names[:_MAX_NAMED])}{more}")
        return "\n".join(lines + [f"  WARNING: {warning}" for warning in self.warnings])


def lora_keys(name: str, shapes: Mapping[str, Sequence[int]]) -> dict[str, str]:
    """Return the stored key of each key of a LoRA in ComfyUI's dialect; tensors of a pose encoder are left out.

    Args:
        name: the file's name.
        shapes: of its tensors, by stored key.

    Raises:
        ValueError: two keys mean the same tensor, or the parts of a module do not fit each other.
    """
    keys: dict[str, str] = {}
    for stored in shapes:
        if is_pose_key(stored):
            continue
        key = canonical_key(stored)
        if key in keys:
            raise ValueError(
                f"LoRA {name}: {keys[key]!r} and {stored!r} both mean {key!r}: the file mixes dialects, or holds the LoRAs of "
                "both experts. Split it into files of one each."
            )
        keys[key] = stored
    require_fitting_parts(name, keys, shapes)
    return keys


def header_shapes(header: Mapping[str, Mapping[str, Any]]) -> dict[str, Sequence[int]]:
    """Return the shapes of the tensors that the header of a safetensors file lists."""
    return {key: entry["shape"] for key, entry in header.items() if key != "__metadata__"}


def read_lora(path: Path, name: str | None = None) -> LoraFile:
    """Read a LoRA file and convert its keys to ComfyUI's dialect.

    Raises:
        ValueError: not a sound safetensors file, or a malformed LoRA; the message calls it `name`.
    """
    name = name or path.name
    keys = lora_keys(name, header_shapes(read_header(path)))
    stored, metadata = read_tensors(path)
    tensors = {key: stored[original] for key, original in keys.items()}
    for key, tensor in tensors.items():
        if tensor.dtype not in _DTYPES:
            raise ValueError(f"LoRA {name} is malformed: {keys[key]!r} is {tensor.dtype}: convert the file to fp16.")
    return LoraFile(name, tensors, metadata, tuple(keys.values()), len(stored) - len(keys), silent_modules(tensors))


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


def report_match(lora: LoraFile, match: LoraMatch, expert: str, strength: float) -> LoraReport:
    """Report what ComfyUI merges of `lora` into a model.

    Args:
        expert: "model", "high" or "low": where the file is applied.

    Raises:
        ValueError: the file would change nothing; the message shows one of its modules or three of its keys.
    """
    if not match.touched:
        raise ValueError(_nothing_to_merge(lora, match))
    if match.touched <= lora.silent:
        raise ValueError(
            f"LoRA {lora.name} would change nothing: in each of its {len(match.touched)} modules a matrix is all zeros, as "
            "before the first step of training. Choose a later checkpoint, or 'none'."
        )
    warnings: list[str] = []
    named = expert_named_in(lora.name, lora.metadata)
    if expert in ("high", "low") and named not in (None, expert):
        warnings.append(f"the file says it is for the {named}-noise expert but was put on the {expert}-noise one: swap them?")
    return LoraReport(
        lora.name,
        expert,
        strength,
        len(match.merged),
        tuple(match.misfits.values()),
        tuple(match.unmatched.values()),
        tuple(sorted(lora.silent & match.merged)),
        tuple(warnings),
        lora.variant,
        lora.num_pose_tensors,
    )


def _nothing_to_merge(lora: LoraFile, match: LoraMatch) -> str:
    """Return the message about a LoRA of which nothing can be merged."""
    num_modules = len(match.misfits) + len(match.unmatched)
    if match.misfits:
        return (
            f"LoRA {lora.name}: 0 of {num_modules} modules fit this model, so it would change nothing: "
            f"{next(iter(match.misfits.values()))}. The file was made for another size of Wan (1.3B, 5B and 14B LoRAs do not "
            "mix)."
        )
    return (
        f"LoRA {lora.name}: 0 of {num_modules} modules match this model. Its keys look like "
        f"{', '.join(lora.original_keys[:3])}. It is a LoRA for another model (not Wan 14B), or in a dialect that is "
        "not known: Wan keys end in blocks.N.self_attn.q, .cross_attn.k, .ffn.0 and so on."
    )


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
