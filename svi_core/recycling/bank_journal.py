"""The journal of the error bank on disk: one record for each change, with a checksum chained to all records before it.

Source: the write-ahead log of databases (https://www.postgresql.org/docs/current/wal-intro.html): a record counts once it and
all before it are whole.
"""

import io
import os
import struct
import zlib
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .bank_storage import Change, ChangeKind, Entry, apply_change

_RECORD = struct.Struct("<BxHIQddI")  # kind, grid, position, place, sigma, square_norm, checksum of the entry
_CHAIN = struct.Struct("<I")  # CRC-32 of this record and, by its start value, of all before it
RECORD_BYTES = _RECORD.size + _CHAIN.size


@dataclass
class JournalPosition:
    """The state of the bank after `length` records of the journal.

    Attributes:
        cells: entries of each grid cell in their order.
        kept: for each retained snapshot the places that it needs.
        length: number of records.
        chain: checksum of them all.
        end: one past the last place that any of them used.
    """

    cells: list[list[Entry]]
    kept: deque[frozenset[int]]
    length: int
    chain: int
    end: int

    def advance(self, change: Change, chain: int) -> None:
        """Take in the next record."""
        apply_change(self.cells, change)
        if change.kind is ChangeKind.SNAPSHOT:
            self.kept.append(frozenset(self.live_places()))
        if change.entry is not None:
            self.end = max(self.end, change.entry.place + 1)
        self.length, self.chain = self.length + 1, chain

    def live_places(self) -> Iterator[int]:
        """Yield the places of all entries."""
        return (entry.place for cell in self.cells for entry in cell)

    def free_places(self) -> list[int]:
        """Return, as a heap, the places that neither the bank nor a retained snapshot needs."""
        return sorted(set(range(self.end)).difference(self.live_places(), *self.kept))


class BankJournal:
    """The file of changes, and where in it the bank stands."""

    def __init__(self, path: Path, num_grids: int, num_snapshots: int, first_chain: int):
        """Open the journal at `path`, which may be empty, and go to its end.

        Args:
            path: the file; made if it is not there.
            num_grids: grid cells of the bank.
            num_snapshots: how many of the latest snapshots keep their places.
            first_chain: checksum of what the bank is, so that the journal of another bank counts as torn.
        """
        self._num_grids, self._num_snapshots, self._first_chain = num_grids, num_snapshots, first_chain
        self._file = open_unbuffered(path)
        self.position = self.replay(None)

    @property
    def num_bytes_after(self) -> int:
        """Bytes of the file after the position: a torn record, or what came after a snapshot that was gone back to."""
        return os.fstat(self._file.fileno()).st_size - self.position.length * RECORD_BYTES

    def replay(self, length: int | None) -> JournalPosition:
        """Return the state after the first `length` records; after fewer if the journal ends, or stops making sense, before."""
        self._file.seek(0)
        data = self._file.readall()
        kept = deque(maxlen=self._num_snapshots)
        position = JournalPosition([[] for _ in range(self._num_grids)], kept, 0, self._first_chain, 0)
        num_records = len(data) // RECORD_BYTES
        for index in range(num_records if length is None else min(length, num_records)):
            start = index * RECORD_BYTES
            record = data[start : start + _RECORD.size]
            chain = zlib.crc32(record, position.chain)
            if _CHAIN.unpack_from(data, start + _RECORD.size)[0] != chain:
                break
            position.advance(_unpack(record), chain)
        return position

    def append(self, change: Change) -> None:
        """Write `change` and make it.

        Raises:
            OSError: the disk is full; the change is not made.
        """
        record = _pack(change)
        chain = zlib.crc32(record, self.position.chain)
        offset = self.position.length * RECORD_BYTES
        if self.num_bytes_after:
            self._file.truncate(offset)
        write_at(self._file, offset, record + _CHAIN.pack(chain))
        self.position.advance(change, chain)

    def sync(self) -> None:
        """Return once everything written is on the disk itself."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_unbuffered(path: Path) -> io.FileIO:
    """Open a file for reading and writing, made if it is not there; what is written has left this process."""
    path.touch()
    return path.open("r+b", buffering=0)


def write_at(file: io.FileIO, offset: int, data: bytes | memoryview) -> None:
    """Write all of `data` at byte `offset`.

    Raises:
        OSError: the disk is full; part of it may be written.
    """
    file.seek(offset)
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def _pack(change: Change) -> bytes:
    entry = change.entry or Entry(0, 0.0, 0.0)
    return _RECORD.pack(change.kind, change.grid, change.position, entry.place, entry.sigma, entry.square_norm, entry.checksum)


def _unpack(record: bytes) -> Change:
    kind, grid, position, *entry = _RECORD.unpack(record)
    kind = ChangeKind(kind)
    has_entry = kind in (ChangeKind.APPEND, ChangeKind.REPLACE, ChangeKind.SHIFT)
    return Change(kind, grid, position, Entry(*entry) if has_entry else None)
