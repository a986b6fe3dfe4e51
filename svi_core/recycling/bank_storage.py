"""What the error bank's entries are, the changes it makes to them, and their storage in RAM (on disk: bank_file)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import torch

DEFAULT_CAPACITY = 500  # entries for each grid value, as trained


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


def removed_entry(cells: list[list[Entry]], change: Change) -> Entry | None:
    """Return the entry that `change` will remove from `cells`, or None."""
    if change.kind in (ChangeKind.REPLACE, ChangeKind.DROP):
        return cells[change.grid][change.position]
    return cells[change.grid][0] if change.kind is ChangeKind.SHIFT else None


class BankStorage(Protocol):
    """Keeps the values of entries and the order of changes; the bank decides what changes."""

    @property
    def cells(self) -> list[list[Entry]]:
        """The entries of each grid cell, in their order."""
        ...

    def write(self, values: torch.Tensor, sigma: float, square_norm: float) -> Entry:
        """Store `values` [F, C, h, w] and return the entry, which counts only once a change names it."""
        ...

    def read(self, entry: Entry) -> torch.Tensor:
        """Return the values [F, C, h, w] of `entry`, to be read only; slots that are not looked at are not loaded."""
        ...

    def commit(self, change: Change) -> None:
        """Make `change` to `cells`."""

    def snapshot(self) -> dict[str, torch.Tensor]:
        """Return tensors from which :meth:`restore` brings back contents and order."""
        ...

    def restore(self, snapshot: Mapping[str, torch.Tensor]) -> None:
        """Go back to `snapshot`."""

    def clear(self) -> None:
        """Go back to the empty bank."""

    def close(self) -> None:
        """Give back what the storage holds."""


class MemoryStorage:
    """Entries in RAM. Its snapshot holds all of them."""

    def __init__(self, num_grids: int, entry_shape: Sequence[int], dtype: torch.dtype):
        """Make an empty storage for residuals of `entry_shape` [C, F, h, w]."""
        self._stored_shape, self._dtype = (entry_shape[1], entry_shape[0], *entry_shape[2:]), dtype
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
        removed = removed_entry(self.cells, change)
        apply_change(self.cells, change)
        if removed is not None:
            del self._values[removed.place]

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
            ValueError: it is not the snapshot of a bank in RAM, or of one of another shape, grid or dtype.
        """
        if "grids" not in snapshot:
            raise ValueError(
                "this snapshot belongs to an error bank on disk: open the bank with the folder that it was made in."
            )
        kinds = {(tuple(values.shape), values.dtype) for name, values in snapshot.items() if name.startswith("residual.")}
        if kinds - {(self._stored_shape, self._dtype)} or any(grid >= len(self.cells) for grid in snapshot["grids"].tolist()):
            raise ValueError(
                f"this snapshot holds {kinds}, the bank {self._stored_shape} {self._dtype} in {len(self.cells)} grid cells: "
                "resume with the settings that the checkpoint was made with."
            )
        self.clear()
        facts = (snapshot[name].tolist() for name in ("grids", "sigmas", "square_norms"))
        for index, (grid, sigma, square_norm) in enumerate(zip(*facts, strict=True)):
            entry = self.write(snapshot[f"residual.{index}"], sigma, square_norm)
            apply_change(self.cells, Change(ChangeKind.APPEND, grid, 0, entry))

    def clear(self) -> None:
        """Forget all entries."""
        self._values.clear()
        for cell in self.cells:
            cell.clear()

    def close(self) -> None:
        """Forget all entries."""
        self.clear()
