"""How often a condition is left out of an example.

Source: docs/METHOD.md, 9.10.
"""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DropConfig:
    """How often something is left out of an example; the presets dance and talk set what the authors do.

    Attributes:
        image: probability that conditioning latent, mask and CLIP feature are zero; then there is no image error either.
        pose: probability that the pose tokens are zero.
        sound: probability that the sound is silence.
    """

    image: float = 0.0
    pose: float = 0.0
    sound: float = 0.0

    def __post_init__(self):
        for name in ("image", "pose", "sound"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"drops.{name} is {getattr(self, name)!r}: use a probability from 0 to below 1.")

    @property
    def any(self) -> bool:
        """Whether anything is ever left out."""
        return max(self.image, self.pose, self.sound) > 0
