"""Other ways to run the models: a compiled transformer, and a VAE whose weights lie channels last. Neither is exact."""

import time
from collections.abc import Callable
from copy import deepcopy

import torch

from benchmarks.gains.training import two_blocks

TIMESTEP = 500.0


def compiled_pass(sizes) -> tuple[Callable, Callable]:
    """Return the two ways; each returns (CPU seconds of a forward pass of two narrow blocks, its output)."""
    plain = two_blocks(checkpointing=False)[0].transformer
    random = torch.Generator().manual_seed(4)
    x = torch.randn(1, 36, sizes.num_slots, sizes.side, sizes.side, generator=random)
    text = torch.randn(1, 7, 64, generator=random)

    def run(transformer: Callable) -> tuple[float, list[torch.Tensor]]:
        began = time.process_time()
        with torch.inference_mode():
            velocity = transformer(x, torch.tensor([TIMESTEP]), context=text)
        return time.process_time() - began, [velocity]

    compiled = torch.compile(plain, backend=sizes.compiler, dynamic=False)
    return lambda: run(plain), lambda: run(compiled)


def vae_weights(sizes) -> tuple[Callable, Callable]:
    """Return the two ways; each returns (CPU seconds of decoding a latent, its frames)."""
    random = torch.Generator().manual_seed(5)
    vae = random_vae(sizes.vae_dim)
    latent = torch.randn(1, 16, sizes.decoded_slots, sizes.decoded_side, sizes.decoded_side, generator=random)

    def run(decoder) -> tuple[float, list[torch.Tensor]]:
        began = time.process_time()
        with torch.inference_mode():
            frames = decoder.decode(latent)
        return time.process_time() - began, [frames]

    channels_last = deepcopy(vae)
    for module in channels_last.modules():
        if isinstance(module, torch.nn.Conv3d | torch.nn.Conv2d):
            wanted = torch.channels_last_3d if isinstance(module, torch.nn.Conv3d) else torch.channels_last
            module.weight.data = module.weight.data.to(memory_format=wanted)
    return lambda: run(vae), lambda: run(channels_last)


def random_vae(dim: int):
    """Return ComfyUI's VAE with random weights of unit gain; `dim` is the width of its first layer."""
    from comfy.ldm.wan.vae import WanVAE

    from benchmarks.gpu.weights import FIXED_VAE

    random = torch.Generator().manual_seed(7)
    vae = WanVAE(dim=dim, temperal_downsample=[False, True, True], **FIXED_VAE).requires_grad_(False).eval()
    with torch.no_grad():
        for name, weight in vae.named_parameters():
            spread = 1.0 if name.endswith("gamma") else weight[0].numel() ** -0.5 if weight.ndim > 1 else 0.0
            weight.copy_(torch.randn(weight.shape, generator=random) * spread if weight.ndim > 1 else spread)
    return vae
