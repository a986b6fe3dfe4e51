"""Banks in one safetensors file, which other training runs read and never change.

    <latent shape>/grids, sigmas, square_norms, checksums    the index: a number for each entry
    <latent shape>/residual.0, residual.1, ...               the values [F, C, h, w] of each entry
    metadata "svi.error_bank"                                the facts below, and a hash of the indexes

The latent shape is written as 16x21x60x104. Entries are mapped, so processes of one machine share them.
"""

import json
import math
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ..files.fingerprint import fingerprint
from ..files.safetensors_file import read_header, read_tensors, write_tensors_one_by_one
from ..files.sealed_json import read_sealed
from ..flow.timestep_grid import TimestepGrid
from .bank_file import ENTRY_ALIGNMENT
from .bank_storage import MemoryStorage
from .error_bank import ErrorBank

_METADATA = "svi.error_bank"
_INDEX = {
    "grids": ("grid", torch.int64),
    "sigmas": ("sigma", torch.float64),
    "square_norms": ("square_norm", torch.float64),
    "checksums": ("checksum", torch.int64),
}


@dataclass(frozen=True)
class BankFacts:
    """What the errors of a bank are.

    Attributes:
        num_grids: number of grid cells.
        shift: of the grid.
        layout: the layout that the model was trained in.
        model: fingerprint of the base model that made the errors.
        expert: "single", "high" or "low".
        step: training steps after which the bank was read.
        window_slots: slots of each error that are stored; 0: all.
    """

    num_grids: int
    shift: float
    layout: str
    model: str
    expert: str
    step: int
    window_slots: int

    @property
    def grid(self) -> TimestepGrid:
        """The noise levels of the cells."""
        return TimestepGrid(self.num_grids, self.shift)


@dataclass(frozen=True)
class StoredError:
    """One entry of a bank, with its values [F, C, h, w] as stored, mapped from a file."""

    grid: int
    sigma: float
    square_norm: float
    checksum: int
    values: torch.Tensor


def stored_errors(snapshot: Mapping[str, torch.Tensor], folder: Path) -> list[StoredError]:
    """Return the entries of a bank's `snapshot`; values of a bank on disk are mapped from its `folder`, without its lock.

    Raises:
        ValueError: the snapshot is of an earlier version, or the folder's files are missing or damaged.
    """
    if "grids" not in snapshot:
        raise ValueError("it has an index of an earlier version: resume that run, so that it saves a checkpoint")
    facts = [snapshot[name].tolist() for name in ("grids", "sigmas", "square_norms")]
    if "places" in snapshot:
        values = _mapped(folder, snapshot["places"].tolist())
        checksums = snapshot["checksums"].tolist()
    else:
        values = [snapshot[f"residual.{index}"] for index in range(len(facts[0]))]
        checksums = [_checksum(item) for item in values]
    return [StoredError(*entry) for entry in zip(*facts, checksums, values, strict=True)]


def write_banks(path: Path, banks: Mapping[str, Sequence[StoredError]], facts: BankFacts) -> None:
    """Write `banks`, by latent shape, to the safetensors file `path` atomically; equal entries of a bank once.

    Raises:
        ValueError: an entry was overwritten or damaged since its index was read.
        OSError: the disk is too small; nothing is written.
    """
    unique = {shape: _unique(errors) for shape, errors in sorted(banks.items()) if errors}
    indexes = {f"{shape}/{name}": index for shape, errors in unique.items() for name, index in _index_of(errors).items()}
    kinds = {key: (tensor.dtype, tensor.shape) for key, tensor in indexes.items()}
    for shape, errors in unique.items():
        kinds |= {f"{shape}/residual.{i}": (error.values.dtype, error.values.shape) for i, error in enumerate(errors)}
    _require_room(path, sum(math.prod(shape) * dtype.itemsize for dtype, shape in kinds.values()))
    text = json.dumps({**asdict(facts), "index": _digest(indexes, facts)})
    write_tensors_one_by_one(path, kinds, _tensors(indexes, unique), {_METADATA: text})


def read_facts(path: Path) -> tuple[BankFacts, dict[str, list[int]]]:
    """Return the facts of the file `path`, and the number of entries in each cell of its banks, by latent shape.

    Raises:
        ValueError: it is no file of banks, or its index is damaged.
    """
    facts, _, tensors = _read(path)
    return facts, {shape: fills(tensors[f"{shape}/grids"], facts) for shape in _shapes(tensors)}


def fills(grids: torch.Tensor, facts: BankFacts) -> list[int]:
    """Return the number of entries in each cell, given the cell of each entry."""
    return torch.bincount(grids, minlength=facts.num_grids).tolist()


def read_banks(path: Path) -> tuple[BankFacts, str, dict[str, ErrorBank]]:
    """Return (facts, a hash of all contents, the banks by latent shape) of the file `path`. The banks are for reading only.

    Raises:
        ValueError: it is no file of banks, or it is damaged.
    """
    facts, digest, tensors = _read(path)
    banks = {}
    for shape in _shapes(tensors):
        snapshot = {key.partition("/")[2]: tensor for key, tensor in tensors.items() if key.startswith(f"{shape}/")}
        for index, checksum in enumerate(snapshot["checksums"].tolist()):
            if _checksum(snapshot[f"residual.{index}"]) != checksum:
                raise ValueError(f"{path} is damaged: error {index} of {shape} does not fit its checksum. Export it again.")
        banks[shape] = _bank(snapshot, facts)
    return facts, digest, banks


def bank_of(errors: Sequence[StoredError], facts: BankFacts) -> ErrorBank:
    """Return `errors`, of one bank and equal ones once, as a bank for reading only. They stay mapped; none is copied."""
    unique = _unique(errors)
    return _bank(_index_of(unique) | {f"residual.{index}": error.values for index, error in enumerate(unique)}, facts)


def _bank(snapshot: Mapping[str, torch.Tensor], facts: BankFacts) -> ErrorBank:
    values = snapshot["residual.0"]
    num_slots, channels, *sides = values.shape
    storage = MemoryStorage(facts.num_grids, (channels, num_slots, *sides), values.dtype)
    storage.adopt(snapshot)
    return ErrorBank((channels, num_slots, *sides), grid=facts.grid, dtype=values.dtype, storage=storage)


def _unique(errors: Sequence[StoredError]) -> list[StoredError]:
    return list({(error.grid, error.sigma, error.checksum): error for error in errors}.values())


def _index_of(errors: Sequence[StoredError]) -> dict[str, torch.Tensor]:
    return {
        name: torch.tensor([getattr(error, attribute) for error in errors], dtype=dtype)
        for name, (attribute, dtype) in _INDEX.items()
    }


def _read(path: Path) -> tuple[BankFacts, str, dict[str, torch.Tensor]]:
    """Return (facts, hash of the indexes, mapped tensors) of the file `path`, with its indexes checked."""
    text = read_header(path)["__metadata__"].get(_METADATA)
    if text is None:
        raise ValueError(f"{path} is no file of error banks: make one with python -m training.bank RUN FILE.")
    tensors, _ = read_tensors(path)
    try:
        values = json.loads(text)
        digest = values.pop("index")
        facts = BankFacts(**values)
        indexes = {f"{shape}/{name}": tensors[f"{shape}/{name}"] for shape in _shapes(tensors) for name in _INDEX}
        residuals = {f"{shape}/residual.{i}" for shape in _shapes(tensors) for i in range(len(indexes[f"{shape}/grids"]))}
        sound = digest == _digest(indexes, facts) and tensors.keys() == indexes.keys() | residuals
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {error}): export it again.") from error
    if not sound:
        raise ValueError(f"{path} is damaged (its index does not fit its checksum): export it again.")
    return facts, digest, tensors


def _shapes(tensors: Mapping[str, torch.Tensor]) -> list[str]:
    return [key.removesuffix("/grids") for key in sorted(tensors) if key.endswith("/grids")]


def _digest(indexes: Mapping[str, torch.Tensor], facts: BankFacts) -> str:
    """Return a hash of facts and indexes; the latter hold the checksums of all values."""
    return fingerprint(asdict(facts), {key: tensor.tolist() for key, tensor in sorted(indexes.items())})


def _tensors(indexes: Mapping[str, torch.Tensor], banks: Mapping[str, Sequence[StoredError]]) -> Iterator[torch.Tensor]:
    yield from indexes.values()
    for error in (error for errors in banks.values() for error in errors):
        if _checksum(error.values) != error.checksum:
            raise ValueError(
                "an error was overwritten or damaged while it was read: stop the run that writes it, or try again."
            )
        yield error.values


def _require_room(path: Path, needed: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if needed > free:
        raise OSError(
            f"the errors take {needed / 2**30:.1f} GiB in {path.parent}, but {free / 2**30:.1f} GiB are free: free space, "
            "write them to another disk (python -m training.bank RUN FILE) and name that file, or lower recycling.capacity in "
            "the run that makes them."
        )


def _mapped(folder: Path, places: Sequence[int]) -> list[torch.Tensor]:
    """Return the values [F, C, h, w] at `places` of the bank on disk in `folder`, all in one mapping."""
    try:
        settings, path = read_sealed(folder / "bank.json"), folder / "entries.bin"
        (channels, num_slots, *sides), dtype = settings["entry_shape"], getattr(torch, settings["dtype"])
        size = channels * num_slots * sides[0] * sides[1] * dtype.itemsize
        stride = -(-size // ENTRY_ALIGNMENT) * ENTRY_ALIGNMENT
        length = path.stat().st_size
    except (OSError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its error bank {folder} cannot be read ({type(error).__name__}: {error})") from error
    if any(place * stride + size > length for place in places):
        raise ValueError(f"its error bank {path} is cut off")
    if not places:
        return []
    data = torch.from_file(str(path), shared=False, size=length, dtype=torch.uint8)
    shape = (num_slots, channels, *sides)
    return [data[place * stride : place * stride + size].view(dtype).view(shape) for place in places]


def _checksum(values: torch.Tensor) -> int:
    return zlib.crc32(values.reshape(-1).view(torch.uint8).numpy().data)
