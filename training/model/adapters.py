"""LoRA on a frozen Wan transformer: which layers, how a pair of matrices starts, and how it joins the forward pass.

A pair is added by a forward hook, ``layer(x) + scale * up(down(x))``: the frozen layer is never touched, so the same few
lines serve bf16, fp8-cast and scaled-fp8 layers (the last are no `nn.Linear`, so PEFT cannot wrap them; ComfyUI's own
bypass adapters need their matrices in the dtype of the input, ours are fp32 whatever that is).
Source: docs/METHOD.md, 9.8 (targets, rank, alpha, initial values) and 6.1 (400 layers of the 14B model).
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

TARGETS = (
    *(f"self_attn.{name}" for name in "qkvo"),
    *(f"cross_attn.{name}" for name in "qkvo"),
    "ffn.0",
    "ffn.2",
)


def expand_targets(short: Sequence[str]) -> tuple[str, ...]:
    """Return the layers that short names mean: ``q`` is that of self- and of cross-attention; full names stay.

    The result is in the order of :data:`TARGETS`, so that the order in a config file changes nothing.
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

    def forward(self, x: Tensor) -> Tensor:
        """Return the low-rank term for `x` [..., in features], computed in the dtype of `x`.

        It is scaled while it is narrow: scaling the wide result would be one more pass over it, forward and backward.
        """
        hidden = nn.functional.linear(x, self.down.to(x.dtype)) * self.scale
        return nn.functional.linear(hidden, self.up.to(x.dtype))


class LoraAdapters:
    """The trainable pairs of a transformer, hooked onto its layers.

    Attributes:
        pairs: by the layer's name, ``blocks.0.self_attn.q`` and so on, in the order of the transformer.
        rank: columns of ``up``.
        alpha: the term is scaled by alpha / rank.
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
        self._enabled = True
        for name, layer in _layers(transformer, targets):
            pair = LoraPair(layer.in_features, layer.out_features, rank, alpha / rank, generator).to(device)
            layer.register_forward_hook(self._hook(pair))
            self.pairs[name] = pair

    def _hook(self, pair: LoraPair):
        def add_low_rank(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output + pair(inputs[0]) if self._enabled else output

        return add_low_rank

    def parameters(self) -> list[nn.Parameter]:
        """Return all trainable parameters, ``down`` before ``up``, in the order of the transformer."""
        return [parameter for pair in self.pairs.values() for parameter in (pair.down, pair.up)]

    @property
    def num_parameters(self) -> int:
        """Numbers that are trained."""
        return sum(parameter.numel() for parameter in self.parameters())

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Let the transformer run as it was before training."""
        self._enabled = False
        try:
            yield
        finally:
            self._enabled = True

    def state_dict(self) -> dict[str, Tensor]:
        """Return the matrices under ``<layer>.lora_A.weight`` (down) and ``<layer>.lora_B.weight`` (up)."""
        tensors = {}
        for name, pair in self.pairs.items():
            tensors[f"{name}.lora_A.weight"] = pair.down.detach()
            tensors[f"{name}.lora_B.weight"] = pair.up.detach()
        return tensors

    @torch.no_grad()
    def load_state_dict(self, tensors: dict[str, Tensor]) -> None:
        """Take the matrices of :meth:`state_dict`.

        Raises:
            ValueError: another set of layers, or matrices of another size.
        """
        own = self.state_dict()
        if differing := sorted(own.keys() ^ tensors.keys()):
            raise ValueError(f"the LoRA has other layers than the model, {differing[0]} among {len(differing)} keys.")
        for key, value in own.items():
            if value.shape != tensors[key].shape:
                raise ValueError(
                    f"{key} is {list(tensors[key].shape)} in the LoRA but {list(value.shape)} here: other rank or size."
                )
            value.copy_(tensors[key])


def _layers(transformer: nn.Module, targets: tuple[str, ...]) -> Iterator[tuple[str, nn.Module]]:
    """Yield the name and layer of each of `targets` in each block.

    Raises:
        ValueError: a target that a block does not have.
    """
    for index, block in enumerate(transformer.blocks):
        known = dict(block.named_modules())
        for target in targets:
            if not hasattr(known.get(target), "in_features"):
                linear = ", ".join(name for name, layer in known.items() if hasattr(layer, "in_features"))
                raise ValueError(f"lora.targets names {target!r}, which no block has: use some of {linear}.")
            yield f"blocks.{index}.{target}", known[target]
