"""All settings of a training run and their meaning. Those of the clips are in `training.settings.data`, of the LoRA in `.lora`.

Source: docs/METHOD.md, 9.8 (hyper-parameters) and 11.2 (memory).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from svi_core.flow.flow_matching import BOUNDARY, EXPERT_RANGES, TimestepWeighting
from svi_core.recycling.error_recycling import ErrorRecyclingConfig
from training.settings.checks import require
from training.settings.data import DataConfig, DropConfig
from training.settings.diagnosis import DiagnosisConfig
from training.settings.lora import LoraConfig


class BankStorageKind(StrEnum):
    """Where the error bank is stored."""

    RAM = "ram"
    FILE = "file"


class Schedule(StrEnum):
    """The learning rate's schedule after the warm-up."""

    CONSTANT = "constant"
    COSINE = "cosine"


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The model files: paths, or names as ComfyUI's loader nodes list them.

    Attributes:
        path: the Wan image-to-video model, safetensors; for Wan 2.2 one of the two experts.
        vae: the Wan 2.1 VAE, for the cache and for sample videos.
        text_encoder: umT5-XXL, for the cache and for sample videos.
        clip_vision: CLIP ViT-H, for Wan 2.1 only.
        pose_encoder: a LoRA file with the pose encoder that SVI-Dance starts from (svi-dance, UniAnimate-DiT); empty: a fresh
            encoder, which adds nothing at first, or that of the file in lora.start_from.
        audio_encoder: chinese-wav2vec2-base, for the cache of SVI-Talk.
        audio_patch: MultiTalk's audio layers, for SVI-Talk; they stay frozen.
        expert: the noise levels to train: "single" (Wan 2.1), "high" or "low" (Wan 2.2).
        weights: "auto" keeps fp8 files as they are and loads others as bf16 (fp32 on a CPU); or "bf16", "fp32", "fp8_e4m3fn".
        compute: dtype of activations, "bf16", "fp32", or "auto": bf16 on a GPU, fp32 on a CPU.
        fp8_matmul: multiply scaled-fp8 layers in fp8 where ComfyUI does; off: in the compute dtype, slower and more precise.
        fp8_backward: multiply the gradients of those layers in fp8 too: faster, and less precise. It needs `fp8_matmul`.
    """

    path: str = ""
    vae: str = ""
    text_encoder: str = ""
    clip_vision: str = ""
    pose_encoder: str = ""
    audio_encoder: str = ""
    audio_patch: str = ""
    expert: str = "single"
    weights: str = "auto"
    compute: str = "auto"
    fp8_matmul: bool = True
    fp8_backward: bool = False

    def __post_init__(self):
        if self.expert not in EXPERT_RANGES:
            raise ValueError(f"model.expert is {self.expert!r}: use one of {', '.join(map(repr, EXPERT_RANGES))}.")
        require(self.fp8_matmul or not self.fp8_backward, "model.fp8_backward", True, "false, or turn model.fp8_matmul on")


@dataclass(frozen=True, kw_only=True)
class MemoryConfig:
    """How training fits into the card's memory, see configs/memory_*.toml.

    These settings do not change results by a single bit, except `attention` and `compile`: other kernels round differently.

    Attributes:
        checkpointing: keep only each block's input for the backward pass, and recompute the rest.
        keep_attention: with checkpointing, also keep the outputs of self-attention: faster, but 13.4 GB more for 81 frames of
            832 x 480.
        offload_block_inputs: keep the blocks' inputs in host memory.
        swapped_blocks: number of blocks that keep their weights in host memory.
        attention: "auto" lets PyTorch choose; "cudnn", "flash", "efficient" or "math" selects one kernel.
        compile: compile each block with torch.compile, which may change rounding; with `keep_attention`, all but its attention;
            in Talk only the parts around the audio layers.
    """

    checkpointing: bool = True
    keep_attention: bool = False
    offload_block_inputs: bool = False
    swapped_blocks: int = 0
    attention: str = "auto"
    compile: bool = False


@dataclass(frozen=True, kw_only=True)
class BankConfig:
    """Where errors are stored, and which processes share them. The section `recycling` sets what is stored.

    Attributes:
        storage: "file" for a sparse file, which is read in place and survives a crash; or "ram", which each checkpoint saves
            whole.
        folder: folder of the file; empty: the run's folder.
        share: store all processes' errors in every process's bank, not only during the warm-up.
        image_errors_from: folder of another run, or file of its bank, which image errors are drawn from; empty: the own bank.
    """

    storage: BankStorageKind = BankStorageKind.FILE
    folder: str = ""
    share: bool = False
    image_errors_from: str = ""


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer and its learning rate.

    Attributes:
        name: "AdamW", "AdamW8bit" (needs bitsandbytes), or the dotted name of an optimizer class.
        learning_rate: the learning rate after the warm-up.
        weight_decay: weight decay, for AdamW or any class that takes it.
        options: further arguments of the class, as a table.
        schedule: "constant" or "cosine" (falls to `final_share` at the last step).
        warmup_steps: steps over which the learning rate rises linearly.
        final_share: share of the learning rate that is left at the end of the cosine.
        max_gradient_norm: gradients of a larger norm are clipped to this norm; 0: no clipping.
    """

    name: str = "AdamW"
    learning_rate: float = 1e-4
    weight_decay: float = 0.01
    options: Mapping[str, object] = field(default_factory=dict)
    schedule: Schedule = Schedule.CONSTANT
    warmup_steps: int = 0
    final_share: float = 0.0
    max_gradient_norm: float = 1.0

    def __post_init__(self):
        require(self.learning_rate > 0, "optimizer.learning_rate", self.learning_rate, "a number above 0, 1e-4 for SVI")
        require(self.weight_decay >= 0, "optimizer.weight_decay", self.weight_decay, "0 or more")
        require(self.warmup_steps >= 0, "optimizer.warmup_steps", self.warmup_steps, "0 or more")
        require(0 <= self.final_share <= 1, "optimizer.final_share", self.final_share, "a share from 0 to 1")
        require(self.max_gradient_norm >= 0, "optimizer.max_gradient_norm", self.max_gradient_norm, "0 (off) or more")


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """Length of the run, batch size, checkpoints.

    Attributes:
        steps: optimizer steps; 0: as many as `epochs` need.
        epochs: passes over the examples, used if `steps` is 0.
        batch_size: examples in one forward pass of one process.
        accumulation: forward passes of one process in one optimizer step.
        weighting: loss weights of the noise levels: "bell" as released, or "uniform".
        checkpoint_every: steps between two checkpoints.
        keep_checkpoints: number of checkpoints to keep, the newest ones; at least 2, in case one is damaged.
        keep_loras_every: steps between LoRA files that are never removed; 0: keep only the newest LoRA file.
    """

    steps: int = 0
    epochs: int = 10
    batch_size: int = 1
    accumulation: int = 1
    weighting: TimestepWeighting = TimestepWeighting.BELL
    checkpoint_every: int = 100
    keep_checkpoints: int = 3
    keep_loras_every: int = 0

    def __post_init__(self):
        require(self.steps >= 0, "loop.steps", self.steps, "0 (loop.epochs then sets the length) or more")
        for name in ("epochs", "batch_size", "accumulation", "checkpoint_every"):
            require(getattr(self, name) >= 1, f"loop.{name}", getattr(self, name), "1 or more")
        require(self.keep_checkpoints >= 2, "loop.keep_checkpoints", self.keep_checkpoints, "2 or more")
        fits = self.keep_loras_every >= 0 and self.keep_loras_every % self.checkpoint_every == 0
        multiple = f"0 or a multiple of loop.checkpoint_every = {self.checkpoint_every}, since LoRA files come with checkpoints"
        require(fits, "loop.keep_loras_every", self.keep_loras_every, multiple)

    def examples_per_step(self, num_processes: int) -> int:
        """Return the examples of one optimizer step over all processes."""
        return num_processes * self.accumulation * self.batch_size


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """The loss on clips that are held out of training.

    Attributes:
        every: steps between two validations, which also record the error banks' statistics; 0: no validation, and the
            statistics come with each checkpoint.
        quantiles: number of ranges of noise levels, each with a loss of its own.
        max_examples: maximum number of held-out examples.
    """

    every: int = 100
    quantiles: int = 5
    max_examples: int = 8

    def __post_init__(self):
        require(self.every >= 0, "validation.every", self.every, "0 (off) or more")
        require(self.quantiles >= 1, "validation.quantiles", self.quantiles, "1 or more")
        require(self.max_examples >= 1, "validation.max_examples", self.max_examples, "1 or more")


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """Sample videos of several clips during training, made by the clip loop of the nodes, so that drift shows early.

    Attributes:
        every: steps between two sample videos; 0: none.
        prompts: one per clip, the last one repeated; empty: the caption of the first held-out example.
        image: the reference image; empty: the anchor of the first held-out example.
        num_clips: clips of a video.
        steps: sampling steps per clip.
        cfg: scale of classifier-free guidance; 1: no guidance, in half the time.
        negative: the negative prompt, used if cfg is not 1.
        seed: seed of the first clip.
        other_expert: for Wan 2.2 the file of the expert that is not trained; empty: the trained expert makes all steps.
        boundary: noise level (sigma) at which the low-noise expert takes over.
    """

    every: int = 0
    prompts: tuple[str, ...] = ()
    image: str = ""
    num_clips: int = 3
    steps: int = 20
    cfg: float = 1.0
    negative: str = ""
    seed: int = 0
    other_expert: str = ""
    boundary: float = BOUNDARY

    def __post_init__(self):
        require(self.every >= 0, "samples.every", self.every, "0 (off) or more")
        for name in ("num_clips", "steps"):
            require(getattr(self, name) >= 1, f"samples.{name}", getattr(self, name), "1 or more")
        require(0 < self.boundary < 1, "samples.boundary", self.boundary, f"a noise level between 0 and 1, {BOUNDARY} for I2V")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """A whole training run.

    Attributes:
        preset: hyper-parameters to start from, a name of svi_core.recycling.presets; empty: the defaults of each section.
        run: folder of the run: checkpoints, LoRA files, logs, samples, report.
        name: title of the LoRA; empty: the name of the run's folder.
        seed: seed of the LoRA's initial values, of noise, noise levels and errors, and of the order of examples.
        model: the model files.
        memory: how training fits into the card's memory.
        lora: the adapters.
        data: the clips.
        recycling: the method, see svi_core.recycling.error_recycling.
        drops: how often a condition is dropped.
        bank: where errors are stored.
        optimizer: the optimizer and its learning rate.
        loop: length of the run, batch size, checkpoints.
        validation: the loss on held-out clips.
        samples: sample videos during training.
        diagnosis: chains of clips that show whether the method applies.
    """

    preset: str = ""
    run: str = ""
    name: str = ""
    seed: int = 0
    model: ModelConfig = field(default_factory=ModelConfig)
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    lora: LoraConfig = field(default_factory=LoraConfig)
    data: DataConfig = field(default_factory=DataConfig)
    recycling: ErrorRecyclingConfig = field(default_factory=ErrorRecyclingConfig)
    drops: DropConfig = field(default_factory=DropConfig)
    bank: BankConfig = field(default_factory=BankConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    loop: LoopConfig = field(default_factory=LoopConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    samples: SampleConfig = field(default_factory=SampleConfig)
    diagnosis: DiagnosisConfig = field(default_factory=DiagnosisConfig)

    @property
    def run_name(self) -> str:
        """Title and file name of the LoRA."""
        return self.name or Path(self.run).name
