"""Keys of LoRA files: every dialect in use, converted to ComfyUI's.

Source: docs/METHOD.md, 6.2 (the released files); the names of diffusers' layers:
https://github.com/huggingface/diffusers/blob/main/scripts/convert_wan_to_diffusers.py
"""

import re

COMFY_PREFIX = "diffusion_model."
_KOHYA_PREFIX = "lora_unet_"

_WAN_ROOTS = (
    "blocks", "text_embedding", "time_embedding", "time_projection", "patch_embedding", "head", "img_emb",
)  # fmt: skip
_DIFFUSERS_ROOTS = ("condition_embedder", "proj_out", "scale_shift_table")
_WRAPPERS = re.compile(r"(?:(?:pipe|dit|model|module|_orig_mod|base_model|diffusion_model|transformer|transformer_2|unet)\.)*")
_ROOT = re.compile(rf"(?:{'|'.join(_WAN_ROOTS + _DIFFUSERS_ROOTS)})\.")
_FLAT_PREFIX = re.compile(r"lora_unet_+|lora_transformer_|lycoris_")  # kohya, OneTrainer, SimpleTuner's LyCORIS

_OF_BLOCKS = {  # diffusers' names within a block, and Wan's own
    "scale_shift_table": "modulation",
    "norm2": "norm3",  # the norm before cross attention; Wan's own norm2 has no weight
    "ffn.net.0.proj": "ffn.0",
    "ffn.net.2": "ffn.2",
    "attn2.add_k_proj": "cross_attn.k_img",
    "attn2.add_v_proj": "cross_attn.v_img",
    "attn2.norm_added_k": "cross_attn.norm_k_img",
    **{
        f"{theirs}.{their_part}": f"{ours}.{our_part}"
        for theirs, ours in (("attn1", "self_attn"), ("attn2", "cross_attn"))
        for their_part, our_part in (
            ("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "o"), ("norm_q", "norm_q"), ("norm_k", "norm_k"),
        )
    },
}  # fmt: skip
_OUTSIDE_BLOCKS = {
    "scale_shift_table": "head.modulation",
    "proj_out": "head.head",
    "condition_embedder.time_embedder.linear_1": "time_embedding.0",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.text_embedder.linear_2": "text_embedding.2",
    "condition_embedder.time_proj": "time_projection.1",
    "condition_embedder.image_embedder.norm1": "img_emb.proj.0",
    "condition_embedder.image_embedder.ff.net.0.proj": "img_emb.proj.1",
    "condition_embedder.image_embedder.ff.net.2": "img_emb.proj.3",
    "condition_embedder.image_embedder.norm2": "img_emb.proj.4",
    "condition_embedder.image_embedder.pos_embed": "img_emb.emb_pos",
}
_FLAT_OF_BLOCKS, _FLAT_OUTSIDE_BLOCKS = (
    {name.replace(".", "_"): ours for name, ours in names.items()} for names in (_OF_BLOCKS, _OUTSIDE_BLOCKS)
)

_PART = re.compile(
    r"(?:\.lora_(?P<side>A|B)(?:\.(?!bias$|weight$)[\w-]+)?(?:\.weight)?"  # PEFT, with or without the name of the adapter
    r"|(?:[._]lora|\.lora_linear_layer)\.(?P<old_side>down|up)\.weight"
    r"|\.(?P<part>lora_(?:down|up|mid)\.weight|hada_(?:w[12]_[ab]|t[12])|lokr_(?:w[12](?:_[ab])?|t2)|[ab][12]\.weight|oft_blocks"
    r"|rescale|alpha|dora_scale|diff|diff_b|diff_m|w_norm|b_norm|set_weight|reshape_weight))$"
)


def split_key(key: str) -> tuple[str, str]:
    """Return the module of `key` and the part of its adapter in ComfyUI's name, "lora_A.weight" or "alpha" for instance.

    The part is "" where the ending is not known; the module is then all of `key`.
    """
    match = _PART.search(key)
    if match is None:
        return key, ""
    side = match["side"] or {"down": "A", "up": "B", None: ""}[match["old_side"]]
    return key[: match.start()], f"lora_{side}.weight" if side else match["part"]


def canonical_key(key: str) -> str:
    """Return `key` in ComfyUI's dialect, or unchanged if its dialect is unknown.

    ``pipe.dit.blocks.0.ffn.0.lora_A.default.weight`` (SVI 1.0), ``blocks.0...`` (2.0, DiffSynth),
    ``diffusion_model.blocks.0...`` (ComfyUI, kijai, ours) and ``transformer.blocks.0.ffn.net.0.proj...`` (diffusers) all become
    ``diffusion_model.blocks.0.ffn.0.lora_A.weight``; ComfyUI reads kohya's ``lora_unet_blocks_0_ffn_0...``, which stays.
    """
    module, part = split_key(key)
    ending = f".{part}" if part else ""
    if flat := _FLAT_PREFIX.match(module):
        return _of_flat_name(module[flat.end() :]) + ending
    name = module[_WRAPPERS.match(module).end() :]  # pyright: ignore[reportOptionalMemberAccess] (it also matches nothing)
    return COMFY_PREFIX + _renamed(name, _OF_BLOCKS, _OUTSIDE_BLOCKS, ".") + ending if _ROOT.match(f"{name}.") else key


def _of_flat_name(name: str) -> str:
    """Return ComfyUI's name of a module whose parts are joined by underscores."""
    renamed = _renamed(name, _FLAT_OF_BLOCKS, _FLAT_OUTSIDE_BLOCKS, "_")
    return _KOHYA_PREFIX + name if renamed == name else COMFY_PREFIX + renamed


def _renamed(name: str, of_blocks: dict[str, str], outside_blocks: dict[str, str], joint: str) -> str:
    """Return diffusers' `name` of a module as Wan's own with dots; other names stay."""
    block = re.match(rf"blocks{re.escape(joint)}(\d+){re.escape(joint)}", name)
    if block is None:
        return outside_blocks.get(name, name)
    ours = of_blocks.get(name[block.end() :])
    return name if ours is None else f"blocks.{block[1]}.{ours}"
