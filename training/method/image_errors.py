"""Image errors from the banks of another training run.

For Wan 2.2 a clip hands over what the low-noise expert made last. The high-noise expert meets such errors in its conditioning,
but its own bank holds none. Source: docs/METHOD.md, 9.9 (the ranges of the experts).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from svi_core.recycling.config import ErrorRecyclingConfig, ImageErrorGrids
from svi_core.recycling.error_bank import ErrorBank
from svi_core.recycling.exported_bank import BankFacts, read_banks
from training.method.banks import shape_name


@dataclass(frozen=True)
class ImageErrors:
    """Banks that are read and never changed.

    Attributes:
        banks: by latent shape.
        content_hash: of a file of banks, all of it; a run that trains with them resumes with no others.
    """

    banks: Mapping[str, ErrorBank]
    content_hash: str = ""

    def of(self, latent_shape: Sequence[int]) -> ErrorBank:
        """Return the bank for latents of `latent_shape` [C, F, h, w], which :func:`require_fitting` has found."""
        return self.banks[shape_name(latent_shape)]


def read_image_errors(path: Path) -> ImageErrors:
    """Map the banks in the file `path`, and compare every error with its checksum.

    Raises:
        ValueError: see :func:`svi_core.recycling.exported_bank.read_banks`.
    """
    _, content_hash, banks = read_banks(path)
    return ImageErrors(banks, content_hash)


def require_fitting(
    source: str,
    facts: BankFacts,
    fills: Mapping[str, Sequence[int]],
    recycling: ErrorRecyclingConfig,
    layout: str,
    latent_shapes: Iterable[Sequence[int]],
) -> None:
    """Refuse banks that image errors cannot be drawn from.

    Args:
        source: where the banks are, for the message.
        facts: what they hold.
        fills: the entries of each cell, by latent shape.
        recycling: the settings of the run that draws.
        layout: its layout.
        latent_shapes: of all its examples.

    Raises:
        ValueError: another layout, grid or size, or no errors in the cells that are drawn from.
    """
    if recycling.image_error_grids is ImageErrorGrids.CURRENT:
        raise ValueError(
            "recycling.image_error_grids is 'current', but bank.image_errors_from names the errors of another run, which has "
            "other noise levels: use 'all' or 'range'."
        )
    pairs = (
        ("layout (data.layout)", facts.layout, layout),
        ("recycling.num_grids", facts.num_grids, recycling.num_grids),
        ("recycling.grid_shift", facts.shift, recycling.grid_shift),
    )
    if differing := [f"{name} {found!r}, not {wanted!r}" for name, found, wanted in pairs if found != wanted]:
        raise ValueError(
            f"bank.image_errors_from: the errors in {source} were made with {'; '.join(differing)}: train both runs with the "
            "same value."
        )
    if 0 < facts.window_slots < recycling.num_image_error_slots:
        raise ValueError(
            f"bank.image_errors_from: {source} stores {facts.window_slots} slots of each error, fewer than "
            f"recycling.num_image_error_slots = {recycling.num_image_error_slots}: lower that, or train the other run with "
            "recycling.stored_slots = 'all'."
        )
    cells = range(recycling.num_grids)
    if recycling.image_error_grids is ImageErrorGrids.RANGE:
        cells = range(*recycling.image_error_range)
    for name in map(shape_name, latent_shapes):
        if name not in fills:
            raise ValueError(
                f"bank.image_errors_from: {source} holds no errors of latents {name}, only of {', '.join(sorted(fills))}: "
                "train both runs with the same data.width, data.height, data.num_frames and data.more_sizes."
            )
        if not any(fills[name][cell] for cell in cells):
            raise ValueError(
                f"bank.image_errors_from: {source} holds no errors of latents {name} in cells {cells.start} to "
                f"{cells.stop - 1}: use recycling.image_error_grids = 'all', or another range."
            )
