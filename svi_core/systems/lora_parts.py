"""Whether the parts of a LoRA file fit each other, judged by their shapes alone, and which modules it leaves unchanged.

The kinds of adapters are those that ComfyUI merges: LoRA, LoHa, LoKr, GLoRA, OFT, BOFT, differences and replaced weights.
Source: https://github.com/Comfy-Org/ComfyUI/tree/master/comfy/weight_adapter.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch

from .lora_keys import split_key

Shape = Sequence[int]
_TOGETHER = (  # parts of one module, of which a file holds all or none
    ("lora_A.weight", "lora_B.weight"),
    ("lora_down.weight", "lora_up.weight"),
    ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    ("hada_t1", "hada_t2"),
    ("lokr_w1_a", "lokr_w1_b"),
    ("lokr_w2_a", "lokr_w2_b"),
    ("a1.weight", "a2.weight", "b1.weight", "b2.weight"),
)
_LOKR_FACTORS = ({"lokr_w1", "lokr_w1_a"}, {"lokr_w2", "lokr_w2_a"})
_PRODUCTS = (  # left and right matrix, and the core that may stand between them
    ("lora_B.weight", "lora_A.weight", ""),
    ("lora_up.weight", "lora_down.weight", "lora_mid.weight"),
    ("hada_w1_a", "hada_w1_b", "hada_t1"),
    ("hada_w2_a", "hada_w2_b", "hada_t2"),
    ("lokr_w1_a", "lokr_w1_b", ""),
    ("lokr_w2_a", "lokr_w2_b", "lokr_t2"),
)
_TERMS = (  # what is added to a weight: each a product, which is zero if one of its parts is
    {"lora_A.weight", "lora_B.weight", "alpha"},
    {"lora_down.weight", "lora_up.weight", "lora_mid.weight", "alpha"},
    {"hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "hada_t1", "hada_t2", "alpha"},
    {"lokr_w1", "lokr_w1_a", "lokr_w1_b", "lokr_w2", "lokr_w2_a", "lokr_w2_b", "lokr_t2"},
    {"a1.weight", "a2.weight"},
    {"b1.weight", "b2.weight"},
    {"oft_blocks"},
    *({part} for part in ("diff", "diff_b", "w_norm", "b_norm")),
)
_ALWAYS_CHANGE = {"dora_scale", "rescale", "set_weight"}


def size_text(shape: Shape) -> str:
    """Return `shape` as text: "64 x 4"; "1 number" for a scalar."""
    return " x ".join(map(str, shape)) or "1 number"


def require_fitting_parts(file: str, keys: Mapping[str, str], shapes: Mapping[str, Shape]) -> None:
    """Refuse a LoRA file with a missing half, matrices that cannot be multiplied, or an alpha that is no number.

    Args:
        file: its name.
        keys: the stored key of each key in ComfyUI's dialect.
        shapes: by stored key.

    Raises:
        ValueError: with the file and the stored key.
    """
    for stored in _by_module(keys).values():
        try:
            of_parts = {part: tuple(shapes[key]) for part, key in stored.items()}
            _require_whole(stored)
            _require_one_alpha(stored, of_parts)
            _require_products(stored, of_parts)
        except ValueError as error:
            raise ValueError(f"LoRA {file} is malformed: {error} Download it again, or convert it anew.") from error


def silent_modules(tensors: Mapping[str, torch.Tensor]) -> frozenset[str]:
    """Return the modules of a LoRA, in ComfyUI's dialect, that it leaves as they are: a factor of each change is zero."""
    silent = set[str]()
    for module, parts in _by_module({key: key for key in tensors}).items():
        terms = [term for term in _TERMS if term & parts.keys() - {"alpha"}]
        zero = {part for part, key in parts.items() if _is_zero(tensors[key])}
        if terms and not _ALWAYS_CHANGE & parts.keys() and all(term & zero for term in terms):
            silent.add(module)
    return frozenset(silent)


def _is_zero(tensor: torch.Tensor) -> bool:
    """Whether all values are 0. The least and the greatest are found ten times as fast as any value that is not 0."""
    values = tensor.float() if tensor.dtype.itemsize == 1 else tensor
    return not tensor.numel() or all(float(end) == 0.0 for end in values.aminmax())


def _by_module(keys: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the values of `keys` by module and part."""
    modules: dict[str, dict[str, str]] = defaultdict(dict)
    for key, value in keys.items():
        module, part = split_key(key)
        if part:
            modules[module][part] = value
    return modules


def _require_whole(stored: Mapping[str, str]) -> None:
    """Refuse a module that lacks a part; ComfyUI's loader raises KeyError for some of them and ignores others."""
    for group in _TOGETHER:
        found = [part for part in group if part in stored]
        if found and len(found) < len(group):
            missing = next(part for part in group if part not in stored)
            raise ValueError(f"{missing!r} is missing beside {stored[found[0]]!r}.")
    factors = [factor & stored.keys() for factor in _LOKR_FACTORS]
    if any(factors) and not all(factors):
        raise ValueError(f"{stored[min(factors[0] | factors[1])]!r} is one factor of a LoKr; the other is missing.")


def _require_one_alpha(stored: Mapping[str, str], shapes: Mapping[str, Shape]) -> None:
    if math.prod(shapes.get("alpha", ())) != 1:
        raise ValueError(f"{stored['alpha']!r} holds {size_text(shapes['alpha'])} numbers, but alpha is one number.")


def _require_products(stored: Mapping[str, str], shapes: Mapping[str, Shape]) -> None:
    """Refuse a module whose matrices cannot be multiplied."""
    for left, right, core in _PRODUCTS:
        if left in shapes and right in shapes:
            _require_product(*((stored[part], shapes[part]) for part in (left, right, core) if part in shapes))
    for one, other in (("hada_w1_a", "hada_w2_a"), ("hada_w1_b", "hada_w2_b")):
        axis = 1 if one.endswith("b") or "hada_t1" in shapes else 0
        if one in shapes and shapes[one][axis] != shapes[other][axis]:
            raise ValueError(
                f"{stored[one]!r} is {size_text(shapes[one])} and {stored[other]!r} is {size_text(shapes[other])}: a LoHa "
                "multiplies two matrices of the same size."
            )


def _require_product(left: tuple[str, Shape], right: tuple[str, Shape], core: tuple[str, Shape] | None = None) -> None:
    """Refuse two matrices, with or without a core between them, whose inner sizes (ranks) differ."""
    for key, shape in filter(None, (left, right, core)):
        if len(shape) < 2:
            raise ValueError(f"{key!r} is {size_text(shape)}, not a matrix.")
    if core is None:
        fits = math.prod(left[1][1:]) == right[1][0]
    else:  # the outer matrices of a LoHa or LoKr stand upright beside their core
        fits = (left[1][0 if left[0].endswith("_a") else 1], right[1][0]) == tuple(core[1][:2])
    if not fits:
        names = " and ".join(f"{key!r} is {size_text(shape)}" for key, shape in filter(None, (left, right, core)))
        raise ValueError(f"{names}: their inner sizes (ranks) differ, so that they cannot be multiplied.")
