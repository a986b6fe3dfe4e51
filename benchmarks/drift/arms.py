"""The arms of the study: how each is fine-tuned. Base, data order, noise, noise levels and initial LoRA are the same."""

from dataclasses import dataclass, replace
from enum import StrEnum

from svi_core.recycling.config import ErrorRecyclingConfig

CAPACITY, NUM_GRIDS = 100, 20
BASE, PLAIN, FULL, IMAGE_ONLY = "base", "plain LoRA", "ERFT", "image error only"
OWN_CLIP, OTHER_CLIP = "image error of the clip before", "image error of another clip"


class ErrorSource(StrEnum):
    """Where the errors that an arm injects come from."""

    NOTHING = "nothing"  # plain fine-tuning
    OWN = "own errors"  # the bank, filled while training (the method)
    BASE = "the base's errors"  # the bank, filled by the base before training and then frozen
    GAUSSIAN = "Gaussian noise"  # with the variance of the error that the bank would have given
    HAND_MADE = "blur and colour"  # of the example's own first frame or motion frames
    SAME_CLIP = "the model's errors on the clip before"  # of the example's own clip, where a bank gives those of any clip
    OTHER_CLIP = "the model's errors on clips before other ones"  # the same errors, handed to other examples of the batch

    @property
    def is_handed_over(self) -> bool:
        """Whether errors come from the clips before the examples, made for each batch."""
        return self in (ErrorSource.SAME_CLIP, ErrorSource.OTHER_CLIP)


@dataclass(frozen=True)
class Arm:
    """One way to fine-tune.

    Attributes:
        name: as in the tables.
        source: where errors come from.
        recycling: probabilities and bank.
    """

    name: str
    source: ErrorSource
    recycling: ErrorRecyclingConfig


def make_arms(recycling: ErrorRecyclingConfig) -> dict[str, Arm]:
    """Return the full method with settings `recycling` and its variants, in the order of the runs."""
    own = ErrorSource.OWN
    arms = (
        Arm(PLAIN, ErrorSource.NOTHING, replace(recycling, noise_prob=0.0, latent_prob=0.0, image_prob=0.0)),
        Arm(FULL, own, recycling),
        Arm("without image error", own, replace(recycling, image_prob=0.0)),
        Arm(IMAGE_ONLY, own, replace(recycling, noise_prob=0.0, latent_prob=0.0)),
        Arm("Gaussian noise", ErrorSource.GAUSSIAN, recycling),
        Arm("blur and colour", ErrorSource.HAND_MADE, replace(recycling, noise_prob=0.0, latent_prob=0.0)),
        Arm("frozen bank", ErrorSource.BASE, recycling),
        Arm("without latent error", own, replace(recycling, latent_prob=0.0)),
        Arm("without noise error", own, replace(recycling, noise_prob=0.0)),
        Arm("bank of 1", own, replace(recycling, capacity=1)),
        Arm("bank of 10", own, replace(recycling, capacity=10)),
        Arm(OWN_CLIP, ErrorSource.SAME_CLIP, replace(recycling, noise_prob=0.0, latent_prob=0.0)),
        Arm(OTHER_CLIP, ErrorSource.OTHER_CLIP, replace(recycling, noise_prob=0.0, latent_prob=0.0)),
    )
    return {arm.name: arm for arm in arms}
