"""What the pack needs of its surroundings, checked when ComfyUI loads it, before any other of our modules is imported.

An older ComfyUI would else sample a whole clip and then fail on a function that it lacks. Its version alone does not tell:
branches and forks bear the number of the release before. tests/nodes/bridge/test_requirements.py compares both lists
with the code.
"""

import importlib.util
import pkgutil
import sys
from pathlib import Path

TESTED_VERSION = "0.30.0"
NAMES = (
    "comfy.audio_encoders.wav2vec2.Wav2Vec2Model",
    "comfy.cli_args.args",
    "comfy.clip_vision.Output",
    "comfy.latent_formats.Wan21",
    "comfy.ldm.modules.attention.REGISTERED_ATTENTION_FUNCTIONS",
    "comfy.ldm.modules.attention.attention_pytorch",
    "comfy.ldm.wan.model_multitalk.MultiTalkAudioProjModel",
    "comfy.ldm.wan.model_multitalk.MultiTalkCrossAttnPatch",
    "comfy.ldm.wan.vae.RMS_norm",
    "comfy.ldm.wan.vae.WanVAE",
    "comfy.ldm.wan.vae.count_cache_layers",
    "comfy.lora.calculate_weight",
    "comfy.lora.load_lora",
    "comfy.lora.model_lora_keys_unet",
    "comfy.lora_convert.convert_lora",
    "comfy.model_detection.model_config_from_unet",
    "comfy.model_detection.unet_prefix_from_state_dict",
    "comfy.model_management.InterruptProcessingException",
    "comfy.model_management.cuda_device_context",
    "comfy.model_management.free_memory",
    "comfy.model_management.get_all_torch_devices",
    "comfy.model_management.intermediate_device",
    "comfy.model_management.intermediate_dtype",
    "comfy.model_management.is_oom",
    "comfy.model_management.load_model_gpu",
    "comfy.model_management.load_models_gpu",
    "comfy.model_management.soft_empty_cache",
    "comfy.model_management.throw_exception_if_processing_interrupted",
    "comfy.model_management.vae_device",
    "comfy.model_management.vae_dtype",
    "comfy.model_patcher.ModelPatcher",
    "comfy.model_patcher.create_model_options_clone",
    "comfy.patcher_extension.WrappersMP",
    "comfy.sample.prepare_noise",
    "comfy.sample.sample_custom",
    "comfy.samplers.CFGGuider",
    "comfy.samplers.calc_cond_batch",
    "comfy.taesd.taehv.TAEHV",
    "comfy.utils.ProgressBar",
    "comfy.utils.get_attr",
    "comfy.utils.state_dict_prefix_replace",
    "comfy_api.latest.ComfyExtension",
    "comfy_api.latest.InputImpl",
    "comfy_api.latest.io",
    "comfy_api.latest.ui",
    "comfy_api.torch_helpers.torch_compile.COMPILE_KEY",
    "comfy_execution.graph_utils.ExecutionBlocker",
    "folder_paths.folder_names_and_paths",
    "folder_paths.get_annotated_filepath",
    "folder_paths.get_filename_list",
    "folder_paths.get_full_path",
    "folder_paths.get_full_path_or_raise",
    "folder_paths.get_input_directory",
    "folder_paths.get_output_directory",
    "folder_paths.get_system_user_directory",
    "folder_paths.get_temp_directory",
    "latent_preview.get_previewer",
    "node_helpers.conditioning_set_values",
)
MEMBERS = {  # methods of ComfyUI's objects; attributes cannot be seen here, and other packs replace __init__
    "comfy.clip_vision.ClipVisionModel": ("encode_image",),
    "comfy.model_patcher.ModelPatcher": (
        "add_patches",
        "clone",
        "get_attachment",
        "get_wrappers",
        "is_clone",
        "set_attachments",
        "set_model_patch",
        "set_model_patch_replace",
        "set_model_sampler_calc_cond_batch_function",
    ),
    "comfy.sd.CLIP": ("decode", "encode_from_tokens_scheduled", "generate", "tokenize"),
    "comfy.sd.VAE": ("decode", "decode_tiled", "encode", "vae_output_dtype"),
}


def require_surroundings() -> None:
    """Refuse a ComfyUI that is too old, and a Python without the packages of requirements.txt.

    Raises:
        ImportError: the message names ComfyUI's version, what is missing, and the fix; ComfyUI prints it and loads no node.
    """
    if importlib.util.find_spec("imageio_ffmpeg") is None:
        listed = Path(__file__).resolve().parents[2] / "requirements.txt"
        raise ImportError(f"Stable Video Infinity needs imageio-ffmpeg: run {sys.executable} -m pip install -r {listed}")
    missing = [name for name in NAMES if _found(name) is None]
    missing += [f"{name}.{member}" for name, members in MEMBERS.items() for member in members if not _has(name, member)]
    if missing:
        raise ImportError(
            f"Stable Video Infinity is tested with ComfyUI {TESTED_VERSION}; this is {comfyui_version()}, which lacks "
            f"{', '.join(missing[:3])}: update ComfyUI."
        )


def _found(name: str) -> object | None:
    """Return what a dotted name stands for, or None."""
    try:
        return pkgutil.resolve_name(name)
    except (AttributeError, ImportError):
        return None


def _has(name: str, member: str) -> bool:
    return hasattr(_found(name), member)


def comfyui_version() -> str:
    """Return the name and version of this ComfyUI, for messages."""
    return f"ComfyUI {_found('comfyui_version.__version__') or 'of an unknown version'}"
