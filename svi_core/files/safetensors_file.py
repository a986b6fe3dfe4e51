"""Open a safetensors file only after its header has been checked, and name what is wrong with it; write large ones bit by bit.

A file is judged by its content, not by its extension: pickles (.pt, .ckpt, or renamed) are never opened.
Source: the safetensors format (https://github.com/huggingface/safetensors): 8-byte little-endian header length, JSON header,
then tensor bytes without holes.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from .atomic_file import staged

MAX_HEADER_BYTES = 100_000_000
_DTYPE_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
}  # fmt: skip
_DTYPE_NAMES = {
    torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2", torch.uint8: "U8", torch.int8: "I8", torch.int32: "I32", torch.int64: "I64",
}  # fmt: skip


def write_tensors(
    path: Path,
    kinds: Mapping[str, tuple[torch.dtype, Sequence[int]]],
    tensors: Iterable[torch.Tensor],
    metadata: Mapping[str, str],
) -> None:
    """Write `tensors` to the safetensors file `path`, wholly or not at all, with no more than one of them in memory.

    Args:
        kinds: dtype and shape of each tensor by its key, in the order of `tensors`.
        tensors: on any device.

    Raises:
        ValueError: a tensor is not of the kind that was announced.
        OSError: the disk is full or the folder cannot be written.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for key, (dtype, shape) in kinds.items():
        end = position + math.prod(shape) * dtype.itemsize
        header[key] = {"dtype": _DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # data begin at a multiple of 8, as the format's own writer has it
    with staged(path) as staging, staging.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for (key, (dtype, shape)), tensor in zip(kinds.items(), tensors, strict=True):
            if (tensor.dtype, tuple(tensor.shape)) != (dtype, tuple(shape)):
                raise ValueError(f"{key} of {path.name} is {tensor.dtype} {list(tensor.shape)}, not {dtype} {list(shape)}.")
            file.write(tensor.detach().contiguous().cpu().flatten().view(torch.uint8).numpy().data)


def read_header(path: Path) -> dict:
    """Return the JSON header of the safetensors file `path`, checked against the size of the file.

    Raises:
        ValueError: not safetensors (a pickle is named as such), truncated, or inconsistent; the message names the file.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(9)
            _refuse_pickle(path, start)
            length = int.from_bytes(start[:8], "little")
            file.seek(8)
            if len(start) < 8 or length > MAX_HEADER_BYTES or 8 + length > size:
                raise _NotSafetensors(f"{path} is not a complete safetensors file ({size} bytes): download it again.")
            header = json.loads(file.read(length).decode("utf-8"), object_pairs_hook=_unique_keys)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): check the path and its permissions.") from error
    except _NotSafetensors as error:
        raise ValueError(str(error)) from None
    except (ValueError, RecursionError, KeyError) as error:
        raise ValueError(f"{path} has a broken safetensors header ({error}): download it again.") from error
    if not isinstance(header, dict):
        raise ValueError(f"{path} has a broken safetensors header (not an object): download it again.")
    _check_layout(path, header, size - 8 - length)
    return header


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return (tensors by key, metadata) of the safetensors file `path`, on the CPU.

    Raises:
        ValueError: see :func:`read_header`.
    """
    header = read_header(path)
    metadata = header.get("__metadata__", {})
    try:
        return load_file(path), {str(key): str(value) for key, value in metadata.items()}
    except SafetensorError as error:
        raise ValueError(f"{path} cannot be read as safetensors ({error}): download it again.") from error


class _NotSafetensors(ValueError):
    """A message that already names the file."""


def _refuse_pickle(path: Path, start: bytes) -> None:
    """Refuse what begins like a pickle or a zip, unless a JSON header follows: a header's length may look like either."""
    if start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") and start[8:] != b"{":
        raise _NotSafetensors(
            f"{path} is a pickle or zip file whatever its name says, and opening one can run any code: "
            "get the .safetensors version of it."
        )


def _unique_keys(pairs: list[tuple[str, object]]) -> dict:
    keys = dict(pairs)
    if len(keys) != len(pairs):
        raise KeyError("a key appears twice")
    return keys


def _check_layout(path: Path, header: dict, data_bytes: int) -> None:
    """Check that the tensors of `header` cover `data_bytes` exactly, without holes or overlaps."""
    metadata = header.get("__metadata__", {})
    if not isinstance(metadata, dict):
        raise ValueError(f"{path} has a broken safetensors header (metadata is not an object): download it again.")
    spans = []
    for key, entry in header.items():
        if key == "__metadata__":
            continue
        try:
            begin, end = entry["data_offsets"]
            bits = _DTYPE_BITS[entry["dtype"]]
            for side in entry["shape"]:
                bits *= _natural(side)
            spans.append((_natural(begin), _natural(end)))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} has a broken safetensors header at {key!r} ({error!r}): download it again.") from error
        if (end - begin) * 8 != bits:
            raise ValueError(f"{path} has a broken safetensors header: {key!r} does not fill its bytes. Download it again.")
    position = 0
    for begin, end in sorted(spans):
        if begin != position:
            raise ValueError(f"{path} has a hole or an overlap at byte {position} of its data: download it again.")
        position = end
    if position != data_bytes:
        raise ValueError(f"{path} holds {data_bytes} bytes of data but describes {position}: it is cut off. Download it again.")


def _natural(number: object) -> int:
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise ValueError(f"{number!r} is not a natural number")
    return number
