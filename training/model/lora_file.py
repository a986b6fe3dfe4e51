"""Write a trained LoRA in ComfyUI's format, and verify each file with ComfyUI's own loader.

Every key must be used, and for every layer the weight change that ComfyUI computes from the file must act on random inputs as
the adapter does. A file that fails is removed, and saving raises an error.
Source: SVI_SPEC C (key forms, alpha), FIELD_NOTES 5 (metadata that users' tools read).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from svi_core.conditioning.dance import read_pose_encoder
from svi_core.files.atomic_file import staged
from svi_core.files.safetensors_file import write_tensors
from svi_core.systems.lora import COMFY_PREFIX, read_lora
from training.model.adapters import LoraAdapters
from training.model.backbone import Backbone
from training.model.comfy_runtime import start_comfy
from training.model.pose_encoder import TrainedPoses

start_comfy()  # before the first import of comfy

import comfy.lora  # noqa: E402

FILE_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
TOLERANCES = {"fp16": 2e-3, "bf16": 1.6e-2, "fp32": 1e-5}  # relative; accumulated rounding of the two matrices
NUM_PROBES = 4


class RoundingError(ValueError):
    """The file's dtype cannot hold the LoRA's values closely enough."""


@dataclass(frozen=True, kw_only=True)
class LoraDescription:
    """The metadata of a LoRA file.

    Attributes:
        name: title of the LoRA.
        variant: the preset it was trained with: shot, film, pro-high ...
        layout: the SVI layout, a name of svi_core.systems.layouts.
        num_motion_frames: motion frames it was trained with.
        padding: how clips were padded, a value of svi_core.systems.layouts.Padding.
        num_frames: frames of a clip.
        width: of the first training size, pixels.
        height: of the same.
        expert: "high" or "low" for an expert of Wan 2.2, "single" for a model for all noise levels.
        shift: of the noise schedule used in training.
        base_name: file name of the base model.
        base_fingerprint: hash of the base model's file.
        version: of this project.
        step: completed training steps.
        learning_rate: at that step.
    """

    name: str
    variant: str
    layout: str
    num_motion_frames: int
    padding: str
    num_frames: int
    width: int
    height: int
    expert: str
    shift: float
    base_name: str
    base_fingerprint: str
    version: str
    step: int
    learning_rate: float

    def metadata(self, rank: int, alpha: float) -> dict[str, str]:
        """Return the header entries: svi.* for our nodes, ss_* and modelspec.* for other tools.

        No date and no host: equal training runs give equal bytes.
        """
        values: dict[str, object] = {
            "svi.variant": self.variant,
            "svi.layout": self.layout,
            "svi.num_motion_frames": self.num_motion_frames,
            "svi.padding": self.padding,
            "svi.num_frames": self.num_frames,
            "svi.expert": self.expert,
            "svi.shift": self.shift,
            "svi.base": self.base_name,
            "svi.base_fingerprint": self.base_fingerprint,
            "svi.version": self.version,
            "svi.step": self.step,
            "ss_output_name": self.name,
            "ss_network_module": "networks.lora",
            "ss_network_dim": rank,
            "ss_network_alpha": alpha,
            "ss_base_model_version": "wan",
            "ss_sd_model_name": self.base_name,
            "ss_steps": self.step,
            "ss_learning_rate": self.learning_rate,
            "ss_resolution": f"({self.width}, {self.height})",
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.title": self.name,
            "modelspec.architecture": "wan-i2v-14b/lora",
            "modelspec.implementation": "https://github.com/Wan-Video/Wan2.1",
            "modelspec.description": f"Stable Video Infinity LoRA, {self.layout}, {self.expert} expert, step {self.step}",
            "modelspec.resolution": f"{self.width}x{self.height}",
        }
        return {key: str(value) for key, value in values.items()}


def save_lora(
    path: Path,
    lora: LoraAdapters,
    backbone: Backbone,
    description: LoraDescription,
    file_dtype: str = "fp16",
    poses: TrainedPoses | None = None,
) -> None:
    """Write `lora` to `path` atomically, after loading it back through ComfyUI and comparing.

    Args:
        file_dtype: a key of FILE_DTYPES; the released files are fp16.
        poses: the pose encoder of the LoRA; always saved in fp32, since it is small.

    Raises:
        RoundingError: ComfyUI's result differs from the adapter's by more than rounding explains.
        ValueError: a matrix holds NaN or infinity in the file's dtype, or ComfyUI leaves keys of the file unused.
            In both cases an older file at `path` stays as it was.
        OSError: the file could not be written.
    """
    dtype = FILE_DTYPES[file_dtype]
    tensors = {COMFY_PREFIX + key: value.to("cpu", dtype) for key, value in lora.state_dict().items()}
    tensors |= {key: value.cpu() for key, value in poses.state_dict().items()} if poses else {}
    for key, value in tensors.items():
        if not value.isfinite().all():
            named = file_dtype if value.dtype is dtype else "fp32"
            raise ValueError(f"{key} holds NaN or infinity in {named}: the LoRA is not saved; go back to a checkpoint.")
    if lora.alpha != lora.rank:
        tensors |= {f"{COMFY_PREFIX}{name}.alpha": torch.tensor(float(lora.alpha)) for name in lora.pairs}
    with staged(path) as staging:
        write_tensors(staging, tensors, description.metadata(lora.rank, lora.alpha))
        require_equal_in_comfyui(staging, lora, backbone, TOLERANCES[file_dtype])
        if poses:
            require_equal_poses(staging, poses)


def require_equal_in_comfyui(path: Path, lora: LoraAdapters, backbone: Backbone, tolerance: float) -> None:
    """Refuse a LoRA file that ComfyUI does not load as `lora`.

    Raises:
        ValueError: naming the key.
        RoundingError: naming the layer.
    """
    tensors = read_lora(path).tensors
    key_map = comfy.lora.model_lora_keys_unet(backbone.model, {})
    patches = comfy.lora.load_lora(tensors, key_map, log_missing=False)
    known = {f"{name}.alpha" for name, target in key_map.items() if target in patches}
    left = sorted(set(tensors) - known.union(*(getattr(patch, "loaded_keys", ()) for patch in patches.values())))
    if left:
        raise ValueError(f"ComfyUI's loader leaves {len(left)} keys of {path.name} over, {left[0]} for one: not saved.")
    missing = [name for name in lora.pairs if f"{COMFY_PREFIX}{name}.weight" not in patches]
    if missing:
        raise ValueError(f"ComfyUI's loader finds nothing for {len(missing)} trained layers, {missing[0]} for one: not saved.")
    generator = torch.Generator().manual_seed(0)
    for name in lora.pairs:
        _require_equal_layer(name, patches, lora, generator, tolerance)


def require_equal_poses(path: Path, poses: TrainedPoses) -> None:
    """Refuse a file from which SVI Dance does not read the pose encoder `poses`.

    Raises:
        ValueError: naming the tensor.
    """
    read = read_pose_encoder(path).state_dict()
    for name, tensor in poses.encoder.state_dict().items():
        if not torch.equal(read[name], tensor.cpu()):
            raise ValueError(f"{name} of the pose encoder is read otherwise from {path.name} than it was trained: not saved.")


@torch.no_grad()
def _require_equal_layer(
    name: str, patches: Mapping[str, object], lora: LoraAdapters, generator: torch.Generator, tolerance: float
) -> None:
    """Compare the outputs of one layer's patch and of its adapter for random inputs."""
    pair = lora.pairs[name]
    device = pair.up.device
    probes = torch.randn(NUM_PROBES, pair.down.shape[1], generator=generator).to(device)
    key = f"{COMFY_PREFIX}{name}.weight"
    nothing = torch.zeros(pair.up.shape[0], pair.down.shape[1], device=device)
    change: Tensor = comfy.lora.calculate_weight([(1.0, patches[key], 1.0, None, None)], nothing, key)
    expected, found = pair(probes), probes @ change.T
    error, size = float((found - expected).norm()), float(expected.norm())
    if not error <= tolerance * size:
        raise RoundingError(
            f"{name}: what ComfyUI computes from the file differs from the adapter by {error:.3g} of {size:.3g}, more than "
            "the file's dtype explains: not saved. Are its values too small for it? Set lora.file_dtype = 'fp32'."
        )
