"""The settings of the LoRA.

Source: docs/METHOD.md, 9.8 (hyper-parameters) and 6.1 (layout of the weights).
"""

from dataclasses import dataclass

from training.settings.checks import require


@dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """The adapters.

    Attributes:
        start_from: a LoRA file that the run begins with, a path or a name in ComfyUI's models/loras: ours, SVI's, kijai's, or
            any plain LoRA. Empty: a fresh LoRA. It is read once; a resumed run no longer needs it.
        rank: columns of the up matrix. A file of a higher rank is cut by singular value decomposition, one of a lower rank
            extended without a change; 0: rank and alpha of the file.
        alpha: the LoRA is scaled by alpha / rank.
        targets: layers with a LoRA: q, k, v, o (in self- and cross-attention), ffn.0, ffn.2.
        file_dtype: dtype of the saved file, "fp16", "bf16" or "fp32"; training itself uses fp32.
    """

    start_from: str = ""
    rank: int = 128
    alpha: float = 128.0
    targets: tuple[str, ...] = ("q", "k", "v", "o", "ffn.0", "ffn.2")
    file_dtype: str = "fp16"

    def __post_init__(self):
        fits = self.rank >= (0 if self.start_from else 1)
        require(fits, "lora.rank", self.rank, "1 or more, 128 as trained by SVI; 0 needs lora.start_from, whose rank it keeps")
        require(self.alpha > 0, "lora.alpha", self.alpha, "a number above 0, the rank as trained by SVI")
        require(bool(self.targets), "lora.targets", self.targets, "at least one layer")
        require(self.file_dtype in ("fp16", "bf16", "fp32"), "lora.file_dtype", self.file_dtype, "fp16, bf16 or fp32")
