"""The study's video model: Wan's image-to-video architecture as ComfyUI builds and runs it, 1.1 million parameters.

Shapes: B examples, S slots, latents and conditioning latents [B, 16, S, h, w].
"""

from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from demo.models.comfy_import import import_comfy
from demo.models.tiny_models import TEXT_WIDTH, build_trunk
from demo.models.train_dit import with_mask
from svi_core.files.atomic_file import write_bytes
from svi_core.flow.flow_matching import make_flow_sample

from .world import FLOWS

SIZES = {"dim": 136, "ffn_dim": 272, "num_heads": 4, "num_layers": 4, "text_dim": TEXT_WIDTH}
NO_CAPTION = len(FLOWS)  # the number of captions


def open_comfy() -> None:
    """Import ComfyUI for training; one thread, since the models are too small for more."""
    torch.set_num_threads(1)
    import_comfy()
    import comfy.model_management

    comfy.model_management.in_training = True  # its rotary kernel for inference has no gradient


def build_model(seed: int) -> nn.Module:
    """Return an untrained model."""
    return build_trunk(seed, SIZES)


def predict(model: nn.Module, noisy: Tensor, y_latent: Tensor, sigma: Tensor, captions: Tensor) -> Tensor:
    """Return the velocity [B, 16, S, h, w]; slot 0 of `y_latent` is marked as known. `sigma` and `captions` are [B]."""
    return model(torch.cat([noisy, with_mask(y_latent)], dim=1), 1000.0 * sigma, _texts()[captions])


def velocity_error(
    model: nn.Module, latent: Tensor, noise: Tensor, y_latent: Tensor, sigma: Tensor, captions: Tensor
) -> Tensor:
    """Return predicted - true velocity [B, 16, S, h, w] of clips `latent` with `noise` added at levels `sigma` [B]."""
    sample = make_flow_sample(latent, noise, sigma)
    return predict(model, sample.noisy_latent, y_latent, sigma, captions) - sample.velocity


def _texts() -> Tensor:
    """Return the tokens of each caption, and zeros for none: [3, 2, 64]."""
    flows = torch.randn(len(FLOWS), 2, TEXT_WIDTH, generator=torch.Generator().manual_seed(78))
    return torch.cat([flows, torch.zeros(1, 2, TEXT_WIDTH)])


def save_model(model: nn.Module, path: Path) -> None:
    """Write the model's weights atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: p.detach().contiguous() for name, p in model.named_parameters()}
    write_bytes(path, safetensors.torch.save(tensors))


def load_model(path: Path) -> nn.Module:
    """Return the model of :func:`save_model`, frozen."""
    model = build_model(0)
    model.load_state_dict(safetensors.torch.load_file(path))
    return model.requires_grad_(False).eval()
