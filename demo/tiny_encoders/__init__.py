"""Let ComfyUI's stock CLIPLoader (type wan) and CLIPVisionLoader open small encoders: sizes are inferred from the file.

ComfyUI fixes the sizes of umT5-XXL and of CLIP ViT-H in its configuration files. This package, linked into custom_nodes by
the demo and the tests only, hands the sizes found in the file to ComfyUI's own loading code. Full-size files pass untouched.
"""

import json
import re

import comfy.clip_vision
import comfy.sd
import comfy.utils
import safetensors

NODE_CLASS_MAPPINGS = {}
UMT5_XXL_VOCABULARY = 256_384
CLIP_VISION_CONFIG = "clip_vision_config"  # metadata key of the tiny CLIP vision files

_stock_load_clip = comfy.sd.load_clip
_stock_load_clip_vision = comfy.clip_vision.load


def umt5_sizes(shapes: dict[str, list[int]]) -> dict[str, int]:
    """Return the umT5 configuration that a file with tensors of these `shapes` needs."""
    blocks = {match[1] for key in shapes if (match := re.match(r"encoder\.block\.(\d+)\.layer\.0\.SelfAttention\.q\.", key))}
    num_heads = shapes["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"][1]
    return {
        "d_model": shapes["shared.weight"][1],
        "vocab_size": shapes["shared.weight"][0],
        "num_layers": len(blocks),
        "num_heads": num_heads,
        "d_kv": shapes["encoder.block.0.layer.0.SelfAttention.q.weight"][0] // num_heads,
        "d_ff": shapes["encoder.block.0.layer.1.DenseReluDense.wi_0.weight"][0],
    }


def load_clip(ckpt_paths, embedding_directory=None, clip_type=comfy.sd.CLIPType.STABLE_DIFFUSION, model_options=None, **rest):
    """ComfyUI's load_clip, with the sizes of a small umT5 filled in."""
    model_options = dict(model_options or {})
    if clip_type == comfy.sd.CLIPType.WAN and len(ckpt_paths) == 1 and ckpt_paths[0].endswith(".safetensors"):
        with safetensors.safe_open(ckpt_paths[0], "pt") as file:
            shapes = {key: file.get_slice(key).get_shape() for key in file.keys()}
        if shapes.get("shared.weight", [UMT5_XXL_VOCABULARY])[0] < UMT5_XXL_VOCABULARY:
            model_options["umt5xxl_model_config"] = umt5_sizes(shapes)
    return _stock_load_clip(ckpt_paths, embedding_directory, clip_type, model_options, **rest)


def load_clip_vision(ckpt_path):
    """ComfyUI's clip_vision.load, for files that carry their own configuration in the header."""
    tensors, metadata = comfy.utils.load_torch_file(ckpt_path, return_metadata=True)
    if CLIP_VISION_CONFIG not in (metadata or {}):
        return _stock_load_clip_vision(ckpt_path)
    model = comfy.clip_vision.ClipVisionModel(json.loads(metadata[CLIP_VISION_CONFIG]))
    missing, unexpected = model.load_sd(tensors)
    if missing or unexpected:
        raise ValueError(f"{ckpt_path} does not fit its own configuration: missing {missing}, unexpected {unexpected}")
    return model


comfy.sd.load_clip = load_clip
comfy.clip_vision.load = load_clip_vision
