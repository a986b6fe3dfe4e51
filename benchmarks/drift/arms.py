"""The arms of the study: how each LoRA is fine-tuned. Base, examples, noise, noise levels and initial LoRA are the same."""

from dataclasses import dataclass, replace
from enum import StrEnum

from svi_core.recycling.config import ErrorRecyclingConfig

BASE, PLAIN, FULL, NO_IMAGE, GAUSSIAN = "base", "plain LoRA", "ERFT", "without image error", "Gaussian noise"
MAIN = (PLAIN, FULL, NO_IMAGE, GAUSSIAN)


class ErrorSource(StrEnum):
    """Where the errors that an arm injects come from."""

    NOTHING = "nothing"  # plain fine-tuning
    OWN = "own errors"  # the bank, filled while training (the method)
    BASE = "the base's errors"  # the bank, filled by the base before training and then frozen
    GAUSSIAN = "Gaussian noise"  # with the variance of the error that the bank would have given
    HAND_MADE = "blur and colour"  # of the example's own first frame or motion
    SAME_CLIP = "the model's errors on the clip before"  # of the example's own scene, where a bank gives those of any

    @property
    def fills_bank(self) -> bool:
        """Whether training adds errors to the bank."""
        return self in (ErrorSource.OWN, ErrorSource.GAUSSIAN)


@dataclass(frozen=True)
class Arm:
    """One way to fine-tune.

    Attributes:
        name: as in the tables.
        source: where errors come from.
        recycling: probabilities and bank.
        num_steps: of training.
    """

    name: str
    source: ErrorSource
    recycling: ErrorRecyclingConfig
    num_steps: int


def make_arms(recycling: ErrorRecyclingConfig, lengths: tuple[int, int, int]) -> dict[str, Arm]:
    """Return the full method with settings `recycling` and its variants, in the order of the runs.

    Args:
        recycling: of the full method.
        lengths: training steps: fewer, usual and more.
    """
    own, (fewer, usual, more) = ErrorSource.OWN, lengths
    plain = replace(recycling, noise_prob=0.0, latent_prob=0.0, image_prob=0.0)
    image_only = replace(recycling, noise_prob=0.0, latent_prob=0.0)
    arms = [
        Arm(PLAIN, ErrorSource.NOTHING, plain, usual),
        Arm(FULL, own, recycling, usual),
        Arm(NO_IMAGE, own, replace(recycling, image_prob=0.0), usual),
        Arm(GAUSSIAN, ErrorSource.GAUSSIAN, recycling, usual),
        Arm("image error only", own, image_only, usual),
        Arm("without latent error", own, replace(recycling, latent_prob=0.0), usual),
        Arm("without noise error", own, replace(recycling, noise_prob=0.0), usual),
        Arm("image error of the own clip", ErrorSource.SAME_CLIP, image_only, usual),
        Arm("blur and colour", ErrorSource.HAND_MADE, image_only, usual),
        Arm("frozen bank", ErrorSource.BASE, recycling, usual),
        Arm("bank of 1", own, replace(recycling, capacity=1), usual),
        Arm("bank of 10", own, replace(recycling, capacity=10), usual),
        Arm("clean probability 0.2", own, replace(recycling, clean_prob=0.2), usual),
        Arm("clean probability 0.8", own, replace(recycling, clean_prob=0.8), usual),
    ]
    for name, source, settings in ((PLAIN, ErrorSource.NOTHING, plain), (FULL, own, recycling)):
        arms += [Arm(f"{name}, {steps} steps", source, settings, steps) for steps in (fewer, more)]
    return {arm.name: arm for arm in arms}
