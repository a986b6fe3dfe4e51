"""The loss on held-out clips by noise level, always with the same noise, so that the curves can be compared."""

import itertools
import math
from collections.abc import Callable, Sequence

import torch

from svi_core.flow.flow_matching import make_flow_sample
from training.data.dataset import TrainingExample
from training.method.erft_step import TrainingStopped, conditions_of
from training.method.streams import stream
from training.method.trainer import Trainer


def quantile_ids(trainer: Trainer, quantiles: int) -> list[int]:
    """Return the middle timestep id of each of `quantiles` equal parts of the trained ids, from the noisiest on."""
    first, count = trainer.timesteps.first_id, trainer.timesteps.end_id - trainer.timesteps.first_id
    return [first + int((index + 0.5) * count / quantiles) for index in range(quantiles)]


def held_out_examples(trainer: Trainer) -> list[TrainingExample]:
    """Return the first `validation.max_examples` held-out examples."""
    return list(itertools.islice(trainer.data.validation(), trainer.config.validation.max_examples))


@torch.no_grad()
def validate(
    trainer: Trainer, examples: Sequence[TrainingExample], should_stop: Callable[[], bool] = lambda: False
) -> dict[str, float] | None:
    """Return the mean squared velocity error of clean examples for each quantile of noise levels, by its sigma.

    The processes divide the examples among themselves, and all get the result. If `should_stop` is True in any of them, all
    abandon the validation and return None.
    """
    ids = quantile_ids(trainer, trainer.config.validation.quantiles)
    totals = [0.0] * len(ids)
    for index, example in enumerate(examples):
        if index % trainer.group.size != trainer.group.rank:
            continue
        for part, timestep_id in enumerate(ids):
            if not should_stop():
                totals[part] += _error(trainer, example, timestep_id, index)
    *totals, num_unfinished = trainer.group.total(*totals, should_stop())
    if num_unfinished:
        return None
    return {f"{float(trainer.sigmas[i]):.3f}": total / len(examples) for i, total in zip(ids, totals, strict=True)}


def _error(trainer: Trainer, example: TrainingExample, timestep_id: int, index: int) -> float:
    random = stream(trainer.config.seed, 0, index, f"validation {timestep_id}")
    noise = torch.randn(example.latent.shape, generator=random)
    sigma = trainer.sigmas[timestep_id]
    sample = make_flow_sample(example.latent, noise, sigma)
    conditions = conditions_of(trainer, [example], [example.y_latent])
    predicted = trainer.backbone.velocity(sample.noisy_latent[None], sigma[None], conditions)[0].cpu()
    error = float((predicted - sample.velocity).square().mean())
    if not math.isfinite(error):
        raise TrainingStopped(
            f"the model's error on held-out clip {example.name} is {error}: check the clip, or exclude it: "
            f"python -m training.erft --resume {trainer.config.run} 'data.exclude=[\"{example.name}\"]'. If all clips "
            "are like that, the run diverged: remove the newest folder in checkpoints and lower optimizer.learning_rate."
        )
    return error
