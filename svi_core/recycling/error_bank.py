"""The replay memory of Error-Recycling Fine-Tuning: errors of the model, stored by noise level and sampled later.

An entry is a velocity residual r = predicted - target velocity, with the noise level it was measured at. It gives both errors
that the paper keeps in two banks: ``noise_error = (1 - sigma) * r`` and ``latent_error = -sigma * r``. So one pool serves both,
at half the memory.
Source: SVI (arXiv:2510.09212), Sec. 4.3, Eq. 4 and 5; docs/METHOD.md, 9.1 (both errors from one r), 9.5 and 9.7.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import torch

from ..flow.timestep_grid import DEFAULT_NUM_GRIDS, TimestepGrid
from .bank_storage import DEFAULT_CAPACITY, BankStorage, Entry, MemoryStorage


class Replacement(StrEnum):
    """Which entry of a full grid cell a new one replaces."""

    MOST_SIMILAR = "most_similar"  # the one nearest to it (paper)
    RANDOM = "random"
    FIFO = "fifo"  # the oldest


class Window(StrEnum):
    """Which slots of a stored error an image error takes."""

    RANDOM = "random"
    LAST = "last"


@dataclass(frozen=True)
class GridStatistics:
    """Statistics of one grid cell.

    Attributes:
        sigma: the grid value.
        fill: number of entries.
        latent_error_rms: root mean square over all values of its latent errors, 0 if it is empty. Divided by the RMS of the
            latents, about 1, it is the error-to-signal ratio.
    """

    sigma: float
    fill: int
    latent_error_rms: float


def bank_bytes(
    entry_shape: Sequence[int],
    capacity: int = DEFAULT_CAPACITY,
    num_grids: int = DEFAULT_NUM_GRIDS,
    dtype: torch.dtype = torch.bfloat16,
) -> int:
    """Return the bytes that a full bank takes, in RAM or on disk: 97.6 GiB for 81 frames at 832 x 480 as trained."""
    return math.prod(entry_shape) * dtype.itemsize * capacity * num_grids


class ErrorBank:
    """Residuals by noise level, at most `capacity` for each grid value. The one mutable object of the method.

    All entries have one shape: each training size, and each expert of Wan 2.2, needs its own bank.
    """

    def __init__(
        self,
        entry_shape: Sequence[int],
        *,
        grid: TimestepGrid | None = None,
        capacity: int = DEFAULT_CAPACITY,
        replacement: Replacement = Replacement.MOST_SIMILAR,
        dtype: torch.dtype = torch.bfloat16,
        storage: BankStorage | None = None,
    ):
        """Make a bank with the entries of `storage`.

        Args:
            entry_shape: [C, F, h, w] of one residual, without the batch.
            grid: noise levels that errors are stored by; None for 50 steps at shift 5.
            capacity: entries for each grid value, >= 1.
            replacement: which entry of a full cell a new one replaces.
            dtype: in which values are stored: bfloat16, float16 or float32.
            storage: None for an empty one in RAM; for disk a `bank_file.FileStorage` of the same shape, grid and dtype.

        Raises:
            ValueError: an invalid shape, capacity, dtype or storage.
        """
        self.entry_shape = tuple(entry_shape)
        self.grid = grid or TimestepGrid()
        self.capacity = capacity
        self.replacement = Replacement(replacement)
        self.dtype = dtype
        if len(self.entry_shape) != 4 or min(self.entry_shape) < 1:
            raise ValueError(f"entry_shape is {list(entry_shape)}: use the [C, F, h, w] of one latent, without the batch.")
        if capacity < 1:
            raise ValueError(f"capacity is {capacity}: use at least 1 entry for each grid value, 500 as trained.")
        if dtype not in (torch.bfloat16, torch.float16, torch.float32):
            raise ValueError(f"dtype is {dtype}: residuals are stored as bfloat16, float16 or float32.")
        self._storage = MemoryStorage(self.grid.num_grids, self.entry_shape, dtype) if storage is None else storage
        if len(self._storage.cells) != self.grid.num_grids:
            raise ValueError(
                f"the storage has {len(self._storage.cells)} grid cells, the grid {self.grid.num_grids}: use one grid."
            )

    def __len__(self) -> int:
        return sum(len(cell) for cell in self._storage.cells)

    def add(self, residual: torch.Tensor, sigma: float, generator: torch.Generator) -> None:
        """Store `residual` [C, F, h, w], measured at noise level `sigma`; always consumes one random number.

        In a full cell it replaces the entry that `replacement` names. "Most similar" means the least L2 distance between
        latent errors, -sigma * r. This is exactly the released trainer's rule for its bank of latent and image errors. Its
        bank of noise errors chooses separately; our one pool makes one choice.

        Raises:
            ValueError: another shape than the bank's, values that are not finite, or `sigma` outside [0, 1].
        """
        if tuple(residual.shape) != self.entry_shape:
            raise ValueError(
                f"the residual has shape {list(residual.shape)}, but this bank keeps {list(self.entry_shape)}: "
                "add one example at a time, and use a bank for each size."
            )
        grid = self.grid.index(sigma)
        pick = _uniform(generator)
        values = residual.detach().to("cpu", self.dtype).transpose(0, 1).contiguous()
        square_norm = _square_norm(values)
        if not math.isfinite(square_norm):
            raise ValueError(
                f"the residual at sigma {sigma:.4f} holds NaN or infinite values in {self.dtype}: stop the training."
            )
        self._put(self._storage.write(values, sigma, square_norm), values, grid, pick)

    def _put(self, entry: Entry, values: torch.Tensor, grid: int, pick: float) -> None:
        """Add `entry` to its grid cell, removing another one from a full cell."""
        cell = self._storage.cells[grid]
        if len(cell) < self.capacity:
            cell.append(entry)
        elif self.replacement is Replacement.FIFO:
            cell.append(entry)
            self._storage.release(cell.pop(0))
        else:
            similar = self.replacement is Replacement.MOST_SIMILAR
            position = _most_similar(self._storage, cell, entry, values) if similar else int(pick * len(cell))
            replaced, cell[position] = cell[position], entry
            self._storage.release(replaced)

    def sample_noise_error(self, sigma: float, generator: torch.Generator) -> torch.Tensor | None:
        """Return a noise error [C, F, h, w] of the cell of `sigma`, fp32, each entry equally likely; None from an empty cell.

        Consumes one random number.
        """
        entry = self._pick([self.grid.index(sigma)], generator)
        return None if entry is None else (1 - entry.sigma) * self._slots(entry, 0, self.entry_shape[1])

    def sample_latent_error(self, sigma: float, generator: torch.Generator) -> torch.Tensor | None:
        """Return a latent error [C, F, h, w], as :meth:`sample_noise_error` does."""
        entry = self._pick([self.grid.index(sigma)], generator)
        return None if entry is None else -entry.sigma * self._slots(entry, 0, self.entry_shape[1])

    def sample_image_error(
        self,
        num_slots: int,
        generator: torch.Generator,
        grids: Iterable[int] | None = None,
        window: Window = Window.RANDOM,
    ) -> torch.Tensor | None:
        """Return `num_slots` neighbouring slots of a latent error, [C, num_slots, h, w] fp32; None if there is none.

        Args:
            num_slots: slots of the window.
            generator: gives two random numbers.
            grids: cells to draw from, each *entry* in them equally likely; None for all.
            window: where in the entry the slots lie.

        Only those slots are read from disk.
        Source: SVI (arXiv:2510.09212), Eq. 4 and 5; docs/METHOD.md, 9.5.

        Raises:
            ValueError: more slots than an entry has, or a cell that the grid does not have.
        """
        if not 1 <= num_slots <= self.entry_shape[1]:
            raise ValueError(
                f"num_slots is {num_slots}, but an entry of this bank has {self.entry_shape[1]} slots: use 1 or more."
            )
        cells = range(self.grid.num_grids) if grids is None else list(grids)
        if any(not 0 <= cell < self.grid.num_grids for cell in cells):
            raise ValueError(f"grids are {list(cells)}, but the bank has the cells 0 .. {self.grid.num_grids - 1}.")
        entry = self._pick(cells, generator)
        last_start = self.entry_shape[1] - num_slots
        place = _uniform(generator)
        start = last_start if Window(window) is Window.LAST else int(place * (last_start + 1))
        return None if entry is None else -entry.sigma * self._slots(entry, start, num_slots)

    def contents(self, grid: int) -> Iterator[tuple[float, torch.Tensor]]:
        """Yield (sigma, residual [C, F, h, w] as stored) of each entry of a grid cell, in their order."""
        for entry in self._storage.cells[grid]:
            yield entry.sigma, self._storage.read(entry).transpose(0, 1)

    def statistics(self) -> list[GridStatistics]:
        """Return fill and error sizes of each grid cell, without reading values."""
        return [self._statistics(grid, cell) for grid, cell in enumerate(self._storage.cells)]

    def snapshot(self) -> dict[str, torch.Tensor]:
        """Return contents and order as tensors for a safetensors file; values on disk stay in the bank's own file."""
        return self._storage.snapshot()

    def restore(self, snapshot: Mapping[str, torch.Tensor]) -> None:
        """Go back to what :meth:`snapshot` returned, bit for bit.

        Raises:
            ValueError: a snapshot of another bank, or one with entries overwritten since.
        """
        self._storage.restore(snapshot)

    def clear(self) -> None:
        """Forget all entries."""
        self._storage.clear()

    def close(self) -> None:
        """Release files and locks. The bank cannot be used afterwards."""
        self._storage.close()

    def _pick(self, cells: Iterable[int], generator: torch.Generator) -> Entry | None:
        """Return an entry of `cells`, each equally likely; consumes one random number even if there is none."""
        pick = _uniform(generator)
        chosen = [self._storage.cells[cell] for cell in cells]
        index = int(pick * sum(len(cell) for cell in chosen))
        for cell in chosen:
            if index < len(cell):
                return cell[index]
            index -= len(cell)
        return None

    def _slots(self, entry: Entry, start: int, num_slots: int) -> torch.Tensor:
        return self._storage.read(entry)[start : start + num_slots].transpose(0, 1).float()

    def _statistics(self, grid: int, cell: list[Entry]) -> GridStatistics:
        num_values = max(1, len(cell)) * math.prod(self.entry_shape)
        mean_square = sum(entry.sigma**2 * entry.square_norm for entry in cell) / num_values
        return GridStatistics(self.grid.sigmas[grid], len(cell), math.sqrt(mean_square))


def _uniform(generator: torch.Generator) -> float:
    """Return one random number in [0, 1)."""
    return float(torch.rand((), generator=generator, dtype=torch.float64))


def _most_similar(storage: BankStorage, cell: Sequence[Entry], added: Entry, values: torch.Tensor) -> int:
    """Return the position in `cell` whose latent error is nearest to that of `added`; the first of equally near ones.

    Norms are known, so each entry costs one dot product. Its rounding could swap near ties, so whatever comes within a safe
    margin of the nearest is measured again in fp64.
    """
    new = values.float().reshape(-1)
    distances, margins = list[float](), list[float]()
    for entry in cell:
        dot = float(torch.dot(storage.read(entry).reshape(-1).float(), new))
        sizes = entry.sigma**2 * entry.square_norm + added.sigma**2 * added.square_norm
        distances.append(sizes - 2 * entry.sigma * added.sigma * dot)
        margins.append(1e-4 * sizes)
    reach = min(distance + margin for distance, margin in zip(distances, margins, strict=True))
    near = [index for index, distance in enumerate(distances) if distance - margins[index] <= reach]
    if len(near) == 1:
        return near[0]
    scaled = added.sigma * values.double()
    return min(near, key=lambda i: float((cell[i].sigma * storage.read(cell[i]).double() - scaled).square().sum()))


def _square_norm(values: torch.Tensor) -> float:
    flat = values.reshape(-1).double()
    return float(torch.dot(flat, flat))
