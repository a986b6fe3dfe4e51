"""Which SVI system a LoRA file was trained for, and whether that fits the layout of a run.

Our trainer writes the system into the header (``svi.*``); released files have it in their name. Wrong padding was the main
cause of SVI's failures in ComfyUI, so a file that contradicts the layout stops a run before its first step.

Source: docs/METHOD.md, 6.3 (file names), 6.4 (header), 2.2 and 10 (what wrong padding does).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath

from ..geometry import TRAINED_NUM_FRAMES
from .layouts import LAYOUTS, Layout, make_layout

AUTO = "auto"
_CONDITIONED_ALIKE = ("Film", "Film-transitions")  # one layout, two LoRAs
_TRAINED_AS = {"talk": "Talk", "dance": "Dance"}  # presets whose older files name the layout that they share
_NAMED = {  # words in the names of released files, and the layouts that such a file fits, its own first
    "shot": ("Shot",),
    "transitions": ("Film-transitions", "Film"),
    "transition": ("Film-transitions", "Film"),
    "film": ("Film", "Film-transitions"),
    "tom": ("Tom & Jerry",),
    "talk": ("Talk",),
    "dance": ("Dance",),
    "pro": ("2.0 Pro",),
}
_VERSION_2 = {"2", "v2", "v20", "svi2", "svi20"}


@dataclass(frozen=True)
class LoraVariant:
    """The SVI system that one LoRA file says it was trained for.

    Attributes:
        file: its name.
        layouts: names of the layouts that it fits, its own first.
        is_certain: taken from its header, not from its name.
        num_motion_frames: motion frames that it was trained with, if the header says.
        is_ambiguous: the name does not tell which of `layouts` is its own.
    """

    file: str
    layouts: tuple[str, ...]
    is_certain: bool = False
    num_motion_frames: int | None = None
    is_ambiguous: bool = False

    def __str__(self) -> str:
        names = " or ".join(self.layouts if self.is_ambiguous else self.layouts[:1])
        return f"SVI {names} ({'its header' if self.is_certain else 'its name'} says so)"


@dataclass(frozen=True)
class AutoLayout:
    """A layout that the LoRA decides, resolved once the models are known.

    Attributes:
        num_frames: pixel frames of a clip, 4n + 1.
        num_motion_frames: 0 for as many as the LoRA was trained with.
        cuts_to_8_bits: as in Layout.
    """

    num_frames: int = TRAINED_NUM_FRAMES
    num_motion_frames: int = 0
    cuts_to_8_bits: bool = False


def variant_of_lora(name: str, metadata: Mapping[str, str]) -> LoraVariant | None:
    """Return the SVI system of a LoRA file, or None if neither header nor name says that it is an SVI LoRA.

    Args:
        name: file name, with folders.
        metadata: the header's entries.

    Raises:
        ValueError: the header names an unknown layout.
    """
    layout = metadata.get("svi.layout")
    if layout is None:
        return _variant_of_name(name)
    layout = _TRAINED_AS.get(metadata.get("svi.variant", ""), layout)
    if layout not in LAYOUTS:
        raise ValueError(
            f"LoRA {name}: its header says svi.layout {layout!r}, which is none of {', '.join(map(repr, LAYOUTS))}: it was "
            "trained with another version of this pack; update the pack."
        )
    motion = metadata.get("svi.num_motion_frames", "")
    layouts = (layout, *(other for other in _CONDITIONED_ALIKE if layout in _CONDITIONED_ALIKE and other != layout))
    return LoraVariant(name, layouts, True, int(motion) if motion.isdecimal() else None)


def require_lora_variants(layout: Layout, variants: Iterable[LoraVariant]) -> None:
    """Refuse a layout that a LoRA of the run was not trained for.

    Raises:
        ValueError: with the file, its system, and how to fix it.
    """
    for variant in variants:
        if layout.name in variant.layouts:
            continue
        own = " or ".join(map(repr, variant.layouts if variant.is_ambiguous else variant.layouts[:1]))
        doubt = "" if variant.is_certain else " If its name is wrong, rename the file."
        raise ValueError(
            f"LoRA {variant.file} is for {variant}, but the layout is {layout.name!r}: choose variant {own} or 'auto' in SVI "
            f"Layout, or load the LoRA of {layout.name!r}.{doubt}"
        )


def resolve_layout(asked: Layout | AutoLayout, variants: Iterable[LoraVariant]) -> Layout:
    """Return the layout of a run: the requested one, or the one that its LoRA was trained with.

    Raises:
        ValueError: the LoRAs contradict it or one another, or none of them names a system.
    """
    variants = tuple(variants)
    layout = asked if isinstance(asked, Layout) else _layout_of(variants, asked)
    require_lora_variants(layout, variants)
    return layout


def _layout_of(variants: tuple[LoraVariant, ...], asked: AutoLayout) -> Layout:
    variant = next((variant for variant in variants if not variant.is_ambiguous), None)
    if variant is None:
        told = "; ".join(f"{variant.file} may be {' or '.join(variant.layouts)}" for variant in variants)
        raise ValueError(
            "variant 'auto' needs a LoRA that says which SVI system it is for, "
            + (f"but {told}" if told else "but none does, or it was not applied by SVI LoRA Stack")
            + ": choose the variant in SVI Layout."
        )
    num_motion_frames = asked.num_motion_frames or variant.num_motion_frames or 0
    return make_layout(variant.layouts[0], asked.num_frames, num_motion_frames, asked.cuts_to_8_bits)


def _variant_of_name(name: str) -> LoraVariant | None:
    """Return the system that the name of a released file, or of a copy, tells."""
    stem = re.sub(r"wan[ _-]?2[._]([12])", r" wan2\1 ", PurePath(name.replace("\\", "/")).stem.lower())
    words = [re.sub(r"^(svi)?v?\d*(?=pro$)", "", word) for word in re.split(r"[^a-z0-9]+", stem)]
    if not any(re.fullmatch(r"svi\d*", word) for word in words) and "stable video infinity" not in " ".join(words):
        return None
    for word, layouts in _NAMED.items():
        if word in words:
            return LoraVariant(name, layouts)
    if not _VERSION_2.intersection(words):
        return None
    if "wan21" in words:
        return LoraVariant(name, ("2.0 (Wan 2.1)",))
    if {"wan22", "high", "low"}.intersection(words):
        return LoraVariant(name, ("2.0",))
    return LoraVariant(name, ("2.0", "2.0 (Wan 2.1)"), is_ambiguous=True)
