"""Write what SVI-Talk loads besides a VAE and text and vision encoders, with random weights, under the published names.

    python tests/e2e/tiny_talk_models.py COMFYUI_FOLDER OUTPUT_FOLDER

ComfyUI fixes 40 heads and 40 blocks for MultiTalk's audio layers, hence a video model of width 80, and all sizes of wav2vec2,
whose file is therefore the full 190 MB: it is written for the tests of Talk only, into the folder of the other tiny models.
"""

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    import tiny_models
else:
    from tests.e2e import tiny_models

WAN21_TALK = "wan2.1_i2v_480p_14B_talk_test.safetensors"
T2V_TALK = "wan2.2_i2v_14B_talk_test.safetensors"
MULTITALK = "multitalk.safetensors"
WAV2VEC2 = "wav2vec2-chinese-base_fp16.safetensors"
SVI_TALK = "svi-talk.safetensors"
DIM = 80
NUM_BLOCKS = 40
TOKEN_CHANNELS = 16
HIDDEN = 8


def talk_diffusion_model(model_type: str = "i2v", seed: int = 41) -> tuple[dict, dict[str, str]]:
    """Return a two-layer Wan I2V as wide as its audio layers, and its header."""
    import comfy.ops
    from comfy.ldm.wan.model import WanModel

    sizes = {"dim": DIM, "ffn_dim": 2 * DIM, "num_heads": 2, "num_layers": 2, "text_dim": tiny_models.TEXT_DIM}
    model = WanModel(model_type=model_type, in_dim=36, out_dim=16, operations=comfy.ops.disable_weight_init, **sizes)
    return tiny_models.fill_randomly(model, seed), {"config": json.dumps({"transformer": {"num_heads": 2, "text_dim": 32}})}


def multitalk_module(num_blocks: int = NUM_BLOCKS, dim: int = DIM, operations=None, **projection: int):
    """Return a module with the names and structure of multitalk.safetensors; `projection` overrides sizes of audio_proj."""
    import comfy.ops
    import torch
    from comfy.ldm.wan.model_multitalk import MultiTalkAudioProjModel, WanMultiTalkAttentionBlock

    operations = operations or comfy.ops.manual_cast
    sizes = {"seq_len": 5, "seq_len_vf": 8, "intermediate_dim": HIDDEN, "out_dim": TOKEN_CHANNELS} | projection
    module = torch.nn.Module()
    module.audio_proj = MultiTalkAudioProjModel(operations=operations, **sizes)
    blocks = (WanMultiTalkAttentionBlock(dim, TOKEN_CHANNELS, operations=operations) for _ in range(num_blocks))
    module.blocks = torch.nn.ModuleList(blocks)
    return module


def wav2vec2(seed: int = 43) -> dict:
    """Return chinese-wav2vec2-base with random weights."""
    import comfy.ops
    from comfy.audio_encoders.wav2vec2 import Wav2Vec2Model

    sizes = {"embed_dim": 768, "num_heads": 12, "num_layers": 12, "conv_norm": False, "conv_bias": False}
    sizes |= {"do_normalize": False, "do_stable_layer_norm": False}
    return tiny_models.fill_randomly(Wav2Vec2Model(operations=comfy.ops.disable_weight_init, **sizes), seed)


def write_all(output: Path) -> None:
    """Write every file below `output`, in ComfyUI's folders."""
    from safetensors.torch import save_file

    for name, model_type in ((WAN21_TALK, "i2v"), (T2V_TALK, "t2v")):
        tensors, header = talk_diffusion_model(model_type)
        save_file(tensors, output / "diffusion_models" / name, header)
    forms = ("pipe.dit.{}.lora_A.default.weight", "pipe.dit.{}.lora_B.default.weight")  # as the authors' 1.0 trainer writes it
    save_file(tiny_models.lora(tensors, *forms, False, 44), output / "loras" / SVI_TALK)
    save_file(tiny_models.fill_randomly(multitalk_module(), 42), output / "model_patches" / MULTITALK)
    save_file(wav2vec2(), output / "audio_encoders" / WAV2VEC2)


def main() -> None:
    _, output = tiny_models.comfy_on_cpu(sys.argv)
    write_all(output)


if __name__ == "__main__":
    main()
