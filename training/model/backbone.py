"""The frozen Wan transformer, loaded by ComfyUI's own code from ComfyUI's own files: ``velocity(noisy, sigma, conditions)``.

The only file that knows how ComfyUI builds and calls the model. LoRA training runs on the very modules that generation
runs on, so what is trained is what is used: bf16, fp8-cast and scaled-fp8 files alike.
Source: docs/METHOD.md, 2.1 (input channels) and 12.4 (traps of training through ComfyUI).
"""

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from svi_core.files.fingerprint import large_file_fingerprint
from svi_core.files.safetensors_file import read_header
from svi_core.geometry import LATENT_CHANNELS
from training.model.block_memory import make_frugal
from training.model.comfy_runtime import start_comfy
from training.model.conditions import Conditions
from training.model.speech_layers import SpeechLayers

start_comfy()  # before the first import of comfy

import comfy.ldm.wan.model  # noqa: E402
import comfy.model_base  # noqa: E402
import comfy.model_management  # noqa: E402
import comfy.ops  # noqa: E402
import comfy.sd  # noqa: E402
from comfy.quant_ops import QuantizedTensor  # noqa: E402

I2V_CHANNELS = 36  # 16 noisy + 4 mask + 16 conditioning
MASK_CHANNELS = 4
TEXT_TOKENS = 512  # ComfyUI pads every prompt to this with zero embeddings, which the model attends to
NUM_TIMESTEPS = 1000.0
BLOCK_0 = ("double_block", 0)  # ComfyUI's name of the first block, where pose tokens join the patch tokens
ATTENTION = {
    "auto": None,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "flash": SDPBackend.FLASH_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
WEIGHT_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp8_e4m3fn": torch.float8_e4m3fn}
COMPUTE_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedAs:
    """How a model file was put to use.

    Attributes:
        weights: dtypes of the linear layers' stored weights, with counts.
        matmul: the operators of its linear layers that ran in a probe of one block, forward and backward: `addmm` and `mm`
            on plain numbers, `_scaled_mm` on fp8, `comfy_kitchen::...` where numbers are quantised or dequantised.
        attention: the kernels that ran in a probe of one block.
        compute: dtype of the activations.
    """

    weights: str
    matmul: str
    attention: str
    compute: str


@dataclass
class Backbone:
    """A frozen Wan image-to-video transformer.

    Attributes:
        transformer: ComfyUI's WanModel.
        model: ComfyUI's model object around it, for its LoRA key map and latent format.
        device: where it computes.
        compute_dtype: dtype of its activations.
        name: of the file it came from.
        fingerprint: hash of that file.
        attention: a key of :data:`ATTENTION`.
        speech: its audio layers, for SVI-Talk.
    """

    transformer: nn.Module
    model: nn.Module
    device: torch.device
    compute_dtype: torch.dtype
    name: str
    fingerprint: str
    attention: str = "auto"
    speech: SpeechLayers | None = None

    @property
    def needs_clip_vision(self) -> bool:
        """Whether the model has an image embedding (Wan 2.1) and computes nonsense without CLIP vision features."""
        return self.transformer.img_emb is not None

    def velocity(self, noisy_latent: Tensor, sigma: Tensor, conditions: Conditions) -> Tensor:
        """Return the predicted velocity, noise - latent, as fp32 [B, 16, F, h, w].

        Args:
            noisy_latent: [B, 16, F, h, w], normalised.
            sigma: [B] in [0, 1].

        Raises:
            ValueError: CLIP vision features are missing where the model needs them.
        """
        if self.needs_clip_vision and conditions.clip_vision is None:
            raise ValueError(
                "this model has an image embedding (Wan 2.1 I2V) but the clip has no CLIP vision features: set "
                "model.clip_vision and run `python -m training.cache` again."
            )
        mask = conditions.mask.expand(-1, MASK_CHANNELS, -1, -1, -1)
        parts = (noisy_latent, mask, conditions.y_latent)
        x = torch.cat([self._placed(part) for part in parts], dim=1)
        text = self._placed(conditions.text)
        text = nn.functional.pad(text, (0, 0, 0, max(0, TEXT_TOKENS - text.shape[1])))
        clip_vision = self._placed(conditions.clip_vision) if self.needs_clip_vision else None
        options = {"optimized_attention_override": self._attend, **self._patches(conditions)}
        timestep = (sigma * NUM_TIMESTEPS).to(self.device, torch.float32)
        return self.transformer(x, timestep, context=text, clip_fea=clip_vision, transformer_options=options).float()

    def hear(self, speech: SpeechLayers) -> None:
        """Let the blocks hear through `speech`; call it before :meth:`use_memory`.

        Raises:
            ValueError: layers for another size of model.
        """
        speech.attach(self.transformer)
        self.speech = speech

    def use_memory(
        self,
        trainable: Tensor,
        *,
        checkpointing: bool = True,
        offload_block_inputs: bool = False,
        swapped_blocks: int = 0,
        keep_attention: bool = False,
        compile_blocks: bool = False,
    ) -> None:
        """Arrange the blocks for training; call it once, after the LoRA is attached.

        Args:
            trainable: any trained parameter.
            swapped_blocks: how many blocks, the last ones, keep their weights in host memory.

        Raises:
            ValueError: more swapped blocks than there are, or settings that do not go together.
        """
        blocks = list(self.transformer.blocks)
        if keep_attention and (compile_blocks or self.attention == "math"):
            other = "memory.compile" if compile_blocks else "memory.attention = 'math'"
            raise ValueError(f"memory.keep_attention does not go together with {other}: turn one of them off.")
        if not 0 <= swapped_blocks <= len(blocks):
            raise ValueError(f"memory.swapped_blocks is {swapped_blocks}, but the model has {len(blocks)} blocks: use no more.")
        for index, block in enumerate(blocks):
            if compile_blocks:
                block.forward = torch.compile(block.forward, dynamic=False)
            swap = index >= len(blocks) - swapped_blocks
            make_frugal(
                block,
                self.device,
                trainable,
                checkpoint=checkpointing,
                offload_input=offload_block_inputs,
                swap=swap,
                keep_attention=keep_attention,
            )
            if not swap:
                block.to(self.device)

    def _patches(self, conditions: Conditions) -> dict[str, object]:
        """Return what ComfyUI's transformer is to do besides: the places are those where SVI's nodes patch it."""
        options: dict[str, object] = {}
        if conditions.pose_tokens is not None:
            options["patches_replace"] = {"dit": {BLOCK_0: _with_added(self._placed(conditions.pose_tokens))}}
        if conditions.sound_tokens is not None:
            options |= self.speech.options(self._placed(conditions.sound_tokens))
        return options

    def _placed(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, self.compute_dtype)

    def _attend(self, func, q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None, **_ignored) -> Tensor:
        """Attend with PyTorch's kernels, which have a backward; q, k, v: [B, tokens, heads * width]."""
        split = [t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in (q, k, v)]
        backend = ATTENTION[self.attention]
        with sdpa_kernel(backend) if backend is not None else nullcontext():
            out = nn.functional.scaled_dot_product_attention(*split, attn_mask=mask)
        return out.transpose(1, 2).flatten(2)


def _with_added(tokens: Tensor) -> Callable[[Mapping, Mapping], Mapping]:
    """Return a replacement of a block, in ComfyUI's terms: the same block on its input plus `tokens`, with a backward."""

    def run(args: Mapping, extra: Mapping) -> Mapping:
        if args["img"].shape != tokens.shape:
            raise ValueError(
                f"the poses make tokens {list(tokens.shape)}, but the clip's are {list(args['img'].shape)}: poses and clip are "
                "of different sizes or lengths; run python -m training.cache again."
            )
        return extra["original_block"]({**args, "img": args["img"] + tokens})

    return run


def load_backbone(
    path: Path,
    *,
    weights: str = "auto",
    compute: str = "auto",
    attention: str = "auto",
    fp8_matmul: bool = True,
    device: torch.device | str | None = None,
    on_host: bool = False,
) -> Backbone:
    """Load the Wan image-to-video transformer in `path`; its weights exist once, on the device or on the host.

    Args:
        path: a safetensors file that ComfyUI's Load Diffusion Model takes: bf16, fp16, fp8 or scaled fp8.
        weights: "auto" keeps fp8 files as they are and takes others as bf16 (fp32 on a CPU); or a key of WEIGHT_DTYPES.
            Files that carry quantised layers stay as they are.
        compute: dtype of activations: "bf16", "fp32", or "auto" for bf16 on an accelerator and fp32 on a CPU.
        attention: a key of ATTENTION.
        fp8_matmul: let scaled-fp8 layers multiply in fp8 where ComfyUI does so on this hardware; else they are dequantised.
        device: default: the one ComfyUI would use.
        on_host: leave the weights in host memory, for :meth:`Backbone.use_memory` to place block by block.

    Raises:
        ValueError: not a sound safetensors file, not a Wan model, or not the plain image-to-video model.
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
    comfy.model_management.in_training = True  # ComfyUI's fused rotary embedding has no backward
    return Backbone(transformer, model, device, compute_dtype, path.name, large_file_fingerprint(path), attention)


def describe_execution(backbone: Backbone, num_tokens: int = 256) -> LoadedAs:
    """Say how the model's blocks really run, by looking at the layers and by tracing one block on random tokens.

    Call it before :meth:`Backbone.use_memory`; the first block is brought to the device for it.

    Raises:
        ValueError: the chosen attention kernel cannot run here.
    """
    linears = [layer for _, layer in _linear_layers(backbone.transformer.blocks)]
    kinds: dict[str, int] = {}
    for layer in linears:
        kind = _storage_of(layer.weight)
        kinds[kind] = kinds.get(kind, 0) + 1
    weights = ", ".join(f"{count} x {kind}" for kind, count in sorted(kinds.items()))
    try:
        operators = _traced_operators(backbone, num_tokens)
    except RuntimeError as error:
        raise ValueError(f"memory.attention is {backbone.attention!r}, which cannot run here ({error}): use 'auto'.") from error
    attention = sorted(name for name in operators if "scaled_dot_product" in name and name != "scaled_dot_product_attention")
    matmul = sorted(name for name in operators if name in ("mm", "addmm") or "scaled_mm" in name or "comfy_kitchen" in name)
    return LoadedAs(weights, ", ".join(matmul), ", ".join(attention), str(backbone.compute_dtype).removeprefix("torch."))


def _traced_operators(backbone: Backbone, num_tokens: int) -> set[str]:
    """Return the names of the operators that one block's forward and backward call."""
    transformer = backbone.transformer
    x = torch.zeros(1, num_tokens, transformer.dim, device=backbone.device, dtype=backbone.compute_dtype)
    x.normal_(generator=torch.Generator(backbone.device).manual_seed(0))
    e = torch.zeros(1, 1, 6, transformer.dim, device=backbone.device, dtype=backbone.compute_dtype)
    freqs = transformer.rope_encode(1, 2, 2 * num_tokens, device=backbone.device, dtype=backbone.compute_dtype)
    options = {"optimized_attention_override": backbone._attend}
    context_img_len = 257 if backbone.needs_clip_vision else None
    context = x[:, :1].expand(1, TEXT_TOKENS + (context_img_len or 0), -1).contiguous()
    with torch.autograd.profiler.profile(use_kineto=False) as trace, torch.enable_grad():
        tokens = x.requires_grad_()
        out = transformer.blocks[0].to(backbone.device)(
            tokens, e=e, freqs=freqs, context=context, context_img_len=context_img_len, transformer_options=options
        )
        out.sum().backward()
    return {event.key.removeprefix("aten::") for event in trace.key_averages() if "::" in event.key}


def _load_model(path: Path, options: dict) -> nn.Module:
    """Return ComfyUI's model object for `path`.

    Raises:
        ValueError: another model than Wan's plain image-to-video transformer.
    """
    try:
        patcher = comfy.sd.load_diffusion_model(str(path), model_options=options, disable_dynamic=True)
    except RuntimeError as error:
        raise ValueError(f"{path} is no diffusion model that ComfyUI knows ({error}): give a Wan I2V 14B file.") from error
    model, transformer = patcher.model, patcher.model.diffusion_model
    if type(model) is not comfy.model_base.WAN21 or type(transformer) is not comfy.ldm.wan.model.WanModel:
        raise ValueError(
            f"{path} is a {type(model).__name__} model; SVI trains the plain Wan 2.1 or 2.2 14B image-to-video model only "
            "(control models such as VACE, Fun-Camera or Animate need trainings of their own)."
        )
    channels = transformer.patch_embedding.weight.shape[1]
    if channels == LATENT_CHANNELS:
        raise ValueError(
            f"{path} is a text-to-video model (16 input channels): it has no input for the anchor and the motion frames. "
            "Take the image-to-video file (I2V, 36 channels)."
        )
    if channels != I2V_CHANNELS:
        raise ValueError(f"{path} takes {channels} input channels, Wan's image-to-video models {I2V_CHANNELS}: wrong file.")
    return model


def _weight_dtype(weights: str, header: Mapping[str, object], device: torch.device) -> torch.dtype:
    """Return the dtype in which plain layers are kept."""
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
    """Let every layer compute in `dtype`, whatever it is stored in.

    ComfyUI would compute a scaled-fp8 Wan in fp16 on most GPUs, and fp16 gradients underflow. Quantised layers take their
    output dtype from their tensors, so these get it set; the codes and scales are not copied.
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


def _linear_layers(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, layer in module.named_modules():
        if hasattr(layer, "in_features") and getattr(layer, "weight", None) is not None:
            yield name, layer


def _storage_of(weight: Tensor) -> str:
    if isinstance(weight, QuantizedTensor):
        return f"scaled {str(weight.storage_dtype).removeprefix('torch.')}"
    return str(weight.dtype).removeprefix("torch.")
