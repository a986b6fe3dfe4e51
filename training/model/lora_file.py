"""Write a trained LoRA for ComfyUI, and check the file with ComfyUI's own loader.

ComfyUI must use every key, and for each layer the weight change that it computes from the file, applied to random inputs, must
equal what the adapter computes. A file that fails the check is removed, and saving is an error.
Source: docs/METHOD.md, 6.1 and 6.2 (alpha, key forms), 6.4 (metadata that users' tools read).
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from svi_core.conditioning.dance import read_pose_encoder
from svi_core.files.atomic_file import staged
from svi_core.files.safetensors_file import write_tensors
from svi_core.flow.flow_matching import TRAINED_SHIFT
from svi_core.systems.lora import read_lora
from svi_core.systems.lora_keys import COMFY_PREFIX
from training.model.adapters import LoraAdapters
from training.model.backbone import Backbone
from training.model.comfy_runtime import REPOSITORY, start_comfy
from training.model.pose_encoder import TrainedPoses
from training.model.start_lora import StartRecord
from training.settings.sections import TrainingConfig

start_comfy()  # before the first import of comfy

import comfy.lora  # noqa: E402

FILE_DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
TOLERANCES = {"fp16": 2e-3, "bf16": 1.6e-2, "fp32": 1e-5}  # relative error, from rounding two matrices
NUM_PROBES = 4
PROJECT = REPOSITORY / "pyproject.toml"


class RoundingError(ValueError):
    """The file's dtype cannot represent the LoRA's values closely enough."""


@dataclass(frozen=True)
class LoraDescription:
    """What a LoRA file's header says besides the LoRA's own shape and its base model.

    Attributes:
        config: settings of the training run.
        step: optimizer steps done.
        learning_rate: learning rate at that step.
        start: the LoRA file that the run began from; None for a fresh LoRA.
    """

    config: TrainingConfig
    step: int
    learning_rate: float
    start: StartRecord | None = None

    def metadata(self, lora: LoraAdapters, backbone: Backbone) -> dict[str, str]:
        """Return the header entries: svi.* for our nodes, ss_* and modelspec.* for common tools.

        They hold no date and no host name, so that the same training run gives the same bytes.
        """
        name, expert = self.config.run_name, self.config.model.expert
        layout, (width, height) = self.config.data.svi_layout, self.config.data.sizes[0]
        values: dict[str, object] = {
            "svi.variant": self.config.preset or "custom",
            "svi.layout": layout.name,
            "svi.num_motion_frames": layout.num_motion_frames,
            "svi.padding": layout.padding.value,
            "svi.num_frames": layout.num_frames,
            "svi.expert": expert,
            "svi.shift": TRAINED_SHIFT,
            "svi.base": backbone.name,
            "svi.base_fingerprint": backbone.fingerprint,
            "svi.version": tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["version"],
            "svi.step": self.step,
            "ss_output_name": name,
            "ss_network_module": "networks.lora",
            "ss_network_dim": lora.rank,
            "ss_network_alpha": lora.alpha,
            "ss_base_model_version": "wan",
            "ss_sd_model_name": backbone.name,
            "ss_steps": self.step,
            "ss_learning_rate": self.learning_rate,
            "ss_resolution": f"({width}, {height})",
            "modelspec.sai_model_spec": "1.0.0",
            "modelspec.title": name,
            "modelspec.architecture": "wan-i2v-14b/lora",
            "modelspec.implementation": "https://github.com/Wan-Video/Wan2.1",
            "modelspec.description": f"Stable Video Infinity LoRA, {layout.name}, {expert} expert, step {self.step}",
            "modelspec.resolution": f"{width}x{height}",
        }
        if self.start:
            values |= {"svi.start_from": self.start.file, "svi.start_sha256": self.start.sha256}
            values |= {"svi.start_rank": self.start.file_rank, "svi.start_share_kept": self.start.share_kept}
        return {key: str(value) for key, value in values.items()}


def save_lora(
    path: Path,
    lora: LoraAdapters,
    backbone: Backbone,
    description: LoraDescription,
    file_dtype: str = "fp16",
    poses: TrainedPoses | None = None,
) -> None:
    """Write `lora` to `path` atomically, then load it back through ComfyUI and compare.

    Args:
        file_dtype: a key of FILE_DTYPES; the released files are fp16.
        poses: a pose encoder that belongs to the LoRA; it is small, and always saved in fp32.

    Raises:
        RoundingError: ComfyUI's result from the file differs from the adapter's by more than rounding explains.
        ValueError: a matrix holds NaN or infinity in the file's dtype, or ComfyUI ignores keys of the file.
            In both cases an earlier file at `path` is kept.
        OSError: the file could not be written.
    """
    dtype = FILE_DTYPES[file_dtype]
    tensors = {COMFY_PREFIX + key: value.to("cpu", dtype) for key, value in lora.state_dict().items()}
    tensors |= {key: value.cpu() for key, value in poses.state_dict().items()} if poses else {}
    for key, value in tensors.items():
        if not value.isfinite().all():
            named = file_dtype if value.dtype is dtype else "fp32"
            raise ValueError(
                f"{key} holds NaN or infinity in {named}: the LoRA is not saved. Resume from an earlier checkpoint."
            )
    if lora.alpha != lora.rank:
        tensors |= {f"{COMFY_PREFIX}{name}.alpha": torch.tensor(float(lora.alpha)) for name in lora.pairs}
    with staged(path) as staging:
        write_tensors(staging, tensors, description.metadata(lora, backbone))
        require_equal_in_comfyui(staging, lora, backbone, TOLERANCES[file_dtype])
        if poses:
            require_equal_poses(staging, poses)


def require_equal_in_comfyui(path: Path, lora: LoraAdapters, backbone: Backbone, tolerance: float) -> None:
    """Refuse a LoRA file that ComfyUI reads differently from `lora`.

    Raises:
        ValueError: ComfyUI does not use a key, or finds nothing for a layer; the message names it.
        RoundingError: ComfyUI computes other values for a layer; the message names it.
    """
    tensors = read_lora(path).tensors
    key_map = comfy.lora.model_lora_keys_unet(backbone.model, {})
    patches = comfy.lora.load_lora(tensors, key_map, log_missing=False)
    known = {f"{name}.alpha" for name, target in key_map.items() if target in patches}
    left = sorted(set(tensors) - known.union(*(getattr(patch, "loaded_keys", ()) for patch in patches.values())))
    if left:
        raise ValueError(f"ComfyUI's loader ignores {len(left)} keys of {path.name}, such as {left[0]}: not saved.")
    missing = [name for name in lora.pairs if f"{COMFY_PREFIX}{name}.weight" not in patches]
    if missing:
        raise ValueError(f"ComfyUI's loader finds nothing for {len(missing)} trained layers, such as {missing[0]}: not saved.")
    generator = torch.Generator().manual_seed(0)
    for name in lora.pairs:
        _require_equal_layer(name, patches, lora, generator, tolerance)


def require_equal_poses(path: Path, poses: TrainedPoses) -> None:
    """Refuse a file from which SVI Dance reads another pose encoder than `poses`.

    Raises:
        ValueError: a tensor differs; the message names it.
    """
    read = read_pose_encoder(path).state_dict()
    for name, tensor in poses.encoder.state_dict().items():
        if not torch.equal(read[name], tensor.cpu()):
            raise ValueError(f"{name} of the pose encoder in {path.name} differs from the trained one: not saved.")


@torch.no_grad()
def _require_equal_layer(
    name: str, patches: Mapping[str, object], lora: LoraAdapters, generator: torch.Generator, tolerance: float
) -> None:
    """Refuse a layer whose patch and adapter give different results for random inputs."""
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
            f"{name}: ComfyUI's result from the file differs from the adapter's by {error:.3g} of {size:.3g}, more than the "
            "file's dtype explains: not saved. If the values are too small for that dtype, set lora.file_dtype = 'fp32'."
        )
