"""What a queued graph requests: clips, models and sizes, and what remains unknown until nodes have run."""

from dataclasses import dataclass
from pathlib import Path

from ..clips.clip_plan import ClipPlan, ClipRequest
from ..store.clip_times import ClipWork
from ..systems.applied_loras import AppliedLora, ExpertLoras
from ..systems.lora import expert_named_in
from ..systems.lora_variant import LoraVariant
from ..systems.merged_files import Merged
from ..video.video_file import VideoCoding


@dataclass(frozen=True)
class ModelFile:
    """A model file that the graph names.

    Attributes:
        name: as in its widget.
        kind: ComfyUI's folder, "diffusion_models" or "loras" for instance; "" if none has it.
        num_bytes: its size; None if it is missing.
        complaint: what is wrong with its header, if anything.
    """

    name: str
    kind: str
    num_bytes: int | None
    complaint: str = ""


@dataclass(frozen=True)
class LoraUse:
    """A LoRA on a model.

    Attributes:
        name: its file.
        strength: as set in its node.
        named_for: the expert that its name or header says it is for: "high", "low" or None.
        variant: the SVI system that it says it was trained for, if any.
        is_checked: a node of this pack applies it, so the run compares its variant with the layout.
        changes_nothing: ComfyUI's own loader, which applies it, does not know its keys.
    """

    name: str
    strength: float
    named_for: str | None = None
    variant: LoraVariant | None = None
    is_checked: bool = True
    changes_nothing: bool = False


@dataclass(frozen=True)
class ExpertModel:
    """One model input of SVI Generate.

    Attributes:
        expert: "model" for a model without experts, else "high" or "low".
        file: name of the checkpoint; None if unknown.
        loras: its LoRAs, in order.
        likely: LoRAs of SVI that may come by a switch or in a list, which only a run follows.
        merged: what is merged into its weights.
    """

    expert: str
    file: str | None
    loras: tuple[LoraUse, ...] = ()
    likely: tuple[AppliedLora, ...] = ()
    merged: Merged = Merged()

    @property
    def named_for(self) -> str | None:
        """The expert in the file's name: "high", "low" or None."""
        return None if self.file is None else expert_named_in(self.file, {})

    @property
    def on_it(self) -> ExpertLoras:
        """Its LoRAs as a run tells them."""
        uses = ((use.name, use.strength, use.variant, 0 if use.changes_nothing else None) for use in self.loras)
        return ExpertLoras(self.expert, (*(AppliedLora(*use) for use in uses), *self.likely), self.merged)


@dataclass(frozen=True, kw_only=True)
class RequestedRun:
    """All that is known of a run before its models load; None stands for what only a node that runs later can tell.

    Attributes:
        plan: the clips; its seed is valid only if `is_seed_known`, its `continues` only if `is_start_known`.
        num_listed: clips that the schedule lists.
        until_stopped: the run goes on until it is stopped; `plan` then holds the listed clips.
        cfg: guidance scale, unless the schedule sets another for a clip.
        num_extra_passes: model passes that controls add to each step.
        num_steps: sampler steps of a clip.
        size: (width, height) in pixels.
        coding: of the video.
        max_frames: final length of the video; 0 for no limit.
        num_start_frames: frames of the video that the run continues.
        start_seconds: their duration; that video may have another frame rate.
        folder: of the run.
        experts: the model, or the high-noise and the low-noise expert.
        files: every model file of the graph.
        anchors: names that the schedule may use.
        lora_rows: LoRAs whose strengths the schedule may change.
        value_bytes: bytes per value of a stored latent.
        not_known: what is unknown until nodes have run, and why.
        remarks: further warnings about the graph.
    """

    plan: ClipPlan
    num_listed: int
    coding: VideoCoding = VideoCoding()
    max_frames: int = 0
    num_start_frames: int = 0
    start_seconds: float = 0.0
    until_stopped: bool = False
    is_seed_known: bool = True
    is_start_known: bool = True
    cfg: float | None = None
    num_extra_passes: int = 0
    num_steps: int | None = None
    size: tuple[int, int] | None = None
    folder: Path | None = None
    experts: tuple[ExpertModel, ...] = ()
    files: tuple[ModelFile, ...] = ()
    anchors: tuple[str, ...] = ()
    lora_rows: tuple[str, ...] = ()
    value_bytes: int = 4
    not_known: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def has_keys(self) -> bool:
        """Whether enough is known to tell which clips are stored."""
        return self.folder is not None and self.is_seed_known and self.is_start_known

    @property
    def model_names(self) -> tuple[str, ...]:
        """File names of the diffusion models; empty unless all are known."""
        names = tuple(expert.file for expert in self.experts if expert.file is not None)
        return names if len(names) == len(self.experts) else ()

    def cfg_of(self, request: ClipRequest) -> float | None:
        """Return the guidance scale of a clip."""
        return self.cfg if request.spec.cfg is None else request.spec.cfg

    def work_of(self, request: ClipRequest) -> ClipWork | None:
        """Return how much work a clip is, or None if steps, size or guidance are unknown."""
        cfg = self.cfg_of(request)
        if cfg is None or self.num_steps is None or self.size is None:
            return None
        width, height = self.size
        num_passes = (1 if cfg == 1.0 else 2) + self.num_extra_passes
        return ClipWork(self.num_steps, num_passes, request.layout.num_slots, height // 8, width // 8)
