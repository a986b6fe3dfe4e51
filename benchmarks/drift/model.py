"""The study's video model: Wan's image-to-video architecture, built by ComfyUI, 1.6 million parameters.

Shapes: B examples, S = 6 slots, latents and conditioning latents [B, 16, S, 8, 12], L text tokens, C = 64 text channels.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from demo.models import fast_trunk
from demo.models.latents import CaptionReader, pad_texts
from demo.models.tiny_models import TEXT_WIDTH, build_trunk
from demo.models.train_dit import with_mask
from training.model.adapters import TARGETS, LoraPair

SIZES = {"dim": 144, "ffn_dim": 576, "num_heads": 4, "num_layers": 4, "text_dim": TEXT_WIDTH}


@dataclass(frozen=True)
class Texts:
    """Encoded captions: tokens [N, L, C] and attention logits [N, L], see `fast_trunk.velocity`."""

    tokens: Tensor
    logits: Tensor

    def __getitem__(self, index) -> "Texts":
        return Texts(self.tokens[index], self.logits[index])


def read_captions(captions: Iterable[str]) -> Texts:
    """Encode `captions` with the demo's text encoder, as ComfyUI does."""
    read = CaptionReader()
    return Texts(*pad_texts([read(caption) for caption in captions]))


def build_model(seed: int) -> nn.Module:
    """Return an untrained model."""
    return build_trunk(seed, SIZES)


def predict(model: nn.Module, noisy: Tensor, y_latent: Tensor, sigma: Tensor, texts: Texts) -> Tensor:
    """Return the velocity [B, 16, S, h, w] in fp32; slot 0 of `y_latent` is marked as known. `sigma` is [B]."""
    return fast_trunk.velocity(model, noisy, with_mask(y_latent), 1000.0 * sigma, texts.tokens, texts.logits)


def attach_lora(model: nn.Module, rank: int, generator: torch.Generator) -> dict[str, LoraPair]:
    """Freeze `model` and give each layer that SVI trains a pair of matrices; the new ones replace earlier pairs."""
    model.requires_grad_(False)
    pairs = {}
    for index, block in enumerate(model.blocks):
        for target in TARGETS:
            layer = block.get_submodule(target)
            pair = LoraPair(layer.in_features, layer.out_features, rank, 1.0, generator)
            layer.low_rank = pairs[f"blocks.{index}.{target}"] = pair
    return pairs


def detach_lora(model: nn.Module) -> None:
    """Restore the model from before :func:`attach_lora`."""
    for block in model.blocks:
        for target in TARGETS:
            block.get_submodule(target).low_rank = None


def save_base(model: nn.Module, path: Path) -> None:
    """Write the model's weights atomically."""
    draft = path.with_suffix(".tmp")
    safetensors.torch.save_file({name: p.detach().contiguous() for name, p in model.named_parameters()}, draft)
    draft.replace(path)


def load_base(path: Path) -> nn.Module:
    """Return the model of :func:`save_base`, frozen."""
    model = build_model(0)
    model.load_state_dict(safetensors.torch.load_file(path))
    return model.requires_grad_(False).eval()
