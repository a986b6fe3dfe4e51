"""The error banks of one process: one for each size of latents, since all entries of a bank have one shape."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from torch import Tensor

from svi_core.recycling.error_bank import ErrorBank, GridStatistics, bank_bytes
from svi_core.recycling.error_recycling import ErrorRecyclingConfig, entry_shape, make_bank
from training.settings.sections import BankConfig, BankStorageKind


class Banks:
    """Banks by latent shape, each created when its shape is first used."""

    def __init__(
        self, recycling: ErrorRecyclingConfig, config: BankConfig, folder: Path, *, num_snapshots: int, expected_entries: int
    ):
        """Configure the banks; none is created yet.

        Args:
            recycling: what they store.
            config: where they store it.
            folder: for this process's files, if `config.storage` is "file".
            num_snapshots: how many of the latest snapshots can be restored.
            expected_entries: the most errors that the whole training run adds to one bank.
        """
        self._recycling, self._config, self._folder = recycling, config, folder
        self._num_snapshots, self._expected_entries = num_snapshots, expected_entries
        self._banks: dict[tuple[int, ...], ErrorBank] = {}

    def of(self, latent_shape: Sequence[int]) -> ErrorBank:
        """Return the bank for latents of `latent_shape` [C, F, h, w].

        Raises:
            ValueError: its folder belongs to another bank, or its disk is too small.
        """
        shape = tuple(latent_shape)
        if shape not in self._banks:
            on_disk = self._config.storage is BankStorageKind.FILE
            self._banks[shape] = make_bank(
                shape,
                self._recycling,
                self._folder / shape_name(shape) if on_disk else None,
                num_snapshots=self._num_snapshots,
                expected_entries=self._expected_entries,
            )
        return self._banks[shape]

    def memory_bytes(self, latent_shape: Sequence[int]) -> int:
        """Return the size of the bank for `latent_shape` at the end of the training run, in RAM or on disk."""
        kept = entry_shape(latent_shape, self._recycling)
        full = bank_bytes(kept, self._recycling.capacity, self._recycling.num_grids)
        return min(full, bank_bytes(kept, 1, 1) * self._expected_entries)

    def statistics(self) -> dict[tuple[int, ...], list[GridStatistics]]:
        """Return fill and error sizes of each grid cell of each bank, by latent shape."""
        return {shape: bank.statistics() for shape, bank in self._banks.items()}

    def __len__(self) -> int:
        return sum(len(bank) for bank in self._banks.values())

    def snapshots(self) -> dict[str, Tensor]:
        """Return the snapshots of all banks as tensors, with the latent shape as a prefix of the key: ``16x21x60x104/``."""
        return {
            f"{shape_name(shape)}/{key}": tensor
            for shape, bank in self._banks.items()
            for key, tensor in bank.snapshot().items()
        }

    def snapshot_bytes(self) -> int:
        """Return the size of :meth:`snapshots`: all entries of banks in RAM; the index of banks on disk counts as 0."""
        if self._config.storage is BankStorageKind.FILE:
            return 0
        return sum(bank_bytes(bank.entry_shape, 1, 1, bank.dtype) * len(bank) for bank in self._banks.values())

    def restore(self, snapshots: Mapping[str, Tensor]) -> None:
        """Restore what :meth:`snapshots` returned; banks that are not in it become empty.

        Raises:
            ValueError: a snapshot of another bank.
        """
        self.clear()
        for shape, snapshot in by_shape(snapshots).items():
            self.of([int(side) for side in shape.split("x")]).restore(snapshot)

    def clear(self) -> None:
        """Empty the banks."""
        for bank in self._banks.values():
            bank.clear()

    def close(self) -> None:
        """Release files and locks."""
        for bank in self._banks.values():
            bank.close()
        self._banks.clear()


def shape_name(latent_shape: Sequence[int]) -> str:
    """Return `latent_shape` [C, F, h, w] as it names a bank: 16x21x60x104."""
    return "x".join(map(str, latent_shape))


def by_shape(snapshots: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return the snapshot of each bank, by the name of its shape, of what :meth:`Banks.snapshots` returned."""
    parted: dict[str, dict[str, Tensor]] = {}
    for key, tensor in snapshots.items():
        shape, _, name = key.partition("/")
        parted.setdefault(shape, {})[name] = tensor
    return parted


def error_to_signal(statistics: Iterable[GridStatistics], signal_rms: float) -> list[float | None]:
    """Return, for each grid cell, the RMS of its latent errors over that of the latents; None for an empty cell.

    Near 0 the model makes no errors there that recycling could teach it to correct.
    """
    assert math.isfinite(signal_rms) and signal_rms > 0, signal_rms
    return [cell.latent_error_rms / signal_rms if cell.fill else None for cell in statistics]
