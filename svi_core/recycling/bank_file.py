"""The error bank on disk: a memory-mapped file of entries, and a journal of changes that survives kill -9.

    <folder>/bank.json     what the bank is (shape, grid, capacity, dtype); written once
    <folder>/entries.bin   the entries, each at a multiple of 64 KiB so that it can be mapped alone; grows as the bank fills
    <folder>/journal.bin   one record of 40 bytes for each change, with a checksum chained to all records before it

An entry is written before the record that names it, and its checksum is in the record, so what was half-written when a process
was killed is never counted. An entry that a retained snapshot needs is never overwritten: a change goes to a free place
instead. A snapshot is therefore nothing but a position in the journal, and going back to it brings the bank back bit for bit.
"""

import errno
import heapq
import json
import logging
import math
import mmap
import os
import shutil
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from ..files.atomic_file import write_bytes
from ..flow.timestep_grid import TimestepGrid
from .bank_journal import BankJournal, JournalPosition, open_unbuffered, write_at
from .bank_storage import DEFAULT_CAPACITY, Change, ChangeKind, Entry, removed_entry

ENTRY_ALIGNMENT = 65_536  # offsets at which every system can map a file
RESERVED_DISK_BYTES = 1 << 30  # the bank leaves this much of the disk free, so that a checkpoint can still be written
DEFAULT_NUM_SNAPSHOTS = 4
_FORMAT = 1
_log = logging.getLogger(__name__)


class FileStorage:
    """Entries in a folder. It holds the folder's lock until it is closed."""

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
        """Open the bank in `folder` as its journal tells it, or make an empty one.

        Every entry is read and its checksum compared; a damaged one is dropped and counted in the log.

        Args:
            folder: made if it is not there.
            entry_shape: [C, F, h, w] of one residual.
            grid: as of the bank.
            capacity: as of the bank.
            dtype: as of the bank.
            num_snapshots: how many of the latest snapshots can be gone back to; one more than the checkpoints that are kept.
            expected_entries: how many entries the training will add at most, for the check of the disk; None for a full bank.

        Raises:
            ValueError: the folder holds a bank of other settings or is in use, or the disk is too small.
        """
        if num_snapshots < 1:
            raise ValueError(f"num_snapshots is {num_snapshots}: use at least 1, one more than the checkpoints that are kept.")
        grid = grid or TimestepGrid()
        self.folder = folder
        self._num_snapshots, self._dtype = num_snapshots, dtype
        self._stored_shape = (entry_shape[1], entry_shape[0], *entry_shape[2:])  # a window of slots is then one piece
        self._entry_bytes = math.prod(entry_shape) * dtype.itemsize
        self._stride = -(-self._entry_bytes // ENTRY_ALIGNMENT) * ENTRY_ALIGNMENT
        self._sound: dict[int, int] = {}  # checksums of the places that this process wrote or compared
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = _locked(folder)
        try:
            settings = _settings(entry_shape, grid, capacity, dtype)
            _require_settings(folder, settings)
            most = capacity * grid.num_grids
            self._require_disk_space(most if expected_entries is None else min(most, expected_entries))
            self._entries = open_unbuffered(folder / "entries.bin")
            self._journal = BankJournal(folder / "journal.bin", grid.num_grids, num_snapshots, zlib.crc32(settings))
            self._go_to(self._journal.position)
            self._drop_damaged()
        except BaseException:
            self._lock.release()
            raise

    @property
    def cells(self) -> list[list[Entry]]:
        """The entries of each grid cell, in their order."""
        return self._journal.position.cells

    def write(self, values: torch.Tensor, sigma: float, square_norm: float) -> Entry:
        """Write `values` [F, C, h, w] to a free place. The entry counts only once a change names it.

        Raises:
            OSError: the disk is full.
        """
        end = self._journal.position.end
        place = self._free[0] if self._free else end
        if place == end:
            self._require_room_to_grow()
        self._sound.pop(place, None)
        data = _bytes_of(values)
        write_at(self._entries, place * self._stride, data)
        self._sound[place] = zlib.crc32(data)
        return Entry(place, sigma, square_norm, self._sound[place])

    def read(self, entry: Entry) -> torch.Tensor:
        """Map the values [F, C, h, w] of `entry`; the system reads only the slots that are looked at."""
        mapped = mmap.mmap(
            self._entries.fileno(), self._entry_bytes, access=mmap.ACCESS_COPY, offset=entry.place * self._stride
        )
        return torch.frombuffer(mapped, dtype=self._dtype).reshape(self._stored_shape)

    def commit(self, change: Change) -> None:
        """Write `change` into the journal and make it.

        Raises:
            OSError: the disk is full; the change is not made.
        """
        removed = removed_entry(self.cells, change)
        self._journal.append(change)
        if change.entry is not None and self._free and self._free[0] == change.entry.place:
            heapq.heappop(self._free)
        if removed is not None and not any(removed.place in places for places in self._journal.position.kept):
            heapq.heappush(self._free, removed.place)

    def snapshot(self) -> dict[str, torch.Tensor]:
        """Make all entries durable and return the position in the journal. What the oldest snapshots needed becomes free."""
        os.fsync(self._entries.fileno())
        self.commit(Change(ChangeKind.SNAPSHOT))
        self._journal.sync()
        position = self._journal.position
        self._free = position.free_places()
        return {"journal": torch.tensor([position.length, position.chain], dtype=torch.int64)}

    def restore(self, snapshot: Mapping[str, torch.Tensor]) -> None:
        """Go back to `snapshot`. Later snapshots stay in the journal until the bank changes again.

        Raises:
            ValueError: it is not a position of this journal, or entries that it needs were overwritten or damaged since.
        """
        if "journal" not in snapshot:
            raise ValueError("this snapshot belongs to an error bank in RAM: restore it in a bank without a folder.")
        length, chain = snapshot["journal"].tolist()
        position = self._journal.replay(length)
        if (position.length, position.chain) != (length, chain):
            raise ValueError(
                f"{self.folder} is not the error bank of this snapshot, or has lost its journal's end ({position.length} of "
                f"{length} records found): resume from the checkpoint before it, or from one of this folder's own run."
            )
        damaged = [entry for cell in position.cells for entry in cell if not self._is_sound(entry)]
        if damaged:
            raise ValueError(
                f"{len(damaged)} of {sum(map(len, position.cells))} entries of this snapshot were overwritten or damaged in "
                f"{self.folder}: resume from a later checkpoint (the last {self._num_snapshots} can be gone back to)."
            )
        self._go_to(position)

    def clear(self) -> None:
        """Go back to the empty bank. Snapshots stay in the journal until the bank changes again."""
        self._go_to(self._journal.replay(0))

    def close(self) -> None:
        """Close the files and give back the folder's lock."""
        self._entries.close()
        self._journal.close()
        self._lock.release()

    def _go_to(self, position: JournalPosition) -> None:
        self._journal.position = position
        self._free = position.free_places()

    def _drop_damaged(self) -> None:
        if torn := self._journal.num_bytes_after:
            _log.warning("SVI error bank: the journal in %s has a torn end; %d bytes are not counted.", self.folder, torn)
        damaged = 0
        for grid, cell in enumerate(self.cells):
            for index in reversed(range(len(cell))):
                if not self._is_sound(cell[index]):
                    self.commit(Change(ChangeKind.DROP, grid, index))
                    damaged += 1
        if damaged:
            _log.warning("SVI error bank: %d half-written or damaged entries in %s are not counted.", damaged, self.folder)

    def _is_sound(self, entry: Entry) -> bool:
        """Whether the bytes at the entry's place are the entry's."""
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


def _locked(folder: Path) -> FileLock:
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"the error bank in {folder} is in use by another process: stop it, or use another folder.") from None
    return lock


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
    """Check that `folder` holds a bank of these settings, or begin one there."""
    path, journal = folder / "bank.json", folder / "journal.bin"
    if not path.exists():
        if journal.exists() and journal.stat().st_size:
            raise ValueError(f"{journal} has no bank.json beside it: put it back, or delete the folder to begin a new bank.")
        write_bytes(path, settings)
        return
    wanted = json.loads(settings)
    try:
        found = json.loads(path.read_bytes())
        differences = [
            f"{name} {found.get(name)!r} instead of {wanted[name]!r}" for name in wanted if found.get(name) != wanted[name]
        ]
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read ({error}): delete the folder to begin a new bank.") from error
    if differences:
        raise ValueError(
            f"{folder} holds an error bank with {', '.join(differences)}: use the same settings or another folder."
        )


def _bytes_of(values: torch.Tensor) -> memoryview:
    return values.reshape(-1).view(torch.uint8).numpy().data
