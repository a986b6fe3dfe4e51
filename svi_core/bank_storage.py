"""What the error bank's entries are, the changes it makes to them, and their storage in RAM (on disk: bank_file)."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import torch


class ChangeKind(IntEnum):
    """What a change does to the entries of its grid cell."""

    APPEND = 1  # put the entry at the end
    REPLACE = 2  # put it where the entry at `position` was
    SHIFT = 3  # remove the first entry, put the new one at the end
    DROP = 4  # remove the entry at `position`, which turned out to be damaged
    SNAPSHOT = 5  # nothing; a snapshot was taken here


@dataclass(frozen=True)
class Entry:
    """What is known of one stored residual.

    Attributes:
        place: where its values lie.
        sigma: noise level it was measured at.
        square_norm: sum of its squared values, as stored.
        checksum: CRC-32 of its bytes; 0 in RAM.
    """

    place: int
    sigma: float
    square_norm: float
    checksum: int = 0


@dataclass(frozen=True)
class Change:
    """One change of the bank, as the journal keeps it. `entry` is None for DROP and SNAPSHOT."""

    kind: ChangeKind
    grid: int = 0
    position: int = 0
    entry: Entry | None = None


def apply_change(cells: list[list[Entry]], change: Change) -> None:
    """Make `change` to `cells`, the entries of each grid cell in their order."""
    cell = cells[change.grid]
    if change.kind is ChangeKind.APPEND:
        cell.append(change.entry)
    elif change.kind is ChangeKind.REPLACE:
        cell[change.position] = change.entry
    elif change.kind is ChangeKind.SHIFT:
        cell.append(change.entry)
        del cell[0]
    elif change.kind is ChangeKind.DROP:
        del cell[change.position]


class BankStorage(Protocol):
    """Keeps the values of entries and the order of changes; the bank decides what changes."""

    cells: list[list[Entry]]

    def write(self, values: torch.Tensor, sigma: float, square_norm: float) -> Entry:
        """Store `values` [F, C, h, w] and return the entry, which counts only once a change names it."""

    def read(self, entry: Entry) -> torch.Tensor:
        """Return the values [F, C, h, w] of `entry`, to be read only; slots that are not looked at are not loaded."""

    def commit(self, change: Change) -> None:
        """Make `change` to `cells`."""

    def snapshot(self) -> dict[str, torch.Tensor]:
        """Return tensors from which :meth:`restore` brings back contents and order."""

    def restore(self, snapshot: Mapping[str, torch.Tensor]) -> None:
        """Go back to `snapshot`."""

    def close(self) -> None:
        """Give back what the storage holds."""


class MemoryStorage:
    """Entries in RAM. Its snapshot holds all of them."""

    def __init__(self, num_grids: int):
        self.cells: list[list[Entry]] = [[] for _ in range(num_grids)]
        self._values: dict[int, torch.Tensor] = {}
        self._next_place = 0

    def write(self, values: torch.Tensor, sigma: float, square_norm: float) -> Entry:
        """Store a copy of `values`."""
        entry = Entry(self._next_place, sigma, square_norm)
        self._values[entry.place] = values.clone()
        self._next_place += 1
        return entry

    def read(self, entry: Entry) -> torch.Tensor:
        """Return the stored values themselves."""
        return self._values[entry.place]

    def commit(self, change: Change) -> None:
        """Make `change`, and forget the entry that it removes."""
        cell = self.cells[change.grid]
        removed = {ChangeKind.REPLACE: change.position, ChangeKind.SHIFT: 0, ChangeKind.DROP: change.position}.get(change.kind)
        if removed is not None:
            del self._values[cell[removed].place]
        apply_change(self.cells, change)

    def snapshot(self) -> dict[str, torch.Tensor]:
        """Return all entries, in order, with what is known of them."""
        entries = [(grid, entry) for grid, cell in enumerate(self.cells) for entry in cell]
        return {
            "grids": torch.tensor([grid for grid, _ in entries], dtype=torch.int64),
            "sigmas": torch.tensor([entry.sigma for _, entry in entries], dtype=torch.float64),
            "square_norms": torch.tensor([entry.square_norm for _, entry in entries], dtype=torch.float64),
            **{f"residual.{index}": self._values[entry.place] for index, (_, entry) in enumerate(entries)},
        }

    def restore(self, snapshot: Mapping[str, torch.Tensor]) -> None:
        """Go back to `snapshot`.

        Raises:
            ValueError: it is not the snapshot of a bank in RAM.
        """
        if "grids" not in snapshot:
            raise ValueError(
                "this snapshot belongs to an error bank on disk: open the bank with the folder that it was made in."
            )
        self.__init__(len(self.cells))
        facts = (snapshot[name].tolist() for name in ("grids", "sigmas", "square_norms"))
        for index, (grid, sigma, square_norm) in enumerate(zip(*facts, strict=True)):
            entry = self.write(snapshot[f"residual.{index}"], sigma, square_norm)
            apply_change(self.cells, Change(ChangeKind.APPEND, grid, 0, entry))

    def close(self) -> None:
        """Forget all entries."""
        self.__init__(len(self.cells))
