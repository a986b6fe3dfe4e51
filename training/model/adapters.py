"""LoRA on a frozen Wan transformer: its layers, its initial values, and its place in the forward pass.

A forward hook adds a pair of matrices, ``layer(x) + scale * up(down(x))``, and leaves the frozen layer untouched. So one hook
serves bf16, fp8-cast and scaled-fp8 layers. PEFT cannot wrap scaled-fp8 layers, which are no `nn.Linear`; ComfyUI's bypass
adapters need their matrices in the input's dtype, while ours are always fp32.
Source: docs/METHOD.md, 9.8 (targets, rank, alpha, initial values) and 6.1 (400 layers of the 14B model).
"""

import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

TARGETS = (
    *(f"self_attn.{name}" for name in "qkvo"),
    *(f"cross_attn.{name}" for name in "qkvo"),
    "ffn.0",
    "ffn.2",
)


def expand_targets(short: Sequence[str]) -> tuple[str, ...]:
    """Return the layers that short names stand for: ``q`` means self- and cross-attention's; full names stay as they are.

    The result is in the order of :data:`TARGETS`, so the order in a config file does not matter.

    Raises:
        ValueError: a name is unknown.
    """
    named = {target for name in short for target in TARGETS if target == name or target.endswith(f"_attn.{name}")}
    unknown = [name for name in short if not any(t == name or t.endswith(f"_attn.{name}") for t in TARGETS)]
    if unknown:
        raise ValueError(f"lora.targets names {unknown[0]!r}: use some of q, k, v, o, ffn.0, ffn.2, or {', '.join(TARGETS)}.")
    return tuple(target for target in TARGETS if target in named)


class LoraPair(nn.Module):
    """Two fp32 matrices: ``down`` [rank, in features], kaiming uniform; ``up`` [out features, rank], zero."""

    def __init__(self, in_features: int, out_features: int, rank: int, scale: float, generator: torch.Generator):
        super().__init__()
        down = torch.empty(rank, in_features)
        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
        self.down = nn.Parameter(down)
        self.up = nn.Parameter(torch.zeros(out_features, rank))
        self.scale = scale

    @torch.no_grad()
    def begin_with(self, down: Tensor, up: Tensor) -> None:
        """Make the term ``up(down(x))``, for fresh matrices and at most as many ranks as they have.

        The other ranks stay as they were: they change nothing yet, and can learn. So can ranks that are zero in both matrices,
        which get no gradient: they keep their random `down`.

        Args:
            down: [k, in features].
            up: [out features, k].
        """
        rank = down.shape[0]
        is_dead = ~(down.any(1) | up.any(0)).to(self.down.device)
        self.down[:rank] = torch.where(is_dead[:, None], self.down[:rank], down.to(self.down.device))
        self.up[:, :rank] = up.to(self.up.device) / self.scale

    def forward(self, x: Tensor) -> Tensor:
        """Return the low-rank term for `x` [..., in features], computed in the dtype of `x`.

        The narrow hidden tensor is scaled, which is cheaper than scaling the wide result.
        """
        hidden = nn.functional.linear(x, self.down.to(x.dtype)) * self.scale
        return nn.functional.linear(hidden, self.up.to(x.dtype))


class LoraAdapters:
    """The trainable pairs of a transformer, hooked onto its layers.

    Attributes:
        pairs: the matrices by layer name, such as ``blocks.0.self_attn.q``, in the order of the transformer.
        rank: columns of ``up``.
        alpha: the low-rank term is scaled by alpha / rank.
    """

    def __init__(
        self,
        transformer: nn.Module,
        *,
        rank: int = 128,
        alpha: float = 128.0,
        targets: tuple[str, ...] = TARGETS,
        generator: torch.Generator,
        device: torch.device | str = "cpu",
    ):
        if rank < 1 or not alpha > 0:
            raise ValueError(
                f"lora.rank is {rank} and lora.alpha {alpha}: both must be above 0, 128 and 128 as trained by SVI."
            )
        self.rank, self.alpha = rank, alpha
        self.pairs: dict[str, LoraPair] = {}
        for name, layer in _layers(transformer, targets):
            pair = LoraPair(layer.in_features, layer.out_features, rank, alpha / rank, generator).to(device)
            layer.register_forward_hook(_adding(pair))
            self.pairs[name] = pair

    def parameters(self) -> list[nn.Parameter]:
        """Return all trainable parameters, ``down`` before ``up``, in the order of the transformer."""
        return [parameter for pair in self.pairs.values() for parameter in (pair.down, pair.up)]

    @property
    def num_parameters(self) -> int:
        """Count of trained numbers."""
        return sum(parameter.numel() for parameter in self.parameters())

    def state_dict(self) -> dict[str, Tensor]:
        """Return the matrices under ``<layer>.lora_A.weight`` (down) and ``<layer>.lora_B.weight`` (up)."""
        tensors = {}
        for name, pair in self.pairs.items():
            tensors[f"{name}.lora_A.weight"] = pair.down.detach()
            tensors[f"{name}.lora_B.weight"] = pair.up.detach()
        return tensors

    @torch.no_grad()
    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Load the matrices of :meth:`state_dict`.

        Raises:
            ValueError: the layers or the sizes differ.
        """
        own = self.state_dict()
        if differing := sorted(own.keys() ^ tensors.keys()):
            raise ValueError(f"the LoRA's layers differ from the model's in {len(differing)} keys, for example {differing[0]}.")
        for key, value in own.items():
            if value.shape != tensors[key].shape:
                raise ValueError(
                    f"{key} is {list(tensors[key].shape)} in the LoRA but {list(value.shape)} here: rank or size differ."
                )
            value.copy_(tensors[key])


def _adding(pair: LoraPair) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """Return the forward hook that adds the low-rank term of `pair` to a layer's output."""

    def add_low_rank(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return output + pair(inputs[0])

    return add_low_rank


def _layers(transformer: nn.Module, targets: tuple[str, ...]) -> Iterator[tuple[str, nn.Module]]:
    """Yield name and layer of each of `targets` in each block.

    Raises:
        ValueError: a block lacks a target.
    """
    for index, block in enumerate(transformer.blocks):
        known = dict(block.named_modules())
        for target in targets:
            if not hasattr(known.get(target), "in_features"):
                linear = ", ".join(name for name, layer in known.items() if hasattr(layer, "in_features"))
                raise ValueError(f"lora.targets names {target!r}, but the blocks have no such layer: use some of {linear}.")
            yield f"blocks.{index}.{target}", known[target]
