"""One hash for any value that determines a clip: numbers, texts, tensors, settings objects, functions, files.

Equal values give equal fingerprints in every process and on every machine; memory addresses and paths never enter.
Hand-written: `pickle` bytes differ between processes and versions, and `hash` is salted. PyTorch is imported for the first
value that JSON does not know: a command that hashes only files and JSON starts without it.
"""

from __future__ import annotations

import dis
import functools
import hashlib
import struct
import types
from collections import deque
from collections.abc import Mapping, Set
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import torch

NOT_HASHED = {"hashed": False}  # metadata of a dataclass field that no fingerprint depends on
# By the type itself: a float64 of numpy is a float, too, but an array here.
_JSON_KINDS = {type(None): "none", **dict.fromkeys((bool, int, float, str), "plain"), dict: "mapping", list: "sequence"}
_MAX_DEPTH = 12
_SAMPLED_BLOCKS = 64
_BLOCK_BYTES = 4096


def fingerprint(*values: object) -> str:
    """Return the sha256 of `values` as 64 hex digits."""
    digest = hashlib.sha256()
    for value in values:
        _feed(digest, value, 0, frozenset())
    return digest.hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes as hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def large_file_fingerprint(path: Path) -> str:
    """Return a hash of a large file's size, its beginning and 64 blocks spread over it.

    This distinguishes model files without reading tens of gigabytes; a copy elsewhere has the same fingerprint.
    """
    size = path.stat().st_size
    digest = hashlib.sha256(struct.pack("<Q", size))
    with path.open("rb") as file:
        digest.update(file.read(1 << 20))
        for block in range(_SAMPLED_BLOCKS):
            file.seek(max(0, size - _BLOCK_BYTES) * block // (_SAMPLED_BLOCKS - 1))
            digest.update(file.read(_BLOCK_BYTES))
    return digest.hexdigest()


def _feed(digest, value, depth: int, seen: frozenset[int]) -> None:
    """Add `value` to `digest`, tagged with its kind so that values of different kinds never collide."""
    kind = "deep" if depth > _MAX_DEPTH or id(value) in seen else _JSON_KINDS.get(type(value)) or _kind_of(value)
    digest.update(kind.encode() + b"\0")
    if kind in ("deep", "none"):
        return
    if kind == "plain":
        data = _plain_bytes(value)
        digest.update(type(value).__name__.encode() + struct.pack("<Q", len(data)) + data)
        return
    if kind == "array":
        digest.update(f"{value.dtype}{list(value.shape)}".encode())
        digest.update(_array_bytes(value))
        return
    parts = _parts_of(kind, value)
    digest.update(struct.pack("<Q", len(parts)))
    for part in parts:
        _feed(digest, part, depth + 1, seen | {id(value)})


def _array_bytes(value: torch.Tensor | np.ndarray | np.generic) -> memoryview:
    """Return the bytes of a tensor or array; numpy lacks some dtypes (bf16, fp8), so a tensor is seen as bytes first."""
    import numpy as np
    import torch

    if isinstance(value, torch.Tensor):
        flat = value.detach().cpu().contiguous().reshape(-1)
        return flat.view(torch.uint8).numpy().data if flat.numel() else memoryview(b"")
    return np.ascontiguousarray(value).reshape(-1).view(np.uint8).data


def _kind_of(value: object) -> str:
    import numpy as np
    import torch

    if isinstance(value, np.ndarray | np.generic | torch.Tensor):
        return "array"
    if isinstance(value, bool | int | float | complex | str | bytes | Enum | PurePath | torch.dtype | torch.device):
        return "plain"
    if isinstance(value, Mapping):
        return "mapping"
    if isinstance(value, Set):
        return "set"
    if isinstance(value, list | tuple | deque | range):
        return "sequence"
    if isinstance(value, types.FunctionType | types.MethodType | functools.partial):
        return "function"
    return "code" if isinstance(value, types.CodeType) else "object"


def _plain_bytes(value: object) -> bytes:
    if isinstance(value, float):
        return struct.pack("<d", value)
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


def _parts_of(kind: str, value) -> list:
    """Return the parts of a compound value, in an order that does not depend on the process."""
    if kind == "sequence":
        return list(value)
    if kind == "set":
        return sorted(fingerprint(item) for item in value)
    if kind == "mapping":
        keys = sorted(((fingerprint(key), key) for key in value), key=lambda pair: pair[0])
        return [part for print_of_key, key in keys for part in (print_of_key, value[key])]
    if kind == "function":
        return _function_parts(value)
    if kind == "code":
        return [value.co_code, list(value.co_consts), list(value.co_names)]
    return _object_parts(value)


def _object_parts(value) -> list:
    """Return class and attributes of an object, without private ones, which hold working state."""
    if isinstance(value, type | types.BuiltinFunctionType | types.ModuleType):
        return [getattr(value, "__qualname__", getattr(value, "__name__", ""))]
    import torch

    if isinstance(value, torch.nn.Module):
        return [type(value).__qualname__, _module_parts(value)]
    if is_dataclass(value):
        hashed = (field for field in fields(value) if field.metadata.get("hashed", True))
        attributes = {field.name: getattr(value, field.name) for field in hashed}
    else:
        attributes = dict(getattr(value, "__dict__", {}))
        attributes |= {name: getattr(value, name) for name in getattr(type(value), "__slots__", ()) if hasattr(value, name)}
    return [type(value).__qualname__, {name: item for name, item in attributes.items() if not name.startswith("_")}]


def _module_parts(module: torch.nn.Module) -> list:
    """Return plain attributes, buffers, and parameter shapes of a module.

    Parameter values are left out: they can be tens of gigabytes, and change while a LoRA is patched onto them. To distinguish
    models by their weights, hash the file of the weights.
    """
    plain = {name: item for name, item in vars(module).items() if isinstance(item, bool | int | float | str)}
    shapes = {name: (str(weight.dtype), tuple(weight.shape)) for name, weight in module.named_parameters()}
    return [{name: item for name, item in plain.items() if not name.startswith("_")}, dict(module.named_buffers()), shapes]


def _function_parts(value) -> list:
    """Return name, code and closure of a function; a method's object too; a partial's arguments.

    Variables that it rebinds itself (``nonlocal``) are left out: they are working state from some other clip.
    """
    if isinstance(value, functools.partial):
        return ["partial", value.func, list(value.args), dict(value.keywords)]
    if isinstance(value, types.MethodType):
        return [value.__func__, value.__self__]
    rebound = {step.argval for step in dis.get_instructions(value.__code__) if step.opname == "STORE_DEREF"}
    cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
    closed = [cell.cell_contents for name, cell in cells if name not in rebound and cell != types.CellType()]
    return [value.__qualname__, value.__code__, closed, list(value.__defaults__ or ()), value.__kwdefaults__]
