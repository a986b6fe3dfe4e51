"""Let ComfyUI's stock CLIPLoader (type wan) and CLIPVisionLoader open small encoders.

The stock loaders know one size of umT5 and a few of CLIP vision. With this package in `custom_nodes` they take any
size that the file itself shows; files of the stock sizes load as before. It adds no nodes. Only the demo and the tests need
it.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path

import comfy.clip_vision
import comfy.sd
import comfy.utils
import safetensors

NODE_CLASS_MAPPINGS: dict[str, type] = {}

STOCK_VOCABULARY = 256384
STOCK_TEXT_WIDTH = 4096
VISION_HEAD_WIDTH = 80
Shapes = dict[str, tuple[int, ...]]


def read_shapes(path: str) -> Shapes:
    """Return the shape of every tensor of a safetensors file, from its header alone."""
    with safetensors.safe_open(path, "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}


def count_layers(shapes: Shapes, pattern: str) -> int:
    """Count the distinct layer numbers that a pattern with one group finds in the tensor names."""
    return len({found.group(1) for name in shapes if (found := re.match(pattern, name))})


def umt5_sizes(shapes: Shapes) -> dict[str, int] | None:
    """Return the umT5 settings that differ from the stock ones, or None for a stock-sized or other encoder."""
    if "shared.weight" not in shapes or "encoder.block.0.layer.0.SelfAttention.q.weight" not in shapes:
        return None
    vocabulary, width = shapes["shared.weight"]
    if (vocabulary, width) == (STOCK_VOCABULARY, STOCK_TEXT_WIDTH):
        return None
    heads = shapes["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"][1]
    return {
        "vocab_size": vocabulary,
        "d_model": width,
        "num_heads": heads,
        "num_layers": count_layers(shapes, r"encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.q\.weight"),
        "d_kv": shapes["encoder.block.0.layer.0.SelfAttention.q.weight"][0] // heads,
        "d_ff": shapes["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"][0],
    }


def clip_vision_config(shapes: Shapes) -> dict | None:
    """Return the configuration of a CLIP vision encoder of another size, or None if the file holds none.

    The number of heads is no shape; heads are taken to be 80 wide, as in ViT-H, which Wan 2.1 uses.
    """
    if "vision_model.embeddings.patch_embedding.weight" not in shapes:
        return None
    width, channels, patch, _ = shapes["vision_model.embeddings.patch_embedding.weight"]
    num_patches = shapes["vision_model.embeddings.position_embedding.weight"][0] - 1
    stock = Path(comfy.clip_vision.__file__).with_name("clip_vision_config_h.json")
    return {
        **json.loads(stock.read_text()),
        "hidden_size": width,
        "num_channels": channels,
        "patch_size": patch,
        "image_size": round(num_patches**0.5) * patch,
        "num_hidden_layers": count_layers(shapes, r"vision_model\.encoder\.layers\.(\d+)\."),
        "num_attention_heads": max(1, width // VISION_HEAD_WIDTH),
        "intermediate_size": shapes["vision_model.encoder.layers.0.mlp.fc1.weight"][0],
        "projection_dim": shapes["visual_projection.weight"][0],
    }


def _accept_small_umt5(load_clip):
    """Wrap `comfy.sd.load_clip` so that one safetensors file with a small umT5 brings its own sizes."""

    @functools.wraps(load_clip)
    def load(ckpt_paths, *positional, **named):
        if len(ckpt_paths) == 1 and str(ckpt_paths[0]).endswith(".safetensors") and len(positional) <= 2:
            sizes = umt5_sizes(read_shapes(ckpt_paths[0]))
            if sizes is not None:
                named["model_options"] = {**named.get("model_options", {}), "umt5xxl_model_config": sizes}
        return load_clip(ckpt_paths, *positional, **named)

    return load


def _accept_small_clip_vision(load_clip_vision):
    """Wrap `comfy.clip_vision.load`, which answers None to sizes that it does not know."""

    @functools.wraps(load_clip_vision)
    def load(ckpt_path):
        known = load_clip_vision(ckpt_path)
        if known is not None or not str(ckpt_path).endswith(".safetensors"):
            return known
        config = clip_vision_config(read_shapes(ckpt_path))
        if config is None:
            return None
        encoder = comfy.clip_vision.ClipVisionModel(config)
        missing, unexpected = encoder.load_sd(comfy.utils.load_torch_file(ckpt_path))
        if missing or unexpected:
            raise ValueError(f"{ckpt_path}: tensors missing {list(missing)[:5]}, not expected {list(unexpected)[:5]}")
        return encoder

    return load


comfy.sd.load_clip = _accept_small_umt5(comfy.sd.load_clip)
comfy.clip_vision.load = _accept_small_clip_vision(comfy.clip_vision.load)
