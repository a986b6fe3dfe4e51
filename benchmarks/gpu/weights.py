"""Random weight files of the real shapes, written once, tensor by tensor: normal and finite.

Zeros would mislead: GPUs draw less power for them and clock higher (788 TFLOP/s on random numbers were 894 on zeros). Files are
whole or absent, but not made durable: they lie in memory (/dev/shm) where there is room, and can be drawn again.
Sources: docs/METHOD.md, 1.1 (architecture) and 12.4 (ComfyUI's scaled fp8 files, comfy/ops.py, `_quantization_metadata`).
"""

import getpass
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.gpu.shapes import Shapes
from svi_core.files import safetensors_file
from svi_core.files.atomic_file import remove_stale_staging

FP8_MAX = 448.0
LARGEST_DRAW = 6.0  # standard deviations; a scale must cover every number drawn
FIXED_VAE = {"z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": []}
ATTENTION_LAYERS = tuple(f"{kind}_attn.{layer}" for kind in ("self", "cross") for layer in "qkvo")
LORAS = {"svi": 1.0, "distilled": 0.5}  # rank of each over that of SVI's
IN_MEMORY = Path("/dev/shm")
SPACE_GB = 1.0  # for the VAE and for videos


def work_folder(shapes: Shapes) -> Path:
    """Return the folder for weights and videos, made for this user alone: in memory if they fit, else with temporary files.

    Raises:
        ValueError: there is no room, or somebody else made the folder.
    """
    needed = 1e9 * (shapes.expert_gb + 1.5 * shapes.lora_gb + SPACE_GB)
    user = str(os.getuid()) if hasattr(os, "getuid") else getpass.getuser()
    for place in (IN_MEMORY, Path(tempfile.gettempdir())):
        folder = place / f"svi-benchmark-{user}"
        if folder.exists() or (place.is_dir() and shutil.disk_usage(place).free > needed):
            if not folder.is_symlink() and not folder.exists():
                folder.mkdir(mode=0o700)
            _require_ours(folder)
            return folder
    places = f"neither in {IN_MEMORY} nor in {tempfile.gettempdir()}"
    raise ValueError(f"the weights need {needed / 1e9:.0f} GB, which are free {places}: name a folder with --work.")


def _require_ours(folder: Path) -> None:
    """Raise ValueError unless `folder` is one that only this user can write: anybody may make it in a folder of all."""
    facts = folder.lstat()
    is_shared = hasattr(os, "getuid") and (facts.st_uid != os.getuid() or facts.st_mode & 0o022)
    if not stat.S_ISDIR(facts.st_mode) or is_shared:
        raise ValueError(f"{folder} is no folder that only you can write: remove it, or name another with --work.")


def remove_leftovers(work: Path) -> None:
    """Remove half-written files of a run that was killed; they would fill the memory. No other run may use the folder."""
    remove_stale_staging(work / "weights")


def weights_exist(work: Path, shapes: Shapes) -> bool:
    """Whether all files have been written."""
    names = ("expert", "vae", *(f"lora-{name}" for name in LORAS))
    return all(_file(work, shapes, name).exists() for name in names)


def expert_file(work: Path, shapes: Shapes, device: torch.device) -> Path:
    """Return the file of an expert in scaled fp8, written if missing; `device` draws the numbers.

    Both experts are this file, loaded twice: half the memory, and the same work.
    """
    path = _file(work, shapes, "expert")
    if not path.exists():
        _write_expert(path, shapes, torch.Generator(device).manual_seed(0))
    return path


def lora_file(work: Path, shapes: Shapes, device: torch.device, name: str) -> Path:
    """Return the file of a LoRA on all matrices of the blocks, written if missing; `name` is a key of LORAS."""
    path = _file(work, shapes, f"lora-{name}")
    if not path.exists():
        rank = max(1, int(shapes.lora_rank * LORAS[name]))
        _write_lora(path, shapes, rank, torch.Generator(device).manual_seed(rank))
    return path


def _file(work: Path, shapes: Shapes, name: str) -> Path:
    return work / "weights" / f"{shapes.name}-{name}.safetensors"


def _write(path: Path, kinds: dict, tensors: Iterator[torch.Tensor], metadata: dict[str, str]) -> None:
    """Write a file under another name, and give it its own when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors_file.write_tensors_one_by_one(path, kinds, tensors, metadata, durable=False)


def vae_file(work: Path, shapes: Shapes, device: torch.device) -> Path:
    """Return the VAE's file, bf16, written if missing."""
    path = _file(work, shapes, "vae")
    if not path.exists():
        _write_vae(path, shapes, torch.Generator(device).manual_seed(9))
    return path


def transformer_config(shapes: Shapes) -> dict[str, int]:
    """Return the sizes of ComfyUI's WanModel."""
    return {name: getattr(shapes, name) for name in ("dim", "ffn_dim", "num_heads", "num_layers", "text_dim")}


def _write_expert(path: Path, shapes: Shapes, random: torch.Generator) -> None:
    import comfy.ops
    from comfy.ldm.wan.model import WanModel

    sizes = transformer_config(shapes)
    operations = comfy.ops.disable_weight_init
    with torch.device("meta"):
        state = WanModel(model_type="t2v", in_dim=36, out_dim=16, operations=operations, **sizes).state_dict()
    kinds, layers = {}, {}
    for key, value in state.items():
        if is_quantised(key, value):
            kinds[key] = (torch.float8_e4m3fn, value.shape)
            kinds[f"{key}_scale"] = (torch.float32, ())
            layers[key.removesuffix(".weight")] = {"format": "float8_e4m3fn"}
        else:
            kinds[key] = (torch.bfloat16, value.shape)
    metadata = {"config": json.dumps({"transformer": {"num_heads": shapes.num_heads, "text_dim": shapes.text_dim}})}
    metadata["_quantization_metadata"] = json.dumps({"format_version": "1.0", "layers": layers})
    _write(path, kinds, _drawn(state, random), metadata)


def _write_lora(path: Path, shapes: Shapes, rank: int, random: torch.Generator) -> None:
    """Write down and up matrices that change a layer's output by about a tenth of its size."""
    sizes = dict.fromkeys(ATTENTION_LAYERS, (shapes.dim, shapes.dim))
    sizes |= {"ffn.0": (shapes.dim, shapes.ffn_dim), "ffn.2": (shapes.ffn_dim, shapes.dim)}
    parts = {}
    for block in range(shapes.num_layers):
        for layer, (inputs, outputs) in sizes.items():
            key = f"diffusion_model.blocks.{block}.{layer}"
            parts[f"{key}.lora_down.weight"] = ((rank, inputs), inputs**-0.5)
            parts[f"{key}.lora_up.weight"] = ((outputs, rank), 0.1 * rank**-0.5)
    kinds = {key: (torch.bfloat16, shape) for key, (shape, _) in parts.items()}
    drawn = (
        (torch.randn(shape, generator=random, device=random.device) * spread).bfloat16() for shape, spread in parts.values()
    )
    _write(path, kinds, drawn, {})


def _drawn(state: dict[str, torch.Tensor], random: torch.Generator) -> Iterator[torch.Tensor]:
    """Yield the tensors of an expert's file in order: fp8 codes followed by their scale, everything else as bf16."""
    for key, value in state.items():
        number = _draw(key, value.shape, random)
        if is_quantised(key, value):
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
    _write(path, kinds, (_draw(key, value.shape, random).bfloat16() for key, value in state.items()), {})
