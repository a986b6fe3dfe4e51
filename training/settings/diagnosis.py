"""The settings of a diagnosis, see `training.diagnose`."""

from dataclasses import dataclass

from training.settings.checks import require


@dataclass(frozen=True, kw_only=True)
class DiagnosisConfig:
    """Chains of clips from held-out ones, which show whether error recycling applies to the model.

    Guidance, negative prompt and the other expert are those of the sample videos (the section `samples`).

    Attributes:
        every: steps between two diagnoses during training, of the model as it is then; 0: none.
        num_scenes: held-out clips to chain from; at least 6 for a verdict. Examples of other clips are taken first.
        num_clips: clips of a chain; at least 6 for a verdict. What a chain loses shows late: a base that keeps 0.33 of the
            contrast after 30 clips has 0.97 after one.
        steps: sampling steps per clip.
        seed: seed of the first clip of the first scene.
        cut_to_8_bits: truncate the frames that clips hand over to 8 bits, as the released code does (an option of SVI Layout).
    """

    every: int = 0
    num_scenes: int = 8
    num_clips: int = 10
    steps: int = 8
    seed: int = 0
    cut_to_8_bits: bool = False

    def __post_init__(self):
        require(self.every >= 0, "diagnosis.every", self.every, "0 (off) or more")
        for name in ("num_scenes", "num_clips"):
            require(getattr(self, name) >= 2, f"diagnosis.{name}", getattr(self, name), "2 or more, 6 for a verdict")
        require(self.steps >= 1, "diagnosis.steps", self.steps, "1 or more")
        require(self.seed >= 0, "diagnosis.seed", self.seed, "0 or more")
