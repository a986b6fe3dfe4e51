"""Read safetensors files and say what is wrong with a bad one; write them atomically, equal contents as equal bytes.

A file is judged by its content, not by its extension: pickles (.pt, .ckpt, or renamed) are refused.
Source: the safetensors format (https://github.com/huggingface/safetensors): 8-byte little-endian header length, JSON header,
then tensor bytes without holes.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file

from .atomic_file import staged

_DTYPE_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2", torch.bool: "BOOL", torch.uint8: "U8", torch.int8: "I8", torch.int16: "I16",
    torch.int32: "I32", torch.int64: "I64",
}  # fmt: skip
_MAX_KEY_LENGTH, _MAX_DIMENSIONS = 1000, 16  # no model comes near; names are searched and shown, shapes multiplied


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write `tensors`, on any device, to the safetensors file `path` atomically.

    Raises:
        OSError: the disk is full or the folder cannot be written; an older file stays as it was.
    """
    ordered = dict(sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])))  # as the library does
    kinds = {key: (tensor.dtype, tensor.shape) for key, tensor in ordered.items()}
    write_tensors_one_by_one(path, kinds, ordered.values(), dict(sorted((metadata or {}).items())))


def write_tensors_one_by_one(
    path: Path,
    kinds: Mapping[str, tuple[torch.dtype, Sequence[int]]],
    tensors: Iterable[torch.Tensor],
    metadata: Mapping[str, str],
    durable: bool = True,
) -> None:
    """Write a safetensors file as :func:`write_tensors` does, with no more than one of `tensors` in memory.

    Hand-written: the library reports a full disk as an error of its own, leaves a temporary file behind when it is killed,
    and writes metadata in random order.

    Args:
        kinds: dtype and shape of each tensor by its key, in the order of `tensors`.
        durable: see :func:`.atomic_file.staged`.

    Raises:
        ValueError: a tensor is not of the announced kind.
        OSError: see :func:`write_tensors`.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for key, (dtype, shape) in kinds.items():
        end = position + math.prod(shape) * dtype.itemsize
        header[key] = {"dtype": _DTYPE_NAMES[dtype], "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # data begin at a multiple of 8, as in the library's files
    with staged(path, durable) as staging, staging.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for (key, (dtype, shape)), tensor in zip(kinds.items(), tensors, strict=True):
            if (tensor.dtype, tuple(tensor.shape)) != (dtype, tuple(shape)):
                raise ValueError(f"{key} of {path.name} is {tensor.dtype} {list(tensor.shape)}, not {dtype} {list(shape)}.")
            file.write(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Return "dtype" and "shape" of each tensor in `path` by its key, and the file's metadata as ``__metadata__``.

    Raises:
        ValueError: not safetensors (a pickle is named as such), truncated, or inconsistent; the message names the file.
    """
    try:
        with path.open("rb") as file:
            start = file.read(2)
        with safe_open(path, "np") as opened:
            slices = {key: opened.get_slice(key) for key in opened.keys()}
            header = {key: {"dtype": part.get_dtype(), "shape": part.get_shape()} for key, part in slices.items()}
            metadata = opened.metadata() or {}
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}): check the path and its permissions.") from error
    except SafetensorError as error:
        if start in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"):
            raise ValueError(
                f"{path} is a pickle or zip file whatever its name says, and opening one can run any code: "
                "get the .safetensors version of it."
            ) from error
        raise ValueError(f"{path} cannot be read as safetensors ({error}): download it again.") from error
    for key, entry in header.items():
        if len(key) > _MAX_KEY_LENGTH or len(entry["shape"]) > _MAX_DIMENSIONS:
            raise ValueError(
                f"{path} holds a tensor of {len(entry['shape'])} dimensions with a name of {len(key)} characters "
                f"({key[:40]!r}...), which is no model's: download it again."
            )
    return {**header, "__metadata__": metadata}


def read_tensors(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return (tensors by key, metadata) of the safetensors file `path`, on the CPU.

    Raises:
        ValueError: see :func:`read_header`.
    """
    metadata = read_header(path)["__metadata__"]
    try:
        return load_file(path), metadata
    except SafetensorError as error:  # a type of numbers that PyTorch lacks
        raise ValueError(f"{path} cannot be read as safetensors ({error}): convert it to fp16.") from error
