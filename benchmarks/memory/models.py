"""The counted jobs: Wan's transformer and VAE at real shapes on PyTorch's meta device, run by the real code."""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from benchmarks.gpu.shapes import TEXT_TOKENS, Shapes
from benchmarks.gpu.weights import FIXED_VAE, is_quantised, transformer_config
from benchmarks.memory.count import LiveBytes
from training.model.host_memory import Shelf

META = torch.device("meta")
BYTES_BF16 = 2


def transformer(shapes: Shapes) -> nn.Module:
    """Return ComfyUI's transformer in bf16, frozen, without numbers."""
    import comfy.ops
    from comfy.ldm.wan.model import WanModel

    sizes = transformer_config(shapes) | {"operations": comfy.ops.disable_weight_init, "dtype": torch.bfloat16}
    with META:
        return WanModel(model_type="t2v", in_dim=36, out_dim=16, **sizes).requires_grad_(False)


def weight_bytes(module: nn.Module, prefix: str = "") -> int:
    """Return the bytes of `module`'s weights in a scaled fp8 file: 1 for each number of a block's matrices, 2 for others."""
    named = {f"{prefix}{name}": weight for name, weight in module.named_parameters()}
    return sum(weight.numel() * (1 if is_quantised(name, weight) else BYTES_BF16) for name, weight in named.items())


def sampling_bytes(shapes: Shapes) -> int:
    """Return the most bytes of tensors in one forward pass over a clip, weights left out."""
    model = transformer(shapes)
    x = torch.empty(1, 36, *shapes.latent_shape[2:], device=META, dtype=torch.bfloat16)
    text = torch.empty(1, TEXT_TOKENS, shapes.text_dim, device=META, dtype=torch.bfloat16)
    with torch.inference_mode(), LiveBytes(model.parameters()) as live, _flash_attention():
        model(x, torch.empty(1, device=META), context=text, transformer_options={"optimized_attention_override": _attend})
    return live.peak


def decoding_bytes(shapes: Shapes) -> int:
    """Return the most bytes of tensors while a clip is decoded as the pack does: 1 slot, then 2 at a time."""
    from comfy.ldm.wan.vae import WanVAE, count_cache_layers

    with META:
        vae = WanVAE(dim=shapes.vae_dim, temperal_downsample=[False, True, True], **FIXED_VAE).bfloat16().requires_grad_(False)
    latent = torch.empty(shapes.latent_shape, device=META, dtype=torch.bfloat16)
    with torch.inference_mode(), LiveBytes(vae.parameters()) as live:
        latent, state = vae.conv2(latent), [None] * count_cache_layers(vae.decoder)
        for start in (0, *range(1, latent.shape[2], 2)):
            slots = latent[:, :, start : start + (2 if start else 1)]
            torch.cat(vae.decoder(slots, feat_cache=state, feat_idx=[0]), dim=2).float()
    return live.peak


class _OnHost:
    """A block's input that block_memory keeps in host memory: no bytes on the card until it, or the one behind it, returns."""

    def __init__(self, like: Tensor, shelf: Shelf):
        self.shape, self.dtype, self._before, self._fetched = like.shape, like.dtype, shelf.last, None
        shelf.last = weakref.ref(self)

    def fetch(self) -> None:
        """Bring the input to the card."""
        if self._fetched is None:
            self._fetched = torch.empty(self.shape, dtype=self.dtype, device=META)

    def take(self) -> Tensor:
        """Return the input to the card; the one before it is on its way then."""
        self.fetch()
        x, self._fetched = self._fetched, None
        if self._before is not None:
            self._before().fetch()
        return x


def training_bytes(shapes: Shapes, offload: bool, keep_attention: bool = False) -> tuple[int, int]:
    """Return the most bytes of tensors in the trainer's forward and backward pass, and those of the LoRA's matrices.

    Gradients of the LoRA are in the first; the frozen weights, the LoRA and the optimizer's state are not.
    """
    import comfy.model_management

    from training.model import block_memory
    from training.model.adapters import LoraAdapters
    from training.model.backbone import Backbone
    from training.model.conditions import Conditions
    from training.settings.sections import MemoryConfig

    comfy.model_management.in_training = True
    model = transformer(shapes)
    rank = shapes.lora_rank
    lora = LoraAdapters(model, rank=rank, alpha=float(rank), generator=torch.Generator(), device=META)
    backbone = Backbone(model, SimpleNamespace(), META, torch.bfloat16, "", "")
    backbone.use_memory(lora.parameters()[0], MemoryConfig(offload_block_inputs=offload, keep_attention=keep_attention))
    latent, mask = (torch.empty(1, channels, *shapes.latent_shape[2:], device=META) for channels in (16, 1))
    text = torch.empty(1, TEXT_TOKENS, shapes.text_dim, device=META)
    frozen = [*model.parameters(), *lora.parameters()]
    conditions, stored = Conditions(latent, mask, text, None), block_memory.StoredInput
    block_memory.StoredInput = _OnHost
    try:
        with LiveBytes(frozen) as live, _flash_attention():
            backbone.velocity(latent, torch.empty(1, device=META), conditions).square().mean().backward()
    finally:
        block_memory.StoredInput = stored
    return live.peak, sum(weight.nbytes for weight in lora.parameters())


def _attend(func: Callable, q: Tensor, k: Tensor, v: Tensor, heads: int, *rest, **options) -> Tensor:
    split = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v))
    return nn.functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)


@contextmanager
def _flash_attention() -> Iterator[None]:
    """Let attention keep what PyTorch's FlashAttention keeps; on the meta device it would take the plain formula."""
    plain = nn.functional.scaled_dot_product_attention

    def flash(q: Tensor, k: Tensor, v: Tensor, attn_mask: None = None) -> Tensor:
        return torch.ops.aten._scaled_dot_product_flash_attention(q, k, v)[0]

    nn.functional.scaled_dot_product_attention = flash
    try:
        yield
    finally:
        nn.functional.scaled_dot_product_attention = plain
