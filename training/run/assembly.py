"""Build the trainer of a run from its settings: model, LoRA, optimizer, banks."""

import logging
import math
from pathlib import Path

from svi_core.files.fingerprint import fingerprint
from svi_core.systems.layouts import Condition
from training.method.banks import Banks
from training.method.distributed import Group
from training.method.image_errors import ImageErrors
from training.method.optimizers import make_optimizer, require_resumable
from training.method.streams import stream
from training.method.trainer import ExampleSource, Trainer
from training.model.adapters import LoraAdapters, expand_targets
from training.model.backbone import Backbone
from training.model.comfy_runtime import find_model
from training.model.execution import Execution, describe_execution, require_lora_runs
from training.model.loading import load_backbone, load_speech_layers
from training.model.pose_encoder import TrainedPoses, start_pose_encoder
from training.model.start_lora import StartLora, read_start_lora
from training.run.checkpoint import checkpoints
from training.settings.sections import TrainingConfig

_log = logging.getLogger(__name__)


def load_configured_backbone(config: TrainingConfig) -> Backbone:
    """Load the model that `config` names, with audio layers where the layout follows sound.

    Raises:
        ValueError: there is no such file, or it holds a model that cannot be trained with these settings.
    """
    backbone = _load(config, config.model.path, "model.path", on_host=config.memory.swapped_blocks > 0)
    require_expert(config.model.expert, backbone.needs_clip_vision, backbone.name)
    if config.data.svi_layout.condition is Condition.SOUND:
        layers = find_model("model_patches", config.model.audio_patch, "model.audio_patch")
        backbone.add_speech(load_speech_layers(layers, backbone.device, backbone.compute_dtype))
    return backbone


def require_expert(expert: str, is_wan_2_1: bool, name: str) -> None:
    """Refuse an expert of Wan 2.2 for Wan 2.1, and the reverse. Warn if the file's name suggests the other expert.

    Args:
        expert: "single", "high" or "low".
        is_wan_2_1: whether the model reads CLIP vision features, which Wan 2.2 does not.
        name: the model file's name.

    Raises:
        ValueError: the model would be trained on noise levels that it is not used for.
    """
    if is_wan_2_1 != (expert == "single"):
        version, fitting = ("2.1", "'single', as the presets shot and film say") if is_wan_2_1 else ("2.2", "'high' or 'low'")
        raise ValueError(f"model.expert is {expert!r}, but {name} is a Wan {version} model: use {fitting}.")
    other = {"high": "low_noise", "low": "high_noise"}.get(expert)
    if other is not None and other in name.lower():
        _log.warning("SVI: model.expert is %r, but the file's name is %s: is it the other expert?", expert, name)


def load_other_expert(config: TrainingConfig) -> Backbone:
    """Load the expert of Wan 2.2 that is not trained, for sample videos.

    Raises:
        ValueError: there is no such file, or it holds another kind of model.
    """
    return _load(config, config.samples.other_expert, "samples.other_expert", on_host=False)


def _load(config: TrainingConfig, name: str, setting: str, *, on_host: bool) -> Backbone:
    return load_backbone(
        find_model("diffusion_models", name, setting),
        weights=config.model.weights,
        compute=config.model.compute,
        attention=config.memory.attention,
        fp8_matmul=config.model.fp8_matmul,
        fp8_backward=config.model.fp8_backward,
        on_host=on_host,
    )


def read_configured_start(config: TrainingConfig, *, resume: bool = False) -> StartLora | None:
    """Return the LoRA that a run of `config` begins from; None for a fresh one, and to `resume` from a checkpoint.

    Raises:
        ValueError: there is no such file, or the run cannot begin from it.
    """
    if not config.lora.start_from or (resume and checkpoints(Path(config.run))):
        return None
    path = find_model("loras", config.lora.start_from, "lora.start_from")
    return read_start_lora(path, find_model("diffusion_models", config.model.path, "model.path"), config)


def open_trainer(
    config: TrainingConfig, group: Group, data: ExampleSource, start: StartLora | None, image_errors: ImageErrors | None
) -> Trainer:
    """Load the model that `config` names, and return a trainer at step 0. Check files before, since that takes minutes.

    Args:
        start: see :func:`read_configured_start`.
        image_errors: banks of another run, which image errors are drawn from; None: the run's own.

    Raises:
        ValueError: a setting does not fit the model or this machine.
    """
    config = start.settled(config) if start else config
    trainer = assemble(config, load_configured_backbone(config), data, group, Path(config.run), start)
    trainer.image_errors = image_errors
    return trainer


def assemble(
    config: TrainingConfig, backbone: Backbone, data: ExampleSource, group: Group, run: Path, start: StartLora | None = None
) -> Trainer:
    """Return a trainer at step 0 for `backbone` and `data`. Banks on disk go into the folder `run`.

    Args:
        start: what its LoRA begins from; None for a fresh one, or one that a checkpoint will replace.

    Raises:
        ValueError: a setting does not fit the model or this machine.
    """
    execution = describe_execution(backbone)
    _warn_without_effect(config, execution)
    lora = LoraAdapters(
        backbone.transformer,
        rank=config.lora.rank,
        alpha=config.lora.alpha,
        targets=expand_targets(config.lora.targets),
        generator=stream(config.seed, 0, 0, "lora"),
        device=backbone.device,
    )
    require_lora_runs(backbone, lora)
    backbone.use_memory(lora.parameters()[0], config.memory)
    num_steps = config.loop.steps or math.ceil(config.loop.epochs * len(data) / config.loop.examples_per_step(group.size))
    banks = _make_banks(config, group, num_steps, run)
    poses = _make_poses(config, backbone)
    require_resumable(config.optimizer, backbone.device)
    record = start.load_into(lora, None if config.model.pose_encoder else poses) if start else None
    groups = [{"params": part.parameters()} for part in (lora, poses) if part]
    optimizer = make_optimizer(groups, config.optimizer)
    return Trainer(config, backbone, execution, lora, optimizer, banks, data, group, num_steps, poses=poses, start=record)


def _warn_without_effect(config: TrainingConfig, execution: Execution) -> None:
    """Warn of a setting that does nothing with this file on this machine."""
    if config.model.fp8_backward and not execution.multiplies_in_fp8:
        _log.warning(
            "SVI: model.fp8_backward is true, but no product runs in fp8 here (%s), so it does nothing: set it to false, "
            "or use a scaled fp8 file and a GPU of compute capability 8.9 or later.",
            execution.matmul,
        )


def _make_banks(config: TrainingConfig, group: Group, num_steps: int, run: Path) -> Banks:
    """Return this process's banks, which expect all processes' errors while errors are shared and then only its own."""
    num_shared_steps = num_steps if config.bank.share else min(num_steps, config.recycling.warmup_steps)
    per_step = config.loop.examples_per_step(group.size)
    return Banks(
        config.recycling,
        config.bank,
        bank_folder(config, run) / f"process{group.rank}",
        num_snapshots=config.loop.keep_checkpoints + 1,
        expected_entries=num_shared_steps * per_step + (num_steps - num_shared_steps) * per_step // group.size,
    )


def _make_poses(config: TrainingConfig, backbone: Backbone) -> TrainedPoses | None:
    """Return the pose encoder to train where the layout follows poses, else None.

    Raises:
        ValueError: the file to start from does not exist, or holds no encoder for this model.
    """
    if config.data.svi_layout.condition is not Condition.POSE:
        return None
    name = config.model.pose_encoder
    path = find_model("loras", name, "model.pose_encoder") if name else None
    encoder = start_pose_encoder(path, backbone.transformer.dim, stream(config.seed, 0, 0, "poses"))
    return TrainedPoses(encoder, backbone.device)


def bank_folder(config: TrainingConfig, run: Path) -> Path:
    """Return the folder of all processes' banks on disk.

    Outside the run's folder its name carries a hash of the run's path, so that runs of one name do not share banks. A run whose
    folder was moved no longer finds its banks there.
    """
    if not config.bank.folder:
        return run / "bank"
    return Path(config.bank.folder) / f"{run.resolve().name}-{fingerprint(str(run.resolve()))[:8]}"
