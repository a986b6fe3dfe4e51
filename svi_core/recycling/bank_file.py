"""The error bank on disk: a memory-mapped file of entries, whose index is in RAM and in the snapshots.

    <folder>/bank.json     what the bank is (shape, grid, capacity, dtype); written once
    <folder>/entries.bin   the entries, each at a multiple of 64 KiB so that it can be mapped alone; grows as the bank fills

An entry that a retained snapshot needs is never overwritten: new entries go to free places. So a snapshot is only the index of
the bank (place and checksum of each entry), and restoring it brings the bank back bit for bit, whenever a process was killed.
What was added after the last snapshot is lost then, as is everything else of a training run after its last checkpoint.
"""

import errno
import heapq
import io
import json
import math
import mmap
import os
import shutil
import zlib
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch

from ..files.atomic_file import named_disk_errors
from ..files.checked_file import set_aside
from ..files.folder_lock import lock_folder
from ..files.sealed_json import read_sealed, write_sealed
from ..flow.timestep_grid import TimestepGrid
from .bank_storage import DEFAULT_CAPACITY, Entry, index_of
from .old_journal import read_old_journal

ENTRY_ALIGNMENT = 65_536  # offsets at which every system can map a file
RESERVED_DISK_BYTES = 1 << 30  # left free on the disk, so that a checkpoint can still be written
DEFAULT_NUM_SNAPSHOTS = 4
_FORMAT = 1


class FileStorage:
    """Entries in a folder, which stays locked until the storage is closed."""

    def __init__(
        self,
        folder: Path,
        entry_shape: Sequence[int],
        *,
        grid: TimestepGrid | None = None,
        capacity: int = DEFAULT_CAPACITY,
        dtype: torch.dtype = torch.bfloat16,
        num_snapshots: int = DEFAULT_NUM_SNAPSHOTS,
        expected_entries: int | None = None,
    ):
        """Open the bank in `folder`, empty until a snapshot is restored.

        Args:
            folder: created if it does not exist.
            entry_shape: [C, F, h, w] of one residual.
            grid: as of the bank.
            capacity: as of the bank.
            dtype: as of the bank.
            num_snapshots: how many of the latest snapshots can be restored; one more than the checkpoints that are kept.
            expected_entries: the most entries that training will add, for the check of the disk; None for a full bank.

        Raises:
            ValueError: the folder holds a bank with other settings or is in use, or the disk is too small.
        """
        if num_snapshots < 1:
            raise ValueError(f"num_snapshots is {num_snapshots}: use at least 1, one more than the checkpoints that are kept.")
        grid = grid or TimestepGrid()
        self.folder = folder
        self._num_snapshots, self._dtype = num_snapshots, dtype
        self._stored_shape = (entry_shape[1], entry_shape[0], *entry_shape[2:])  # a window of slots is then one piece
        self._entry_bytes = math.prod(entry_shape) * dtype.itemsize
        self._stride = -(-self._entry_bytes // ENTRY_ALIGNMENT) * ENTRY_ALIGNMENT
        self._settings = _settings(entry_shape, grid, capacity, dtype)
        self._sound: dict[int, int] = {}  # checksums of the places that this process wrote or compared
        self.cells: list[list[Entry]] = [[] for _ in range(grid.num_grids)]
        self.clear()
        folder.mkdir(parents=True, exist_ok=True)
        in_use = f"the error bank in {folder} is in use by another process: stop it, or use another folder."
        self._lock = lock_folder(folder, in_use)
        try:
            _require_settings(folder, self._settings)
            most = capacity * grid.num_grids
            self._require_disk_space(most if expected_entries is None else min(most, expected_entries))
            (folder / "entries.bin").touch()
            self._entries = (folder / "entries.bin").open("r+b", buffering=0)
        except BaseException:
            self._lock.release()
            raise

    def write(self, values: torch.Tensor, sigma: float, square_norm: float) -> Entry:
        """Write `values` [F, C, h, w] to the first free place.

        Raises:
            OSError: the disk is full.
        """
        place = self._free[0] if self._free else self._end
        if not self._free:
            self._require_room_to_grow()
        self._sound.pop(place, None)
        data = _bytes_of(values)
        with named_disk_errors(self.folder / "entries.bin"):
            _write_at(self._entries, place * self._stride, data)
        self._sound[place] = zlib.crc32(data)
        if self._free:
            heapq.heappop(self._free)
        else:
            self._end += 1
        return Entry(place, sigma, square_norm, self._sound[place])

    def read(self, entry: Entry) -> torch.Tensor:
        """Map the values [F, C, h, w] of `entry`; the system loads only the slots that are used."""
        mapped = mmap.mmap(
            self._entries.fileno(), self._entry_bytes, access=mmap.ACCESS_COPY, offset=entry.place * self._stride
        )
        return torch.frombuffer(mapped, dtype=self._dtype).reshape(self._stored_shape)

    def release(self, entry: Entry) -> None:
        """Free the place of `entry`, unless a retained snapshot needs it."""
        if not any(entry.place in places for places in self._kept):
            heapq.heappush(self._free, entry.place)

    def snapshot(self) -> dict[str, torch.Tensor]:
        """Make all entries durable and return their index. Places that only forgotten snapshots needed become free."""
        os.fsync(self._entries.fileno())
        entries = [entry for cell in self.cells for entry in cell]
        self._go_to(self.cells, [*self._kept, frozenset(entry.place for entry in entries)])
        return {
            **index_of(self.cells),
            "places": torch.tensor([entry.place for entry in entries], dtype=torch.int64),
            "checksums": torch.tensor([entry.checksum for entry in entries], dtype=torch.int64),
            **{f"kept.{index:04d}": torch.tensor(sorted(places), dtype=torch.int64) for index, places in enumerate(self._kept)},
        }

    def restore(self, snapshot: Mapping[str, torch.Tensor]) -> None:
        """Go back to `snapshot`; a refused one changes nothing.

        Raises:
            ValueError: it is not of a bank on disk, or entries that it needs were overwritten or damaged since.
        """
        cells, kept = self._read_snapshot(snapshot)
        damaged = [entry for cell in cells for entry in cell if not self._is_sound(entry)]
        if damaged:
            raise ValueError(
                f"{len(damaged)} of {sum(map(len, cells))} entries of this snapshot were overwritten or damaged in "
                f"{self.folder}, or it is the snapshot of another folder: resume from a later checkpoint (the last "
                f"{self._num_snapshots} can be restored)."
            )
        self._go_to(cells, kept)

    def clear(self) -> None:
        """Forget all entries. Snapshots can be restored until their entries are overwritten."""
        self._go_to([[] for _ in self.cells], [])

    def close(self) -> None:
        """Close the file and release the folder's lock."""
        self._entries.close()
        self._lock.release()

    def _read_snapshot(self, snapshot: Mapping[str, torch.Tensor]) -> tuple[list[list[Entry]], list[frozenset[int]]]:
        """Return (entries of each grid cell, places that each retained snapshot needs)."""
        if "journal" in snapshot:
            position = tuple(snapshot["journal"].tolist())
            path, first_chain = self.folder / "journal.bin", zlib.crc32(self._settings)
            return read_old_journal(path, len(self.cells), self._num_snapshots, first_chain, position)
        if "places" not in snapshot:
            raise ValueError("this snapshot belongs to an error bank in RAM: restore it in a bank without a folder.")
        cells = [[] for _ in self.cells]
        facts = (snapshot[name].tolist() for name in ("grids", "places", "sigmas", "square_norms", "checksums"))
        for grid, *entry in zip(*facts, strict=True):
            cells[grid].append(Entry(*entry))
        kept = [frozenset(snapshot[key].tolist()) for key in sorted(snapshot) if key.startswith("kept.")]
        return cells, kept

    def _go_to(self, cells: list[list[Entry]], kept: Iterable[frozenset[int]]) -> None:
        """Take `cells` and the places of retained snapshots, and work out which places are free."""
        self.cells, self._kept = cells, deque(kept, maxlen=self._num_snapshots)
        needed = {entry.place for cell in cells for entry in cell}.union(*self._kept)
        self._end = max(needed, default=-1) + 1
        self._free = sorted(set(range(self._end)) - needed)  # a sorted list is a heap

    def _is_sound(self, entry: Entry) -> bool:
        """Whether the bytes at the entry's place have its checksum."""
        if self._sound.get(entry.place) == entry.checksum:
            return True
        if (entry.place * self._stride + self._entry_bytes) > os.fstat(self._entries.fileno()).st_size:
            return False
        sound = zlib.crc32(_bytes_of(self.read(entry))) == entry.checksum
        if sound:
            self._sound[entry.place] = entry.checksum
        return sound

    def _require_disk_space(self, num_entries: int) -> None:
        path = self.folder / "entries.bin"
        needed = num_entries * self._stride - (path.stat().st_size if path.exists() else 0)
        free = shutil.disk_usage(self.folder).free - RESERVED_DISK_BYTES
        if needed > free:
            raise ValueError(
                f"the error bank may grow by {needed / 2**30:.1f} GiB in {self.folder}, but only "
                f"{max(0, free) / 2**30:.1f} GiB are free besides 1 GiB for checkpoints: "
                "use a smaller capacity, another folder, or free space."
            )

    def _require_room_to_grow(self) -> None:
        if shutil.disk_usage(self.folder).free < self._stride + RESERVED_DISK_BYTES:
            raise OSError(
                errno.ENOSPC,
                "no room for another error, besides 1 GiB for checkpoints: free space",
                str(self.folder / "entries.bin"),
            )


def _write_at(file: io.FileIO, offset: int, data: memoryview) -> None:
    """Write all of `data` at byte `offset`; an unbuffered file, which shows a full disk at once, may write less than asked."""
    file.seek(offset)
    while data:
        data = data[file.write(data) :]


def _settings(entry_shape: Sequence[int], grid: TimestepGrid, capacity: int, dtype: torch.dtype) -> bytes:
    facts = {
        "format": _FORMAT,
        "entry_shape": list(entry_shape),
        "num_grids": grid.num_grids,
        "shift": float(grid.shift),
        "capacity": capacity,
        "dtype": str(dtype).removeprefix("torch."),
    }
    return json.dumps(facts, indent=1).encode()


def _require_settings(folder: Path, settings: bytes) -> None:
    """Check that `folder` holds a bank with these settings, or begin one.

    Damaged settings are set aside and written anew if there are no entries yet. Else they are refused: the checksum of an entry
    does not tell another dtype of its size, another shift, or another capacity.
    """
    path, wanted = folder / "bank.json", json.loads(settings)
    try:
        found = read_sealed(path) if path.exists() else None
    except ValueError as error:
        entries = folder / "entries.bin"
        if entries.exists() and entries.stat().st_size:
            raise ValueError(
                f"{path} is damaged ({error}), and so it is unknown what its entries mean: bring it back from a copy. "
                "If training has the settings with which it began, you can also delete this file: it is then written anew."
            ) from error
        set_aside(path, error)
        found = None
    if found is None:
        write_sealed(path, wanted)
        return
    differences = [
        f"{name} {found.get(name)!r} instead of {wanted[name]!r}" for name in wanted if found.get(name) != wanted[name]
    ]
    if differences:
        raise ValueError(
            f"{folder} holds an error bank with {', '.join(differences)}: use the same settings or another folder."
        )


def _bytes_of(values: torch.Tensor) -> memoryview:
    return values.reshape(-1).view(torch.uint8).numpy().data
