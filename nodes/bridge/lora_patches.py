"""What ComfyUI makes of a LoRA on a model: the patches that it will merge, found by merging them without data.

ComfyUI accepts any patch whose name matches, and only logs an error when it merges one that does not fit. So each patch is
merged here into a weight of the model's size on PyTorch's meta device, by ComfyUI's own adapter: no memory, no loaded model.
"""

import logging
import math
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import comfy.lora
import comfy.lora_convert
import comfy.utils
import torch
from torch.overrides import TorchFunctionMode

from ...svi_core.files.safetensors_file import read_header
from ...svi_core.systems.lora import LoraFile, LoraMatch, header_shapes
from ...svi_core.systems.lora_keys import split_key
from ...svi_core.systems.lora_parts import size_text
from .models import model_without_weights

_NUMBERS = ("alpha", "reshape_weight")  # parts that ComfyUI turns into numbers; the others stay tensors


def match_lora(model, lora: LoraFile) -> tuple[dict[str, object], LoraMatch]:
    """Return ComfyUI's patches of `lora` that fit `model`, by the model's keys, and what becomes of each module.

    Raises:
        ValueError: a replaced or reshaped weight of another size than the model's; with file and key.
        RuntimeError: this ComfyUI merges patches in another way than this check knows.
    """
    if not _merges(("diff", (torch.zeros(2, 3),)), (2, 3)):
        raise RuntimeError(
            "this ComfyUI merges LoRAs in a way that this version of Stable Video Infinity does not know: update it."
        )
    tensors = comfy.lora_convert.convert_lora(lora.tensors)
    key_map = comfy.lora.model_lora_keys_unet(model.model, {})
    _require_sizes(model, lora.name, tensors, key_map)
    patches = comfy.lora.load_lora(tensors, key_map, log_missing=False)
    known = model.model.state_dict().keys()  # what ComfyUI patches
    shapes = {key: _unpatched_shape(model, key) if key in known else None for key in patches}
    fitting = {key: patch for key, patch in patches.items() if (shape := shapes[key]) is not None and _merges(patch, shape)}
    users = {id(tensor): key for key, patch in patches.items() for tensor in _values_of(patch)}
    modules: dict[str, dict[str, str | None]] = defaultdict(dict)  # the model's key that each part of a module changes
    for key, tensor in tensors.items():
        module, part = split_key(key)
        modules[module][part] = target = users.get(id(tensor))
        if part == "dora_scale" and target in fitting and not _scales(tensor.shape, shapes[target]):
            del fitting[target]
    return fitting, _match(modules, tensors, shapes, fitting.keys())


def is_ignored(model: Path, lora: Path) -> bool:
    """Whether ComfyUI's own loader would change nothing of `model` with `lora`, by the headers of both safetensors files.

    It logs each key that it does not know, and goes on. False if a header does not tell.
    """
    try:
        made, shapes = model_without_weights(model), header_shapes(read_header(lora))
    except ValueError:  # a damaged file, of which its loader tells
        return False
    if made is None:
        return False
    tensors = {key: torch.empty(shape, device="cpu" if math.prod(shape) == 1 else "meta") for key, shape in shapes.items()}
    key_map = comfy.lora.model_lora_keys_unet(made, {})
    patches = comfy.lora.load_lora(comfy.lora_convert.convert_lora(tensors), key_map, log_missing=False)
    return made.state_dict().keys().isdisjoint(patches)


def _match(modules, tensors, shapes, fitting) -> LoraMatch:
    """Return what becomes of `modules`, given the keys of the model whose patches fit."""
    touched, misfits, unmatched = set[str](), dict[str, str](), dict[str, str]()
    for module, parts in modules.items():
        targets = {target for target in parts.values() if target is not None and shapes[target] is not None}
        if targets & fitting:
            touched.add(module)
        if wrong := sorted(targets - fitting):
            misfits[module] = "; ".join(_misfit(module, parts, tensors, target, shapes[target]) for target in wrong)
            continue
        unread = [part for part, target in parts.items() if target not in targets and not (targets and part in _NUMBERS)]
        if unread:
            named = f" ({', '.join(sorted(unread))})" if targets else ""
            unmatched[module] = module + named
    return LoraMatch(frozenset(touched), misfits, dict(sorted(unmatched.items())))


def _misfit(module: str, parts, tensors, target: str, shape: Sequence[int]) -> str:
    """Return a sentence about the parts of `module` that do not fit `target`, a key of the model."""
    sizes = ", ".join(
        f"{part} {size_text(tensors[f'{module}.{part}'].shape)}" for part, key in sorted(parts.items()) if key == target
    )
    return f"{module} has {sizes}, but the model's {target.rpartition('.')[2]} is {size_text(shape)}"


def _require_sizes(model, name: str, tensors: dict[str, torch.Tensor], key_map: dict[str, str]) -> None:
    """Refuse a weight that would replace or reshape one of another size: ComfyUI's merge then fails or leaves another model."""
    for key, tensor in tensors.items():
        module, part = split_key(key)
        if part not in ("set_weight", "reshape_weight") or module not in key_map:
            continue
        shape = _unpatched_shape(model, key_map[module])
        asked = tensor.flatten().tolist() if part == "reshape_weight" and tensor.numel() < 9 else list(tensor.shape)
        if shape is not None and asked != list(shape):
            raise ValueError(
                f"LoRA {name}: {key} makes {key_map[module]} {size_text(asked)}, but the model's is {size_text(shape)}: the "
                "file is for another model, or malformed. Choose another."
            )


def _unpatched_shape(model, key: str) -> torch.Size | None:
    """Return the shape of a weight before any patch, or None if the model lacks it."""
    if key in model.backup:
        return model.backup[key].weight.shape
    try:
        return getattr(comfy.utils.get_attr(model.model, key), "shape", None)
    except AttributeError:
        return None


class _Reshapes(TorchFunctionMode):
    """Records the shapes of what is reshaped to `shape`: adapters do so with each change before they add it to the weight."""

    def __init__(self, shape: Sequence[int]):
        super().__init__()
        self.shape, self.found = tuple(shape), list[tuple[int, ...]]()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.reshape and self.shape == tuple(args[1:] if isinstance(args[1], int) else args[1]):
            self.found.append(tuple(args[0].shape))
        return func(*args, **(kwargs or {}))


def _merges(patch, shape: Sequence[int]) -> bool:
    """Whether ComfyUI merges `patch` into a weight of `shape`, and each change has that shape, not only as many values."""
    with torch.inference_mode(False), _quiet(), _Reshapes(shape) as reshapes:
        weight = torch.empty(tuple(shape), device="meta")
        before = weight._version  # pyright: ignore[reportPrivateUsage] (torch has no public name for it)
        try:
            merged = comfy.lora.calculate_weight([(1.0, _without_data(patch), 1.0, None, None)], weight, "weight")
        except Exception:  # ComfyUI's adapters raise anything on parts that do not fit
            return False
    changed = merged is not weight or weight._version != before  # pyright: ignore[reportPrivateUsage]
    return changed and merged.shape == weight.shape and all(_is_layout_of(found, shape) for found in reshapes.found)


def _is_layout_of(found: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether reshaping `found` to `shape` keeps each value in its place: sizes of 1 and a flattened input do not matter."""
    inputs, found_inputs = ([size for size in sizes[1:] if size > 1] for sizes in (shape, found))
    return tuple(found[:1]) == tuple(shape[:1]) and found_inputs in (inputs, [math.prod(inputs)])


def _scales(scale: Sequence[int], shape: Sequence[int]) -> bool:
    """Whether a DoRA's scale of size `scale` has one number for each row or each column of a weight of `shape`."""
    ones = [1] * (len(shape) - 2)
    return list(scale) in ([shape[0], 1, *ones], [1, *shape[1:2], *ones])


def _values_of(patch) -> Sequence[object]:
    """Return the tensors and numbers of a patch: of an adapter, or of a pair such as ("diff", (tensor,))."""
    return patch[1] if isinstance(patch, tuple) else patch.weights


def _without_data(patch):
    """Return `patch` with tensors that have no data, alpha 0, which limits no rotation, and no reshaping."""
    values = tuple(_value_without_data(value) for value in _values_of(patch))
    return (patch[0], values) if isinstance(patch, tuple) else type(patch)(patch.loaded_keys, values)


def _value_without_data(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return torch.empty(value.shape, dtype=value.dtype, device="meta")
    return 0.0 if isinstance(value, int | float) else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Drop what this thread logs: ComfyUI logs an error for each patch that it cannot merge."""
    thread = threading.get_ident()

    def is_of_another_thread(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logging.getLogger().addFilter(is_of_another_thread)
    try:
        yield
    finally:
        logging.getLogger().removeFilter(is_of_another_thread)
