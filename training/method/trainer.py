"""What a training run works with, put together once and handed to every part."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch

from svi_core.flow.flow_matching import EXPERT_RANGES, ExpertRange, timestep_weights, training_sigmas
from training.data.dataset import TrainingExample
from training.method.banks import Banks
from training.method.distributed import Group
from training.model.adapters import LoraAdapters
from training.model.backbone import Backbone
from training.model.execution import LoadedAs
from training.model.pose_encoder import TrainedPoses, split_poses
from training.settings.sections import TrainingConfig


class ExampleSource(Protocol):
    """Where examples come from; `training.data.dataset.CachedDataset` is one."""

    def __len__(self) -> int:
        """Return the number of training examples."""

    def example(self, seed: int, step: int, slot: int) -> TrainingExample:
        """Return the example for place `slot` (over all processes) of `step` (from 0), a pure function of the three."""

    def validation(self) -> Iterable[TrainingExample]:
        """Give the examples that are held out of training, always in one order."""

    @property
    def num_held_out(self) -> int:
        """How many these are."""

    @property
    def content_hash(self) -> str:
        """A hash of which examples there are."""


@dataclass
class Trainer:
    """The parts of a run. `step` is the one thing here that changes as a number; lora, poses, optimizer, banks change inside.

    Attributes:
        config: the settings.
        backbone: the frozen model.
        loaded: how it really runs here.
        lora: what is trained.
        optimizer: what moves it.
        banks: this process's error banks.
        data: examples.
        group: the processes.
        num_steps: optimizer steps of the whole training.
        step: optimizer steps done.
        poses: the pose encoder that is trained too, for SVI-Dance.
        sigmas: [1000] noise level of each timestep id.
        weights: [1000] loss weight of each timestep id.
    """

    config: TrainingConfig
    backbone: Backbone
    loaded: LoadedAs
    lora: LoraAdapters
    optimizer: torch.optim.Optimizer
    banks: Banks
    data: ExampleSource
    group: Group
    num_steps: int
    step: int = 0
    poses: TrainedPoses | None = None
    sigmas: torch.Tensor = field(init=False, repr=False)
    weights: torch.Tensor = field(init=False, repr=False)

    def __post_init__(self):
        self.sigmas = training_sigmas()
        self.weights = timestep_weights(self.sigmas, self.config.loop.weighting)

    def parameters(self) -> list[torch.nn.Parameter]:
        """Return all that is trained: the LoRA's matrices, then the pose encoder."""
        return self.lora.parameters() + (self.poses.parameters() if self.poses else [])

    @property
    def num_parameters(self) -> int:
        """Numbers that are trained."""
        return sum(parameter.numel() for parameter in self.parameters())

    def trained_state(self) -> dict[str, torch.Tensor]:
        """Return what is trained as tensors by name, without the optimizer."""
        return {**self.lora.state_dict(), **(self.poses.state_dict() if self.poses else {})}

    def load_trained_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take the tensors of :meth:`trained_state`.

        Raises:
            ValueError: they are of another LoRA.
        """
        lora, poses = split_poses(tensors)
        self.lora.load_state_dict(lora)
        if self.poses:
            self.poses.load_state_dict(poses)

    @property
    def timesteps(self) -> ExpertRange:
        """The timestep ids that are trained."""
        return EXPERT_RANGES[self.config.model.expert]

    @property
    def examples_per_step(self) -> int:
        """Examples of one optimizer step over all processes."""
        return self.group.size * self.config.loop.accumulation * self.config.loop.batch_size
