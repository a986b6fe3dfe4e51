"""Sizes of Wan 14B and of one clip, the cost of a pass over them, and the limits of the hardware.

Source: docs/METHOD.md, 1.1 (architecture) and 11.1 (VAE cost; 787 + 900 TFLOP for one forward pass, which the formulas here
give within 1 %).
"""

from dataclasses import dataclass

from svi_core.geometry import LATENT_CHANNELS, num_latent_slots

TEXT_TOKENS = 512
DECODE_TFLOP, DECODED_PIXELS = 271.0, 81 * 832 * 480
PEAK_TFLOPS = {"H200": (989.0, 1979.0), "H100": (989.0, 1979.0)}  # dense bf16 and fp8, from NVIDIA's data sheets


@dataclass(frozen=True)
class Shapes:
    """One video model and one clip.

    Attributes:
        name: for the command line.
        width, height, num_frames: of the clip, in pixels and frames.
        dim, ffn_dim, num_heads, num_layers, text_dim: of the transformer.
        vae_dim: width of the VAE's first layer.
        lora_rank: of the LoRA that is trained.
    """

    name: str
    width: int
    height: int
    num_frames: int
    dim: int
    ffn_dim: int
    num_heads: int
    num_layers: int
    text_dim: int
    vae_dim: int
    lora_rank: int

    @property
    def latent_shape(self) -> tuple[int, int, int, int, int]:
        """[1, 16, F, h, w] of a clip."""
        return 1, LATENT_CHANNELS, num_latent_slots(self.num_frames), self.height // 8, self.width // 8

    @property
    def num_tokens(self) -> int:
        """Tokens of a clip: 2 x 2 latent cells each."""
        _, _, slots, height, width = self.latent_shape
        return slots * (height // 2) * (width // 2)

    @property
    def expert_gb(self) -> float:
        """Size of one expert whose blocks' matrices are fp8."""
        return 1e-9 * self.num_layers * (8 * self.dim**2 + 2 * self.dim * self.ffn_dim)

    @property
    def lora_gb(self) -> float:
        """Size of a bf16 LoRA of :attr:`lora_rank` on all matrices of the blocks."""
        return 2e-9 * self.num_layers * self.lora_rank * (16 * self.dim + 2 * (self.dim + self.ffn_dim))

    @property
    def linear_tflop(self) -> float:
        """Of the linear layers in one forward pass: self-attention 4, cross-attention 2 + 2 of the text, two of the FFN."""
        of_clip = 6 * self.dim**2 + 2 * self.dim * self.ffn_dim
        return 2e-12 * self.num_layers * (self.num_tokens * of_clip + TEXT_TOKENS * 2 * self.dim**2)

    @property
    def attention_tflop(self) -> float:
        """Of the attention sums in one forward pass, over the clip and over the text."""
        return 4e-12 * self.num_layers * self.num_tokens * (self.num_tokens + TEXT_TOKENS) * self.dim

    @property
    def decode_tflop(self) -> float:
        """Of decoding one clip."""
        return DECODE_TFLOP * self.num_frames * self.width * self.height / DECODED_PIXELS

    def clip_limit(self, device_name: str, num_steps: int, bits: int) -> float | None:
        """Return the least seconds in which `device_name` could make a clip with `bits` operands; None if unknown.

        The VAE is counted in bf16.
        """
        peaks = next((peaks for name, peaks in PEAK_TFLOPS.items() if name in device_name), None)
        if peaks is None:
            return None
        transformer = num_steps * (self.linear_tflop + self.attention_tflop) / peaks[bits == 8]
        return transformer + self.decode_tflop / peaks[0]

    def training_limit(self, device_name: str, keeps_attention: bool) -> float | None:
        """Return the least seconds of a bf16 training step with checkpointed blocks and a LoRA; None if unknown.

        Linear layers: forward, again, and the gradient of their input. Attention: forward, again unless it was kept, and
        a backward pass of 2.5 times as many sums.
        """
        peaks = next((peaks for name, peaks in PEAK_TFLOPS.items() if name in device_name), None)
        if peaks is None:
            return None
        return (3 * self.linear_tflop + (3.5 if keeps_attention else 4.5) * self.attention_tflop) / peaks[0]


SHAPES = {
    shapes.name: shapes
    for shapes in (
        Shapes("14b", 832, 480, 81, 5120, 13824, 40, 40, 4096, 96, 128),
        Shapes("tiny", 64, 64, 9, 64, 96, 2, 2, 32, 2, 4),
    )
}
