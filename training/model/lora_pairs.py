"""The low-rank pairs of a LoRA file by the layer that they change, and the same change at another rank.

Source: docs/METHOD.md, 6.1 (alpha / rank) and 6.2 (key forms); Eckart and Young, "The approximation of one matrix by another of
lower rank" (https://doi.org/10.1007/BF02288367): the cut singular value decomposition is the nearest matrix of its rank.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from svi_core.systems.lora_keys import COMFY_PREFIX, split_key

_SIDES = {
    "lora_A.weight": "down", "lora_down.weight": "down", "lora_B.weight": "up", "lora_up.weight": "up", "alpha": "alpha",
}  # fmt: skip
_KOHYA = re.compile(r"^lora_unet_+blocks_(\d+)_(?:(self_attn|cross_attn)_(\w+)|ffn_(\d))$")


@dataclass(frozen=True)
class LowRankPair:
    """A change ``scale * up @ down`` of one layer's weight.

    Attributes:
        down: [rank, in features].
        up: [out features, rank].
        alpha: the change is scaled by alpha / rank; None: by 1.
    """

    down: Tensor
    up: Tensor
    alpha: Tensor | None = None

    @property
    def rank(self) -> int:
        """Rows of `down`."""
        return self.down.shape[0]

    @property
    def scale(self) -> float:
        """The factor alpha / rank."""
        return 1.0 if self.alpha is None else float(self.alpha) / self.rank

    @property
    def size(self) -> tuple[int, int]:
        """Out features and in features."""
        return self.up.shape[0], self.down.shape[1]


def low_rank_pairs(tensors: Mapping[str, Tensor]) -> tuple[dict[str, LowRankPair], list[str]]:
    """Return the pairs by bare layer name, such as ``blocks.0.self_attn.q``, and the keys that belong to no pair.

    Args:
        tensors: of a `LoraFile`, by its keys.

    Raises:
        ValueError: a layer has two pairs.
    """
    keys: dict[str, dict[str, str]] = {}
    others = []
    for key in tensors:
        module, part = split_key(key)
        side = _SIDES.get(part)
        if side is None:
            others.append(key)
            continue
        sides = keys.setdefault(_bare(module), {})
        if side in sides:
            raise ValueError(f"{sides[side]!r} and {key!r} change the same layer: the file mixes dialects; split it.")
        sides[side] = key
    pairs = {}
    for layer, sides in keys.items():
        if {"down", "up"} <= sides.keys():
            pairs[layer] = LowRankPair(**{side: tensors[key] for side, key in sides.items()})
        else:
            others += sides.values()
    return pairs, others


def cut_to_rank(pair: LowRankPair, rank: int) -> LowRankPair:
    """Return the pair of `rank` that is nearest to `pair` in Frobenius norm, or `pair` itself if its rank is no higher.

    The singular values are shared evenly between the two matrices.
    """
    if pair.rank <= rank:
        return pair
    left, left_core = torch.linalg.qr(pair.up.double() * pair.scale)
    right, right_core = torch.linalg.qr(pair.down.double().T)
    turned_left, values, turned_right = torch.linalg.svd(left_core @ right_core.T)
    root = values[:rank].sqrt()
    up, down = (left @ turned_left[:, :rank]) * root, root[:, None] * (turned_right[:rank] @ right.T)
    return LowRankPair(down.float(), up.float())


def squared_norm(pair: LowRankPair) -> float:
    """Return the squared Frobenius norm of the change."""
    down, up = pair.down.double(), pair.up.double()
    return pair.scale**2 * float(((up.T @ up) * (down @ down.T)).sum())


def _bare(module: str) -> str:
    """Return a module name of any dialect without its prefix, such as ``blocks.0.self_attn.q``."""
    if match := _KOHYA.match(module):
        block, attention, name, ffn = match.groups()
        return f"blocks.{block}.{attention}.{name}" if attention else f"blocks.{block}.ffn.{ffn}"
    return module.removeprefix(COMFY_PREFIX)
