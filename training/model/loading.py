"""Load the frozen models by ComfyUI's own code from ComfyUI's own files: the Wan transformer, and MultiTalk's audio layers.

Source: docs/METHOD.md, 2.1 (input channels) and 12.4 (traps of training through ComfyUI).
"""

import functools
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from svi_core.conditioning.talk import SLOT_WINDOW, WINDOW
from svi_core.files.fingerprint import large_file_fingerprint
from svi_core.files.safetensors_file import read_header, read_tensors
from svi_core.systems.base_model import require_plain_i2v
from training.model.backbone import ATTENTION, Backbone
from training.model.comfy_runtime import start_comfy
from training.model.speech_layers import SpeechLayers

start_comfy()  # before the first import of comfy

import comfy.model_management  # noqa: E402
import comfy.ops  # noqa: E402
import comfy.sd  # noqa: E402
from comfy.ldm.wan.model_multitalk import (  # noqa: E402
    MultiTalkAudioProjModel,
    MultiTalkCrossAttnPatch,
    WanMultiTalkAttentionBlock,
)
from comfy.quant_ops import QuantizedTensor  # noqa: E402

WEIGHT_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp8_e4m3fn": torch.float8_e4m3fn}

COMPUTE_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def load_backbone(
    path: Path,
    *,
    weights: str = "auto",
    compute: str = "auto",
    attention: str = "auto",
    fp8_matmul: bool = True,
    fp8_backward: bool = False,
    device: torch.device | str | None = None,
    on_host: bool = False,
) -> Backbone:
    """Load the Wan image-to-video transformer in `path`. Its weights are held once, on the device or on the host.

    Args:
        path: a safetensors file that ComfyUI's Load Diffusion Model takes: bf16, fp16, fp8 or scaled fp8.
        weights: "auto" keeps fp8 files as they are and loads others as bf16 (fp32 on a CPU); or a key of WEIGHT_DTYPES.
            Quantised layers stay as they are.
        compute: dtype of activations: "bf16", "fp32", or "auto" for bf16 on an accelerator and fp32 on a CPU.
        attention: a key of ATTENTION.
        fp8_matmul: let scaled-fp8 layers multiply in fp8 where ComfyUI does so on this hardware; else they are dequantised.
        fp8_backward: let those layers multiply the gradients in fp8 too.
        device: where to load it; None: the device that ComfyUI would use.
        on_host: leave the blocks' weights in host memory; :meth:`Backbone.use_memory` places them.

    Raises:
        ValueError: the file is not a valid safetensors file, or not the plain Wan image-to-video model.
    """
    for name, value, known in (
        ("model.weights", weights, ("auto", *WEIGHT_DTYPES)),
        ("model.compute", compute, ("auto", *COMPUTE_DTYPES)),
        ("memory.attention", attention, tuple(ATTENTION)),
    ):
        if value not in known:
            raise ValueError(f"{name} is {value!r}: use one of {', '.join(known)}.")
    header = read_header(path)
    device = torch.device(device) if device is not None else comfy.model_management.get_torch_device()
    compute_dtype = _compute_dtype(compute, device)
    options = {"load_device": device, "offload_device": torch.device("cpu") if on_host else device}
    options["dtype"] = _weight_dtype(weights, header, device)
    model = _load_model(path, options)
    transformer = model.diffusion_model.requires_grad_(False).eval()
    _compute_in(transformer, compute_dtype, fp8_matmul)
    if not on_host:
        transformer.to(device)
    else:
        _place_outside_blocks(transformer, device)
    enter = functools.partial(_enter_training_mode, fp8_backward)
    enter()
    transformer.register_forward_pre_hook(enter)
    return Backbone(transformer, model, device, compute_dtype, path.name, large_file_fingerprint(path), attention)


def _enter_training_mode(fp8_backward: bool, *_) -> None:
    """Make ComfyUI avoid what training cannot use, in sample videos and validation too.

    Outside this mode its rotary embedding has no backward, and from 0.33 on its INT8 layers may be folded into the operation
    before them, which calls no hook: their LoRA would be silently left out. The mode is one flag of the process, which others
    may reset, so each pass sets it again. Another such flag tells quantised layers to differentiate in fp8.
    """
    comfy.model_management.in_training = True
    comfy.model_management.training_fp8_bwd = fp8_backward


def _load_model(path: Path, options: dict) -> nn.Module:
    """Return ComfyUI's model object for `path`.

    Raises:
        ValueError: the file holds another model than Wan's plain image-to-video transformer.
    """
    try:
        patcher = comfy.sd.load_diffusion_model(str(path), model_options=options, disable_dynamic=True)
    except RuntimeError as error:
        raise ValueError(f"{path} is not a diffusion model that ComfyUI knows ({error}): use a Wan I2V 14B file.") from error
    model, transformer = patcher.model, patcher.model.diffusion_model
    embedding = getattr(transformer, "patch_embedding", None)
    channels = 0 if embedding is None else embedding.weight.shape[1]
    require_plain_i2v(str(path), type(model), type(transformer), channels)
    return model


def _weight_dtype(weights: str, header: Mapping[str, object], device: torch.device) -> torch.dtype:
    """Return the dtype in which unquantised layers are kept."""
    if weights != "auto":
        return WEIGHT_DTYPES[weights]
    stored = {entry["dtype"] for key, entry in header.items() if key.endswith("ffn.0.weight")}
    if stored == {"F8_E4M3"}:
        return torch.float8_e4m3fn
    if stored == {"F8_E5M2"}:
        return torch.float8_e5m2
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def _compute_dtype(compute: str, device: torch.device) -> torch.dtype:
    if compute != "auto":
        return COMPUTE_DTYPES[compute]
    return torch.float32 if device.type == "cpu" else torch.bfloat16


def _compute_in(transformer: nn.Module, dtype: torch.dtype, fp8_matmul: bool) -> None:
    """Make every layer compute in `dtype`, whatever dtype it is stored in.

    ComfyUI would compute a scaled-fp8 Wan in fp16 on most GPUs, and fp16 gradients underflow. A quantised layer takes its
    output dtype from its tensor, so that is set there; codes and scales are not copied.
    """
    for module in transformer.modules():
        if not isinstance(module, comfy.ops.CastWeightBiasOp):
            continue
        weight = getattr(module, "weight", None)
        if isinstance(weight, QuantizedTensor):
            module.to(dtype=dtype)
            if not fp8_matmul:
                module._full_precision_mm = True
        elif weight is not None and weight.dtype != dtype and module is not transformer.patch_embedding:
            module.comfy_cast_weights = True


def _place_outside_blocks(transformer: nn.Module, device: torch.device) -> None:
    """Move everything but the blocks to `device`."""
    for name, child in transformer.named_children():
        if name != "blocks":
            child.to(device)


_BLOCK = re.compile(r"blocks\.(\d+)\.")


def load_speech_layers(path: Path, device: torch.device, dtype: torch.dtype) -> SpeechLayers:
    """Load multitalk.safetensors, or a file with the same tensor names.

    Raises:
        ValueError: the file is not a safetensors file, or does not hold MultiTalk's audio layers.
    """
    tensors = read_tensors(path)[0]
    try:
        model = _empty_layers(tensors)
        model.load_state_dict(tensors, assign=True)
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} does not hold MultiTalk's audio layers ({reason}): use multitalk.safetensors.") from error
    model = model.to(device, dtype).requires_grad_(False).eval()
    return SpeechLayers(model, MultiTalkCrossAttnPatch(SimpleNamespace(model=model)), large_file_fingerprint(path))


def _empty_layers(tensors: Mapping[str, Tensor]) -> nn.Module:
    """Return modules of the sizes in `tensors`, without weights. ComfyUI's layers cast their weights to the input's dtype."""
    heard = tensors["audio_proj.proj1.weight"].shape
    width, channels = tensors["blocks.0.audio_cross_attn.proj.weight"].shape[0], tensors["audio_proj.norm.weight"].shape[0]
    num_blocks = 1 + max(int(match[1]) for match in map(_BLOCK.match, tensors) if match)
    options = {"device": "meta", "operations": comfy.ops.manual_cast}
    model = nn.Module()
    model.audio_proj = MultiTalkAudioProjModel(
        seq_len=WINDOW,
        seq_len_vf=SLOT_WINDOW,
        blocks=1,  # layers and channels of a frame go in as one row
        channels=heard[1] // WINDOW,
        intermediate_dim=heard[0],
        out_dim=channels,
        context_tokens=tensors["audio_proj.proj3.weight"].shape[0] // channels,
        **options,
    )
    model.blocks = nn.ModuleList(WanMultiTalkAttentionBlock(width, channels, **options) for _ in range(num_blocks))
    return model
