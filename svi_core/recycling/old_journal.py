"""Read the journal of error banks on disk from before snapshots held their own index; nothing writes it any more.

    <folder>/journal.bin   one record of 40 bytes for each change, with a CRC-32 chained over all records before it

A snapshot of then is a position in it: the number of records, and their chained checksum.
"""

import struct
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from .bank_storage import Entry

_RECORD = struct.Struct("<BxHIQddI")  # kind, grid, position, place, sigma, square_norm, checksum of the entry
_CHAIN = struct.Struct("<I")
_REPLACE, _SHIFT, _DROP, _SNAPSHOT = 2, 3, 4, 5  # 1 appends


def read_old_journal(
    path: Path, num_grids: int, num_snapshots: int, first_chain: int, snapshot: tuple[int, int]
) -> tuple[list[list[Entry]], list[frozenset[int]]]:
    """Return (entries of each grid cell, places that each of the last `num_snapshots` snapshots needs) at `snapshot`.

    Args:
        first_chain: checksum of the bank's settings, with which the chain begins.
        snapshot: (number of records, their chained checksum).

    Raises:
        ValueError: it is not a position of this journal.
    """
    cells, kept = [[] for _ in range(num_grids)], deque(maxlen=num_snapshots)
    found, chain = 0, first_chain
    for record, stored_chain in _records(path):
        next_chain = zlib.crc32(record, chain)
        if found == snapshot[0] or next_chain != stored_chain:
            break
        kind, grid, position, *entry = _RECORD.unpack(record)
        if kind == _SNAPSHOT:
            kept.append(frozenset(entry.place for cell in cells for entry in cell))
        elif kind == _REPLACE:
            cells[grid][position] = Entry(*entry)
        elif kind == _DROP:
            del cells[grid][position]
        else:
            cells[grid].append(Entry(*entry))
            if kind == _SHIFT:
                del cells[grid][0]
        found, chain = found + 1, next_chain
    if (found, chain) != snapshot:
        raise ValueError(
            f"{path.parent} is not the error bank of this snapshot, or has lost its journal's end ({found} of {snapshot[0]} "
            "records found): resume from the checkpoint before it, or from one of this folder's own run."
        )
    return cells, list(kept)


def _records(path: Path) -> Iterator[tuple[bytes, int]]:
    """Yield each record of the journal with the checksum that follows it."""
    data, size = path.read_bytes() if path.exists() else b"", _RECORD.size + _CHAIN.size
    for start in range(0, len(data) - size + 1, size):
        yield data[start : start + _RECORD.size], _CHAIN.unpack_from(data, start + _RECORD.size)[0]
