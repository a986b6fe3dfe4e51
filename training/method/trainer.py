"""The parts of a training run: settings, model, LoRA, optimizer, error banks, examples, processes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch

from svi_core.flow.flow_matching import EXPERT_RANGES, ExpertRange, timestep_weights, training_sigmas
from training.data.dataset import TrainingExample
from training.method.banks import Banks
from training.method.distributed import Group
from training.method.image_errors import ImageErrors
from training.model.adapters import LoraAdapters
from training.model.backbone import Backbone
from training.model.execution import Execution
from training.model.pose_encoder import TrainedPoses, split_poses
from training.model.start_lora import StartRecord
from training.settings.sections import TrainingConfig


class ExampleSource(Protocol):
    """A source of examples, such as `training.data.dataset.CachedDataset`."""

    def __len__(self) -> int:
        """Return the number of training examples."""
        ...

    def example(self, seed: int, step: int, slot: int) -> TrainingExample:
        """Return the example of place `slot` (over all processes) in `step` (from 0): a pure function of the arguments."""
        ...

    def validation(self) -> Iterable[TrainingExample]:
        """Return the held-out examples, always in the same order."""
        ...

    @property
    def latent_shapes(self) -> set[tuple[int, ...]]:
        """The shapes [C, F, h, w] of the examples to learn from."""
        ...

    @property
    def num_held_out(self) -> int:
        """Number of held-out examples."""
        ...

    @property
    def content_hash(self) -> str:
        """A hash of all examples."""
        ...


@dataclass
class Trainer:
    """The parts of a training run. Training changes `step` and the insides of lora, poses, optimizer and banks.

    Attributes:
        config: the settings.
        backbone: the frozen model.
        execution: how the model runs on this machine.
        lora: the adapters that are trained.
        optimizer: updates the trained parameters.
        banks: this process's error banks.
        data: the examples.
        group: the processes.
        num_steps: optimizer steps of the whole run.
        step: optimizer steps done so far.
        poses: the pose encoder, which SVI-Dance trains too; None for the other systems.
        start: the LoRA file that the run began from; None if it began with a fresh LoRA.
        image_errors: the banks of another run, which image errors are drawn from; None: `banks`.
        sigmas: [1000] noise level of each timestep id.
        weights: [1000] loss weight of each timestep id.
    """

    config: TrainingConfig
    backbone: Backbone
    execution: Execution
    lora: LoraAdapters
    optimizer: torch.optim.Optimizer
    banks: Banks
    data: ExampleSource
    group: Group
    num_steps: int
    step: int = 0
    poses: TrainedPoses | None = None
    start: StartRecord | None = None
    image_errors: ImageErrors | None = None
    sigmas: torch.Tensor = field(init=False, repr=False)
    weights: torch.Tensor = field(init=False, repr=False)

    def __post_init__(self):
        self.sigmas = training_sigmas()
        self.weights = timestep_weights(self.sigmas, self.config.loop.weighting)

    def parameters(self) -> list[torch.nn.Parameter]:
        """Return all trained parameters: the LoRA's matrices, then the pose encoder's."""
        return self.lora.parameters() + (self.poses.parameters() if self.poses else [])

    @property
    def num_parameters(self) -> int:
        """Count of trained numbers."""
        return sum(parameter.numel() for parameter in self.parameters())

    def trained_state(self) -> dict[str, torch.Tensor]:
        """Return the trained tensors by name, without the optimizer's state."""
        return {**self.lora.state_dict(), **(self.poses.state_dict() if self.poses else {})}

    def load_trained_state(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Load the tensors of :meth:`trained_state`.

        Raises:
            ValueError: they belong to a LoRA of other layers or another rank.
        """
        lora, poses = split_poses(tensors)
        self.lora.load_state_dict(lora)
        if self.poses:
            self.poses.load_state_dict(poses)

    @property
    def timesteps(self) -> ExpertRange:
        """The timestep ids that this expert is trained on."""
        return EXPERT_RANGES[self.config.model.expert]

    def is_due(self, every: int) -> bool:
        """Whether an action is due now that is due every `every` steps (0: never) and after the last step."""
        return bool(every) and (self.step == self.num_steps or self.step % every == 0)

    @property
    def examples_per_step(self) -> int:
        """Examples of one optimizer step over all processes."""
        return self.config.loop.examples_per_step(self.group.size)
