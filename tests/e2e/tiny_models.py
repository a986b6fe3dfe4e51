"""Write tiny random models in the real Wan architectures, under the file names of the published weights.

    python tests/e2e/tiny_models.py COMFYUI_FOLDER OUTPUT_FOLDER

Run it as a script, not as a module: then neither the repository root (whose nodes/ would shadow ComfyUI's nodes.py) nor
pytest is in the process that imports comfy. The same seed always gives the same bytes.
"""

import io
import json
import math
import sys
from pathlib import Path

FILLED_LATER = ("audio_encoders", "model_patches")  # by tiny_talk_models.py; a server lists only folders that it found
TEXT_DIM = 32
NUM_LAYERS = 2
NUM_HEADS = 2
DIM = 64
CORPUS = (
    "a photo of a cat walking on the grass in the sun",
    "a woman turns her head and smiles at the camera",
    "the camera pans left over a city at night with neon lights",
    "a red ball rolls to the right over a wooden floor",
    "static, blurry, low quality, worst quality, deformed hands",
    "dancing, running, jumping, walking, talking, singing, waves on the beach",
)
UMT5_MARKER = "encoder.block.23.layer.1.DenseReluDense.wi_1.weight"

DIFFUSION_MODELS = {  # file name: (Wan's model_type, input channels, seed)
    "wan2.2_i2v_high_noise_14B_fp8_scaled.safetensors": ("t2v", 36, 1),
    "wan2.2_i2v_low_noise_14B_fp8_scaled.safetensors": ("t2v", 36, 2),
    "wan2.1_i2v_480p_14B_fp16.safetensors": ("i2v", 36, 3),
    "wan2.1_t2v_14B_fp16.safetensors": ("t2v", 16, 4),
}
LORAS = {  # file name: (form of a key of the down matrix, the same of the up matrix, whether alpha is stored, seed)
    "SVI_v2_PRO_Wan2.2-I2V-A14B_HIGH_lora_rank_128_fp16.safetensors": (
        "diffusion_model.{}.lora_A.weight",
        "diffusion_model.{}.lora_B.weight",
        False,
        11,
    ),
    "SVI_v2_PRO_Wan2.2-I2V-A14B_LOW_lora_rank_128_fp16.safetensors": (
        "blocks.{short}.lora_A.default.weight",  # as in the authors' own release of 2.0 Pro: no prefix
        "blocks.{short}.lora_B.default.weight",
        False,
        12,
    ),
    "svi-shot_lora_rank_128_fp16.safetensors": (
        "pipe.dit.{}.lora_A.default.weight",  # as the authors' 1.0 trainer writes it
        "pipe.dit.{}.lora_B.default.weight",
        False,
        13,
    ),
    "wan2.2_i2v_lightx2v_4steps_lora_v1_high_noise.safetensors": (
        "diffusion_model.{}.lora_down.weight",
        "diffusion_model.{}.lora_up.weight",
        True,
        14,
    ),
    "wan2.2_i2v_lightx2v_4steps_lora_v1_low_noise.safetensors": (
        "lora_unet_{flat}.lora_down.weight",  # kohya
        "lora_unet_{flat}.lora_up.weight",
        True,
        15,
    ),
}
SVI_DANCE = "svi-dance.safetensors"  # holds a pose encoder beside its LoRA, as the authors' file does
LORAS[SVI_DANCE] = ("pipe.dit.{}.lora_A.default.weight", "pipe.dit.{}.lora_B.default.weight", False, 16)
for _seed, _name in enumerate(  # the authors' own files of the other systems
    (
        "svi-film-opt-10212025.safetensors",
        "SVI_Wan2.1-I2V-14B_lora_v2.0.safetensors",
        "SVI_Wan2.2-I2V-A14B_high_noise_lora_v2.0.safetensors",
        "SVI_Wan2.2-I2V-A14B_low_noise_lora_v2.0.safetensors",
    ),
    start=17,
):
    LORAS[_name] = ("blocks.{short}.lora_A.default.weight", "blocks.{short}.lora_B.default.weight", False, _seed)
LORA_MODULES = [f"{part}.{name}" for part in ("self_attn", "cross_attn") for name in "qkvo"] + ["ffn.0", "ffn.2"]
LORA_RANK = 4


def fill_randomly(module, seed: int) -> dict:
    """Give every parameter of `module` sensible random values and return them as fp16 tensors."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    filled = {}
    for name, parameter in module.state_dict().items():
        if name.endswith("bias"):
            value = torch.zeros(parameter.shape)
        elif parameter.ndim <= 1 or name.endswith("gamma"):
            value = torch.ones(parameter.shape)
        else:
            fan_in = parameter.shape[-1] if name.endswith("modulation") else math.prod(parameter.shape[1:])
            spread = 1.0 if name.startswith("shared") else fan_in**-0.5
            value = torch.randn(parameter.shape, generator=generator) * spread
        filled[name] = value.half().contiguous()
    return filled


def wan_diffusion_model(model_type: str, in_dim: int, seed: int) -> dict:
    """Return a Wan DiT; "i2v" has the CLIP vision input of Wan 2.1, and in_dim 36 the image input of both versions."""
    import comfy.ops
    from comfy.ldm.wan.model import WanModel

    sizes = {"dim": DIM, "ffn_dim": 2 * DIM, "num_heads": NUM_HEADS, "num_layers": NUM_LAYERS, "text_dim": TEXT_DIM}
    operations = comfy.ops.disable_weight_init
    return fill_randomly(WanModel(model_type=model_type, in_dim=in_dim, out_dim=16, operations=operations, **sizes), seed)


def wan_vae() -> dict:
    """Return a Wan 2.1 VAE of width 2."""
    from comfy.ldm.wan.vae import WanVAE

    fixed = {"z_dim": 16, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_scales": []}
    return fill_randomly(WanVAE(dim=2, temperal_downsample=[False, True, True], **fixed), 21)


def umt5(comfyui: Path) -> dict:
    """Return a two-layer umT5 with its sentencepiece tokenizer inside.

    The marker tensor, which holds nothing, has the one shape by which ComfyUI tells an umT5-XXL.
    """
    import comfy.ops
    import comfy.text_encoders.t5
    import torch

    tokenizer = train_tokenizer()
    config = json.loads((comfyui / "comfy/text_encoders/umt5_config_xxl.json").read_text(encoding="utf-8"))
    config |= {"d_model": TEXT_DIM, "d_ff": 64, "d_kv": 16, "num_heads": 2, "num_layers": 2, "vocab_size": 256}
    model = comfy.text_encoders.t5.T5(config, torch.float32, "cpu", comfy.ops.disable_weight_init)
    tensors = fill_randomly(model, 22)
    tensors["spiece_model"] = torch.frombuffer(bytearray(tokenizer), dtype=torch.uint8)
    tensors[UMT5_MARKER] = torch.empty(10240, 0, dtype=torch.float16)
    return tensors


def train_tokenizer() -> bytes:
    """Return a sentencepiece model with umT5's special ids: pad 0, end 1, unknown 2, no beginning."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 20),
        model_writer=model,
        vocab_size=200,
        hard_vocab_limit=False,
        model_type="unigram",
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        pad_piece="<pad>",
        eos_piece="</s>",
        unk_piece="<unk>",
        minloglevel=2,
        num_threads=1,
    )
    return model.getvalue()


def clip_vision(comfyui: Path) -> tuple[dict, dict[str, str]]:
    """Return a two-layer CLIP vision model as wide as ViT-H (1280, which Wan 2.1's image input asks for), and its header."""
    import comfy.clip_model
    import comfy.ops
    import torch

    config = json.loads((comfyui / "comfy/clip_vision_config_h.json").read_text(encoding="utf-8"))
    config |= {"num_hidden_layers": 2, "intermediate_size": 64, "projection_dim": 16}
    model = comfy.clip_model.CLIPVisionModelProjection(config, torch.float32, "cpu", comfy.ops.disable_weight_init)
    return fill_randomly(model, 23), {"clip_vision_config": json.dumps(config)}


def lora(diffusion_model: dict, down_form: str, up_form: str, has_alpha: bool, seed: int) -> dict:
    """Return a LoRA of rank LORA_RANK for the ten linear layers of each block, with keys of the given form."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for block in range(NUM_LAYERS):
        for module in LORA_MODULES:
            name = f"blocks.{block}.{module}"
            names = {"short": f"{block}.{module}", "flat": name.replace(".", "_")}
            rows, columns = diffusion_model[f"{name}.weight"].shape
            down_key = down_form.format(name, **names)
            tensors[down_key] = torch.randn(LORA_RANK, columns, generator=generator).half() * columns**-0.5
            tensors[up_form.format(name, **names)] = torch.randn(rows, LORA_RANK, generator=generator).half() * 0.1
            if has_alpha:
                tensors[f"{down_key.removesuffix('.lora_down.weight')}.alpha"] = torch.tensor(float(LORA_RANK)).half()
    return tensors


def pose_encoder() -> dict:
    """Return SVI-Dance's pose encoder for a transformer of width DIM, strong enough to move what a tiny model makes."""
    import torch

    strides = [(1, 1, 1)] * 3 + [(1, 2, 2)] + [(2, 2, 2)] * 2
    convolutions = [torch.nn.Conv3d(3 if index == 0 else 16, 16, 3, stride, 1) for index, stride in enumerate(strides)]
    convolutions.append(torch.nn.Conv3d(16, DIM, (1, 2, 2), (1, 2, 2)))
    layers = [layer for convolution in convolutions for layer in (convolution, torch.nn.SiLU())][:-1]
    return {f"pipe.dwpose_embedding.{key}": 2 * value for key, value in fill_randomly(torch.nn.Sequential(*layers), 24).items()}


def write_all(comfyui: Path, output: Path) -> None:
    """Write every model below `output`, in ComfyUI's folders."""
    from safetensors.torch import save_file

    def save(tensors: dict, path: str, metadata: dict[str, str] | None = None) -> None:
        (output / path).parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, output / path, metadata)

    for name in FILLED_LATER:
        (output / name).mkdir(parents=True, exist_ok=True)
    header = {"config": json.dumps({"transformer": {"num_heads": NUM_HEADS, "text_dim": TEXT_DIM}})}
    models = {name: wan_diffusion_model(*recipe) for name, recipe in DIFFUSION_MODELS.items()}
    for name, tensors in models.items():
        save(tensors, f"diffusion_models/{name}", header)
    any_model = next(iter(models.values()))  # the layers that a LoRA adapts have the same shapes in all of them
    for name, recipe in LORAS.items():
        save(lora(any_model, *recipe) | (pose_encoder() if name == SVI_DANCE else {}), f"loras/{name}")
    save(wan_vae(), "vae/wan_2.1_vae.safetensors")
    save(umt5(comfyui), "text_encoders/umt5_xxl_fp8_e4m3fn_scaled.safetensors")
    vision, vision_header = clip_vision(comfyui)
    save(vision, "clip_vision/clip_vision_h.safetensors", vision_header)


def comfy_on_cpu(arguments: list[str]) -> tuple[Path, Path]:
    """Make `comfy` importable on CPU and return the folders of the command line: ComfyUI's, and the one to write to."""
    comfyui, output = (Path(argument).absolute() for argument in arguments[1:3])
    del arguments[1:]
    sys.path.append(str(comfyui))
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = True  # read when comfy.model_management is imported
    return comfyui, output


def main() -> None:
    write_all(*comfy_on_cpu(sys.argv))


if __name__ == "__main__":
    main()
