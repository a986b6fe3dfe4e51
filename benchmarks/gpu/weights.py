"""Random weight files of the real shapes, written once, tensor by tensor: normal and finite.

Zeros would mislead: GPUs draw less power for them and clock higher (788 TFLOP/s on random numbers were 894 on zeros).
Sources: docs/METHOD.md, 1.1 (architecture) and 12.4 (ComfyUI's scaled fp8 files, comfy/ops.py, `_quantization_metadata`).
"""

import json
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.gpu.shapes import Shapes
from svi_core.files.safetensors_file import write_tensors_one_by_one

FP8_MAX = 448.0
LARGEST_DRAW = 6.0  # standard deviations; a scale must cover every number drawn
KINDS = ("fp8", "bf16")
FIXED_VAE = {"z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": []}


def expert_files(folder: Path, shapes: Shapes, device: torch.device, kind: str) -> tuple[Path, Path]:
    """Return the files of the high- and the low-noise expert, written if missing; `device` draws the numbers.

    In bf16 both are one file of 28 GB, loaded twice, so that a disk of 64 GB has room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{shapes.name}-{name}-{kind}.safetensors" for name in ("high", "low" if kind == "fp8" else "high")]
    for seed, path in enumerate(paths):
        if not path.exists():
            _write_expert(path, shapes, torch.Generator(device).manual_seed(seed), quantised=kind == "fp8")
    return tuple(paths)


def vae_file(folder: Path, shapes: Shapes, device: torch.device) -> Path:
    """Return the VAE's file, bf16, written if missing."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{shapes.name}-vae.safetensors"
    if not path.exists():
        _write_vae(path, shapes, torch.Generator(device).manual_seed(9))
    return path


def transformer_config(shapes: Shapes) -> dict[str, int]:
    """Return the sizes of ComfyUI's WanModel."""
    return {name: getattr(shapes, name) for name in ("dim", "ffn_dim", "num_heads", "num_layers", "text_dim")}


def _write_expert(path: Path, shapes: Shapes, random: torch.Generator, quantised: bool) -> None:
    import comfy.ops
    from comfy.ldm.wan.model import WanModel

    sizes = transformer_config(shapes)
    operations = comfy.ops.disable_weight_init
    with torch.device("meta"):
        state = WanModel(model_type="t2v", in_dim=36, out_dim=16, operations=operations, **sizes).state_dict()
    kinds, layers = {}, {}
    for key, value in state.items():
        if quantised and is_quantised(key, value):
            kinds[key] = (torch.float8_e4m3fn, value.shape)
            kinds[f"{key}_scale"] = (torch.float32, ())
            layers[key.removesuffix(".weight")] = {"format": "float8_e4m3fn"}
        else:
            kinds[key] = (torch.bfloat16, value.shape)
    metadata = {"config": json.dumps({"transformer": {"num_heads": shapes.num_heads, "text_dim": shapes.text_dim}})}
    if quantised:
        metadata["_quantization_metadata"] = json.dumps({"format_version": "1.0", "layers": layers})
    write_tensors_one_by_one(path, kinds, _drawn(state, random, quantised), metadata)


def _drawn(state: dict[str, torch.Tensor], random: torch.Generator, quantised: bool) -> Iterator[torch.Tensor]:
    """Yield the tensors of a file in order: where `quantised`, fp8 codes followed by their scale; everything else as bf16."""
    for key, value in state.items():
        number = _draw(key, value.shape, random)
        if quantised and is_quantised(key, value):
            scale = LARGEST_DRAW * _spread(key, value.shape) / FP8_MAX
            yield (number / scale).clamp_(-FP8_MAX, FP8_MAX).to(torch.float8_e4m3fn)
            yield torch.tensor(scale)
        else:
            yield number.bfloat16()


def is_quantised(key: str, value: torch.Tensor) -> bool:
    """Whether a scaled fp8 file holds `value` in fp8: the matrices of the blocks."""
    return key.startswith("blocks.") and key.endswith(".weight") and value.ndim == 2


def _draw(key: str, shape: torch.Size, random: torch.Generator) -> torch.Tensor:
    """Return fp32 numbers that keep activations near size 1: gains of 1, biases of 0, matrices by their inputs."""
    if key.endswith("bias"):
        return torch.zeros(shape, device=random.device)
    if len(shape) <= 1 or key.endswith("gamma"):
        return torch.ones(shape, device=random.device)
    return torch.randn(shape, generator=random, device=random.device) * _spread(key, shape)


def _spread(key: str, shape: torch.Size) -> float:
    return (shape[-1] if key.endswith("modulation") else shape[1:].numel()) ** -0.5


def _write_vae(path: Path, shapes: Shapes, random: torch.Generator) -> None:
    from comfy.ldm.wan.vae import WanVAE

    with torch.device("meta"):
        state = WanVAE(dim=shapes.vae_dim, temperal_downsample=[False, True, True], **FIXED_VAE).state_dict()
    kinds = {key: (torch.bfloat16, value.shape) for key, value in state.items()}
    write_tensors_one_by_one(path, kinds, (_draw(key, value.shape, random).bfloat16() for key, value in state.items()), {})
