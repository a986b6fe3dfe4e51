"""Every key dialect in use becomes ComfyUI's."""

import pytest

from svi_core.systems.lora_keys import canonical_key, split_key

# The 400 linears that SVI adapts in the 14B model (docs/METHOD.md, 6.1): q, k, v, o of both attentions and the two of the ffn.
MODULES = [
    f"blocks.{block}.{layer}"
    for block in range(40)
    for layer in (*(f"{a}.{p}" for a in ("self_attn", "cross_attn") for p in "qkvo"), "ffn.0", "ffn.2")
]

DIALECTS = {
    "svi 1.0": "pipe.dit.{}.lora_A.default.weight",
    "svi 2.x official": "{}.lora_A.default.weight",
    "comfy, kijai, ours": "diffusion_model.{}.lora_A.weight",
    "diffsynth": "{}.lora_A.weight",
    "lightning checkpoint": "model.pipe.dit.{}.lora_A.default.weight",
    "compiled": "_orig_mod.dit.{}.lora_A.weight",
    "peft": "base_model.model.{}.lora_A.weight",
}


def test_there_are_400_modules():
    assert len(set(MODULES)) == 400


@pytest.mark.parametrize("form", DIALECTS.values(), ids=DIALECTS)
def test_every_dialect_becomes_comfys_on_all_400_modules(form):
    expected = [f"diffusion_model.{module}.lora_A.weight" for module in MODULES]
    assert [canonical_key(form.format(module)) for module in MODULES] == expected
    assert {split_key(key)[0] for key in expected} == {f"diffusion_model.{module}" for module in MODULES}


def test_kohya_keys_are_comfys_own():
    key = "lora_unet_blocks_0_self_attn_q.lora_down.weight"
    assert canonical_key(key) == key and split_key(key)[0] == "lora_unet_blocks_0_self_attn_q"


@pytest.mark.parametrize(
    "key",
    ["text_model.encoder.layers.0.fc1.lora_A.weight", "double_blocks.0.img_attn.lora_A.weight", "dwpose_embedding.0.weight"],
)
def test_keys_of_other_models_are_left_alone(key):
    assert canonical_key(key) == key


@pytest.mark.parametrize(
    "suffix",
    [
        "hada_w1_a",
        "hada_t2",
        "lokr_w1",
        "lokr_w2_b",
        "a1.weight",
        "b2.weight",
        "oft_blocks",
        "w_norm",
        "reshape_weight",
        "lora_mid.weight",
    ],
)
def test_endings_of_other_adapters_are_known(suffix):
    assert split_key(f"x.{suffix}") == ("x", suffix)


@pytest.mark.parametrize("suffix", ["alpha", "diff", "diff_b", "lora_up.weight", "lora_B.default.weight", "dora_scale"])
def test_module_is_the_key_without_its_ending(suffix):
    assert split_key(f"diffusion_model.blocks.0.ffn.0.{suffix}")[0] == "diffusion_model.blocks.0.ffn.0"


def test_an_unknown_ending_is_part_of_the_module():
    for key in ("x.lora_B.bias", "x.lora_magnitude_vector.default.weight", "x.weight", "x"):
        assert split_key(key) == (key, "")


# Wan's own names and those of diffusers' WanTransformer3DModel.
DIFFUSERS = {
    "blocks.3.self_attn.q": "blocks.3.attn1.to_q",
    "blocks.3.self_attn.k": "blocks.3.attn1.to_k",
    "blocks.3.self_attn.v": "blocks.3.attn1.to_v",
    "blocks.3.self_attn.o": "blocks.3.attn1.to_out.0",
    "blocks.3.self_attn.norm_q": "blocks.3.attn1.norm_q",
    "blocks.3.cross_attn.q": "blocks.3.attn2.to_q",
    "blocks.3.cross_attn.k": "blocks.3.attn2.to_k",
    "blocks.3.cross_attn.v": "blocks.3.attn2.to_v",
    "blocks.3.cross_attn.o": "blocks.3.attn2.to_out.0",
    "blocks.3.cross_attn.norm_k": "blocks.3.attn2.norm_k",
    "blocks.3.cross_attn.k_img": "blocks.3.attn2.add_k_proj",
    "blocks.3.cross_attn.v_img": "blocks.3.attn2.add_v_proj",
    "blocks.3.cross_attn.norm_k_img": "blocks.3.attn2.norm_added_k",
    "blocks.3.ffn.0": "blocks.3.ffn.net.0.proj",
    "blocks.3.ffn.2": "blocks.3.ffn.net.2",
    "blocks.3.norm3": "blocks.3.norm2",
    "blocks.3.modulation": "blocks.3.scale_shift_table",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "img_emb.proj.0": "condition_embedder.image_embedder.norm1",
    "img_emb.proj.1": "condition_embedder.image_embedder.ff.net.0.proj",
    "img_emb.proj.3": "condition_embedder.image_embedder.ff.net.2",
    "img_emb.proj.4": "condition_embedder.image_embedder.norm2",
    "img_emb.emb_pos": "condition_embedder.image_embedder.pos_embed",
    "head.head": "proj_out",
    "head.modulation": "scale_shift_table",
    "patch_embedding": "patch_embedding",
}
ENDINGS = {
    ".lora_A.weight": "lora_A.weight",
    ".lora_B.default.weight": "lora_B.weight",
    ".lora_A.my-style.weight": "lora_A.weight",
    ".lora.down.weight": "lora_A.weight",
    ".lora.up.weight": "lora_B.weight",
    "_lora.up.weight": "lora_B.weight",
    ".lora_linear_layer.down.weight": "lora_A.weight",
    ".lora_up.weight": "lora_up.weight",
    ".alpha": "alpha",
    ".lokr_w1_a": "lokr_w1_a",
}


@pytest.mark.parametrize("prefix", ["", "transformer.", "transformer_2.", "diffusion_model.", "base_model.model.", "pipe.dit."])
def test_diffusers_names_are_wans(prefix):
    for ours, theirs in DIFFUSERS.items():
        for ending, part in ENDINGS.items():
            assert canonical_key(f"{prefix}{theirs}{ending}") == f"diffusion_model.{ours}.{part}"
            assert canonical_key(f"{prefix}{ours}{ending}") == f"diffusion_model.{ours}.{part}"


@pytest.mark.parametrize("prefix", ["lora_unet_", "lora_unet__", "lora_transformer_", "lycoris_"])
def test_names_joined_by_underscores_are_read_too(prefix):
    for ours, theirs in DIFFUSERS.items():
        if ours != theirs:
            assert canonical_key(f"{prefix}{theirs.replace('.', '_')}.alpha") == f"diffusion_model.{ours}.alpha"
        flat = ours.replace(".", "_")
        assert canonical_key(f"{prefix}{flat}.lora_up.weight") == f"lora_unet_{flat}.lora_up.weight"  # as ComfyUI calls it


@pytest.mark.parametrize("part", ["blocks.", "model.", ".blocks.a", ".lora_A", "hada_w1_a.", "lora."])
def test_a_long_key_is_read_once(part):
    """A search from each dot to the end took 40 s for 20 000 dots: of these it would never come back."""
    key = part * 300_000 + "\nx"
    assert canonical_key(key).endswith(key[-1000:])
