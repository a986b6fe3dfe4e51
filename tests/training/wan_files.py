"""Small random Wan transformers as files, in every way that weights are stored."""

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

SIZES = {"dim": 64, "ffn_dim": 96, "num_heads": 2, "num_layers": 3, "text_dim": 32}
HEADER = {"config": json.dumps({"transformer": {"num_heads": SIZES["num_heads"], "text_dim": SIZES["text_dim"]}})}
STORAGES = ("fp32", "bf16", "fp8", "fp8_scaled", "int8")
NUM_LAYERS = SIZES["num_layers"] * 10


def transformer_weights(
    model_type: str = "t2v", in_dim: int = 36, seed: int = 1, transformer: str = "WanModel"
) -> dict[str, torch.Tensor]:
    """Return random fp32 weights of unit gain; "i2v" adds Wan 2.1's image embedding."""
    import comfy.ldm.wan.model
    import comfy.ops

    make = getattr(comfy.ldm.wan.model, transformer)
    model = make(model_type=model_type, in_dim=in_dim, out_dim=16, operations=comfy.ops.disable_weight_init, **SIZES)
    generator = torch.Generator().manual_seed(seed)
    filled = {}
    for name, parameter in model.state_dict().items():
        if parameter.ndim <= 1:
            value = torch.zeros(parameter.shape) if name.endswith("bias") else torch.ones(parameter.shape)
        else:
            fan_in = parameter.shape[-1] if name.endswith("modulation") else parameter[0].numel()
            value = torch.randn(parameter.shape, generator=generator) * fan_in**-0.5
        filled[name] = value
    return filled


def write_all(folder: Path) -> None:
    """Write one file per storage, a Wan 2.1 image-to-video file, and files that training must refuse."""
    weights = transformer_weights()
    save_file(weights, folder / "fp32.safetensors", HEADER)
    save_file({key: value.bfloat16() for key, value in weights.items()}, folder / "bf16.safetensors", HEADER)
    save_file({key: _fp8_matrix(key, value) for key, value in weights.items()}, folder / "fp8.safetensors", HEADER)
    scaled, layers = scaled_fp8(weights)
    quantization = json.dumps({"format_version": "1.0", "layers": layers})
    save_file(scaled, folder / "fp8_scaled.safetensors", HEADER | {"_quantization_metadata": quantization})
    save_file(int8(weights), folder / "int8.safetensors", HEADER)
    save_file(transformer_weights("i2v"), folder / "wan21_i2v.safetensors", HEADER)
    save_file(transformer_weights(in_dim=16), folder / "t2v.safetensors", HEADER)


def scaled_fp8(weights: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], dict[str, dict[str, str]]]:
    """Return the weights with the blocks' matrices as fp8 codes and one scale each, and the header's list of layers."""
    scaled, layers = {}, {}
    for key, value in weights.items():
        if _is_block_matrix(key, value):
            scale = value.abs().max() / 448.0
            scaled[key] = (value / scale).to(torch.float8_e4m3fn)
            scaled[f"{key.removesuffix('weight')}weight_scale"] = scale
            layers[key.removesuffix(".weight")] = {"format": "float8_e4m3fn"}
        else:
            scaled[key] = value.half()
    return scaled, layers


def int8(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights with the blocks' matrices as INT8 codes, one scale per row, as ComfyUI stores them."""
    stored, config = {}, torch.tensor(list(json.dumps({"format": "int8_tensorwise"}).encode()), dtype=torch.uint8)
    for key, value in weights.items():
        if _is_block_matrix(key, value):
            scale, layer = value.abs().amax(1, keepdim=True) / 127, key.removesuffix("weight")
            codes = (value / scale).round().to(torch.int8)
            stored |= {key: codes, f"{layer}weight_scale": scale, f"{layer}comfy_quant": config.clone()}
        else:
            stored[key] = value.half()
    return stored


def _fp8_matrix(key: str, value: torch.Tensor) -> torch.Tensor:
    return value.to(torch.float8_e4m3fn) if _is_block_matrix(key, value) else value.half()


def _is_block_matrix(key: str, value: torch.Tensor) -> bool:
    return key.startswith("blocks.") and key.endswith(".weight") and value.ndim == 2
