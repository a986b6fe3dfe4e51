"""The frozen Wan transformer: ``velocity(noisy_latent, sigma, conditions)``.

Training runs on ComfyUI's own modules, in bf16, fp8-cast and scaled fp8 alike, so a LoRA is trained on exactly the model that
generation uses. This file knows how ComfyUI calls the transformer, `training.model.loading` how it builds one.
Source: docs/METHOD.md, 2.1 (input channels) and 12.4 (traps of training through ComfyUI).
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from svi_core.flow.flow_matching import NUM_TRAINING_IDS
from training.model.block_memory import BlockMemory, KeptAttention
from training.model.conditions import Conditions
from training.model.speech_layers import SpeechLayers
from training.settings.sections import MemoryConfig

MASK_CHANNELS = 4
TEXT_TOKENS = 512  # ComfyUI pads every prompt to this with zero embeddings, which the model attends to
BLOCK_0 = ("double_block", 0)  # ComfyUI's name of the first block, where pose tokens join the patch tokens
ATTENTION = {
    "auto": None,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


@dataclass
class Backbone:
    """A frozen Wan image-to-video transformer.

    Attributes:
        transformer: ComfyUI's WanModel.
        model: ComfyUI's model object around it, for its LoRA key map and latent format.
        device: where it computes.
        compute_dtype: dtype of its activations.
        name: the model file's name.
        fingerprint: the model file's hash.
        attention: a key of :data:`ATTENTION`.
        speech: the audio layers of SVI-Talk; None for the other systems.
        kept: where self-attention of the running block is kept.
        is_opaque: whether attention stays out of compiled blocks.
    """

    transformer: nn.Module
    model: nn.Module
    device: torch.device
    compute_dtype: torch.dtype
    name: str
    fingerprint: str
    attention: str = "auto"
    speech: SpeechLayers | None = None
    kept: KeptAttention = field(default_factory=KeptAttention, repr=False)
    is_opaque: bool = False

    @property
    def needs_clip_vision(self) -> bool:
        """Whether the model has an image embedding (Wan 2.1) and so needs CLIP vision features."""
        return self.transformer.img_emb is not None

    def velocity(self, noisy_latent: Tensor, sigma: Tensor, conditions: Conditions) -> Tensor:
        """Return the predicted velocity, noise - latent, as fp32 [B, 16, F, h, w].

        Args:
            noisy_latent: [B, 16, F, h, w], normalised.
            sigma: [B] in [0, 1].

        Raises:
            ValueError: CLIP vision features are missing where the model needs them.
        """
        if self.needs_clip_vision and conditions.clip_vision is None:
            raise ValueError(
                "this model has an image embedding (Wan 2.1 I2V) but the clip has no CLIP vision features: set "
                "model.clip_vision and run `python -m training.cache` again."
            )
        mask = conditions.mask.expand(-1, MASK_CHANNELS, -1, -1, -1)
        parts = (noisy_latent, mask, conditions.y_latent)
        x = torch.cat([self._on_device(part) for part in parts], dim=1)
        text = self._on_device(conditions.text)
        text = nn.functional.pad(text, (0, 0, 0, max(0, TEXT_TOKENS - text.shape[1])))
        clip_vision = self._on_device(conditions.clip_vision) if self.needs_clip_vision else None
        options = {"optimized_attention_override": self.attend, **self._patches(conditions)}
        timestep = (sigma * NUM_TRAINING_IDS).to(self.device, torch.float32)
        return self.transformer(x, timestep, context=text, clip_fea=clip_vision, transformer_options=options).float()

    def add_speech(self, speech: SpeechLayers) -> None:
        """Add audio layers to the blocks.

        Raises:
            ValueError: the layers are for a model of another size.
        """
        speech.attach(self.transformer)
        self.speech = speech

    def use_memory(self, trainable: Tensor, memory: MemoryConfig) -> None:
        """Arrange the blocks for training in little memory. Call it once, after the LoRA is attached.

        Args:
            trainable: any trained parameter.
            memory: the settings; the last `swapped_blocks` blocks keep their weights in host memory.

        Raises:
            ValueError: there are fewer blocks than `swapped_blocks`, or two settings exclude each other.
        """
        blocks = list(self.transformer.blocks)
        if memory.keep_attention and self.attention == "math":
            raise ValueError(
                "memory.keep_attention cannot be combined with memory.attention = 'math', which is no single kernel: turn one "
                "of them off."
            )
        if not 0 <= memory.swapped_blocks <= len(blocks):
            raise ValueError(
                f"memory.swapped_blocks is {memory.swapped_blocks}, but the model has {len(blocks)} blocks: use at most that."
            )
        self.is_opaque = memory.compile and memory.keep_attention
        arranged = BlockMemory(self.device, trainable, memory, self.kept)
        for index, block in enumerate(blocks):
            if memory.compile:
                block.forward = _compiled(block.forward)
            swap = index >= len(blocks) - memory.swapped_blocks
            arranged.save(block, swap)
            if not swap:
                block.to(self.device)

    def _patches(self, conditions: Conditions) -> dict[str, object]:
        """Return the transformer options that add poses and sound, at the places where SVI's nodes patch the model."""
        options: dict[str, object] = {}
        if conditions.pose_tokens is not None:
            options["patches_replace"] = {"dit": {BLOCK_0: _adding(self._on_device(conditions.pose_tokens))}}
        if conditions.sound_tokens is not None:
            options |= self.speech.options(self._on_device(conditions.sound_tokens))
        return options

    def _on_device(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.compute_dtype)

    def attend(self, func, q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None, **_ignored) -> Tensor:
        """Replace ComfyUI's attention by PyTorch's, whose kernels have a backward; q, k, v: [B, tokens, heads * width]."""
        return (self._attend_uncompiled if self.is_opaque else self._attend)(q, k, v, heads, mask)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None) -> Tensor:
        split = [t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v)]
        backend = ATTENTION[self.attention]
        with sdpa_kernel(backend) if backend is not None else nullcontext(), self.kept.around(*split[:2]):
            out = nn.functional.scaled_dot_product_attention(*split, attn_mask=mask)
        return out.transpose(1, 2).flatten(2)

    @torch.compiler.disable
    def _attend_uncompiled(self, q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None) -> Tensor:
        """Attend outside compiled code, where what was kept can be put in place of the kernel."""
        return self._attend(q, k, v, heads, mask)


def _compiled(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a block's compiled forward, which fails where PyTorch would give up after too many variants, without a word."""
    import torch._dynamo
    from torch._dynamo.exc import FailOnRecompileLimitHit

    compiled = torch.compile(forward, dynamic=False)

    def run(*inputs: Tensor, **conditions) -> Tensor:
        try:
            with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
                return compiled(*inputs, **conditions)
        except FailOnRecompileLimitHit as error:
            raise ValueError(
                "memory.compile is true, but the blocks of this model need more variants of one function than PyTorch compiles "
                f"({torch._dynamo.config.recompile_limit}, its recompile_limit): set it to false."
            ) from error

    return run


def _adding(tokens: Tensor) -> Callable[[Mapping, Mapping], Mapping]:
    """Return a block replacement, in ComfyUI's terms, that adds `tokens` to the block's input and keeps the gradient."""

    def run(args: Mapping, extra: Mapping) -> Mapping:
        if args["img"].shape != tokens.shape:
            raise ValueError(
                f"the poses make tokens {list(tokens.shape)}, but the clip's are {list(args['img'].shape)}: poses and clip are "
                "of different sizes or lengths; run python -m training.cache again."
            )
        return extra["original_block"]({**args, "img": args["img"] + tokens})

    return run
