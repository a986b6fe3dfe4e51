"""The entries of the error bank, and their storage in RAM (on disk: `bank_file`)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

DEFAULT_CAPACITY = 500  # entries for each grid value, as in the released training


@dataclass(frozen=True)
class Entry:
    """One stored residual, without its values.

    Attributes:
        place: where its values are stored.
        sigma: noise level it was measured at.
        square_norm: sum of its squared values, as stored.
        checksum: CRC-32 of its bytes; 0 in RAM.
    """

    place: int
    sigma: float
    square_norm: float
    checksum: int = 0


def index_of(cells: Sequence[Sequence[Entry]]) -> dict[str, torch.Tensor]:
    """Return the grid cell, noise level and size of all entries of `cells`, in order, as the tensors of a snapshot."""
    entries = [(grid, entry) for grid, cell in enumerate(cells) for entry in cell]
    return {
        "grids": torch.tensor([grid for grid, _ in entries], dtype=torch.int64),
        "sigmas": torch.tensor([entry.sigma for _, entry in entries], dtype=torch.float64),
        "square_norms": torch.tensor([entry.square_norm for _, entry in entries], dtype=torch.float64),
    }


class BankStorage(Protocol):
    """Stores the values of entries; the bank decides which entries there are, and edits `cells`.

    Attributes:
        cells: the entries of each grid cell, in order.
    """

    cells: list[list[Entry]]

    def write(self, values: torch.Tensor, sigma: float, square_norm: float) -> Entry:
        """Store `values` [F, C, h, w] and return their entry."""
        ...

    def read(self, entry: Entry) -> torch.Tensor:
        """Return the values [F, C, h, w] of `entry`, read-only; slots that are not used are not loaded."""
        ...

    def release(self, entry: Entry) -> None:
        """Give up the values of `entry`, which was removed from `cells`."""

    def snapshot(self) -> dict[str, torch.Tensor]:
        """Return tensors from which :meth:`restore` brings back contents and order."""
        ...

    def restore(self, snapshot: Mapping[str, torch.Tensor]) -> None:
        """Go back to `snapshot`."""

    def clear(self) -> None:
        """Forget all entries."""

    def close(self) -> None:
        """Release files and locks."""


class MemoryStorage:
    """Entries in RAM. A snapshot holds all of them."""

    def __init__(self, num_grids: int, entry_shape: Sequence[int], dtype: torch.dtype):
        """Create an empty storage for residuals of `entry_shape` [C, F, h, w]."""
        self._stored_shape, self._dtype = (entry_shape[1], entry_shape[0], *entry_shape[2:]), dtype
        self.cells: list[list[Entry]] = [[] for _ in range(num_grids)]
        self._values: dict[int, torch.Tensor] = {}
        self._next_place = 0

    def write(self, values: torch.Tensor, sigma: float, square_norm: float) -> Entry:
        """Store a copy of `values`."""
        return self._keep(values.clone(), sigma, square_norm)

    def read(self, entry: Entry) -> torch.Tensor:
        """Return the stored values themselves."""
        return self._values[entry.place]

    def release(self, entry: Entry) -> None:
        """Forget the values of `entry`."""
        del self._values[entry.place]

    def snapshot(self) -> dict[str, torch.Tensor]:
        """Return all entries, in order, with their values."""
        entries = [entry for cell in self.cells for entry in cell]
        return index_of(self.cells) | {f"residual.{index}": self._values[entry.place] for index, entry in enumerate(entries)}

    def restore(self, snapshot: Mapping[str, torch.Tensor]) -> None:
        """Go back to `snapshot`.

        Raises:
            ValueError: see :meth:`adopt`.
        """
        self.adopt({name: values.clone() for name, values in snapshot.items()})

    def adopt(self, snapshot: Mapping[str, torch.Tensor]) -> None:
        """Go back to `snapshot`, keeping its tensors themselves, which may be mapped from a file.

        Raises:
            ValueError: the snapshot is of a bank on disk, or of another shape, grid or dtype.
        """
        if "places" in snapshot or "grids" not in snapshot:
            raise ValueError("this snapshot belongs to an error bank on disk: open the bank with the folder it was made in.")
        kinds = {(tuple(values.shape), values.dtype) for name, values in snapshot.items() if name.startswith("residual.")}
        if kinds - {(self._stored_shape, self._dtype)} or any(grid >= len(self.cells) for grid in snapshot["grids"].tolist()):
            raise ValueError(
                f"this snapshot holds {kinds}, the bank {self._stored_shape} {self._dtype} in {len(self.cells)} grid cells: "
                "resume with the settings of the checkpoint."
            )
        self.clear()
        facts = (snapshot[name].tolist() for name in ("grids", "sigmas", "square_norms"))
        for index, (grid, sigma, square_norm) in enumerate(zip(*facts, strict=True)):
            self.cells[grid].append(self._keep(snapshot[f"residual.{index}"], sigma, square_norm))

    def clear(self) -> None:
        """Forget all entries."""
        self._values.clear()
        for cell in self.cells:
            cell.clear()

    def close(self) -> None:
        """Forget all entries."""
        self.clear()

    def _keep(self, values: torch.Tensor, sigma: float, square_norm: float) -> Entry:
        entry = Entry(self._next_place, sigma, square_norm)
        self._values[entry.place] = values
        self._next_place += 1
        return entry
