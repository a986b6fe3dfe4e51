"""Which LoRAs act on a run's models, at a glance, and whether the SVI LoRA that the layout needs is among them.

A run without it is allowed: the LoRA may be merged into the model's file, and a base model is a fair comparison.
Source: docs/METHOD.md, 10 (what a missing or another SVI LoRA does).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .layouts import Layout
from .lora_variant import LoraVariant
from .merged_files import Merged

_INPUTS = {"model": "model", "high": "model", "low": "model_low_noise"}
_SIDES = {"model": "model", "high": "high noise", "low": "low noise"}


@dataclass(frozen=True)
class AppliedLora:
    """A LoRA on one model.

    Attributes:
        name: its file, or "" if the node that applied it does not say.
        strength: None if not known, or not the same for all weights.
        variant: the SVI system that its name or header says it was trained for.
        num_weights: weights of the transformer that it changes; None if not known.
        is_merge: it is no LoRA, but another model that is merged into this one, with what is on that one.
    """

    name: str
    strength: float | None
    variant: LoraVariant | None = None
    num_weights: int | None = None
    is_merge: bool = False

    @property
    def acts(self) -> bool:
        """Whether it changes the model, as far as is known."""
        return self.strength != 0.0 and self.num_weights != 0

    def __str__(self) -> str:
        weights = "" if self.num_weights is None else f" ({self.num_weights} weights)"
        strength = "" if self.strength is None else f" at {self.strength:g}"
        if self.name and self.strength and self.num_weights == 0:
            return f"{self.name}{strength} (changes nothing)"
        kind = "another model, merged" if self.is_merge else "a LoRA of another node"
        return self.name + strength if self.name else f"{kind}{strength}{weights}"


@dataclass(frozen=True)
class ExpertLoras:
    """The LoRAs on one model input of SVI Generate.

    Attributes:
        expert: "model" for a model without experts, else "high" or "low".
        loras: in the order in which they are applied.
        merged: what is merged into its weights.
    """

    expert: str
    loras: tuple[AppliedLora, ...]
    merged: Merged = Merged()

    @property
    def has_svi(self) -> bool:
        """Whether a LoRA that acts, or one in the model's weights, is known to be SVI's."""
        return self.merged.variant is not None or any(lora.acts and lora.variant for lora in self.loras)

    @property
    def doubt(self) -> str:
        """Why no SVI LoRA is known to act on it, as a clause that ends with "on" or "into"."""
        acting = [lora for lora in self.loras if lora.acts]
        lost = [lora.name for lora in self.loras if lora.strength and not lora.acts]
        if lost:
            return f"the node that applies {', '.join(lost)} finds none of its weights on"
        if self.merged.is_merge or any(lora.is_merge for lora in acting):
            return "it cannot be told whether a LoRA of SVI is merged into"
        return f"nothing says that a LoRA of SVI is among {', '.join(map(str, acting))} on" if acting else "no LoRA is on"


def loras_at_a_glance(experts: Iterable[ExpertLoras]) -> str:
    """Return which LoRAs act on which expert, at which strengths, on one line."""
    lines = (f"{_SIDES[expert.expert]}: {', '.join(map(str, expert.loras)) or 'none'}" for expert in experts)
    return "; ".join(lines)


def missing_lora_warnings(experts: Iterable[ExpertLoras], layout: Layout) -> Iterator[str]:
    """Yield a warning for each reason for which no LoRA of SVI is known to act on one of `experts`."""
    inputs: dict[str, list[str]] = defaultdict(list)
    for expert in experts:
        if not expert.has_svi:
            inputs[expert.doubt].append(_INPUTS[expert.expert])
    for doubt, names in inputs.items():
        yield (
            f"{doubt} {' and '.join(names)}, but layout {layout.name!r} needs the LoRA of SVI: without it clips drift or turn "
            "to noise. Apply it with SVI LoRA Stack; if it is merged into the model's file, name the file after it (svi)."
        )
