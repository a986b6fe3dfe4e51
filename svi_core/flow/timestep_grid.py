"""The noise levels by which errors are stored: those that inference visits.

Source: SVI (arXiv:2510.09212), Sec. 4.3 (n(t), the nearest step of the test-time schedule); docs/METHOD.md, 9.7.
"""

from dataclasses import dataclass, field

from .flow_matching import TRAINED_SHIFT, shifted_sigmas

DEFAULT_NUM_GRIDS = 50


@dataclass(frozen=True)
class TimestepGrid:
    """A grid of noise levels; an error belongs to the nearest one.

    Attributes:
        num_grids: inference steps, 50 as trained.
        shift: of the noise schedule, 5 as trained.
        sigmas: the grid values [num_grids], falling from 1.
    """

    num_grids: int = DEFAULT_NUM_GRIDS
    shift: float = TRAINED_SHIFT
    sigmas: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "sigmas", tuple(map(float, shifted_sigmas(self.num_grids, self.shift)[:-1])))

    def index(self, sigma: float) -> int:
        """Return the index of the grid value nearest to noise level `sigma`; in a tie the noisier one.

        Raises:
            ValueError: `sigma` outside [0, 1].
        """
        if not 0.0 <= sigma <= 1.0:
            raise ValueError(f"sigma is {sigma}: noise levels lie in [0, 1] (a timestep divided by 1000).")
        return min(range(self.num_grids), key=lambda grid: abs(self.sigmas[grid] - sigma))
