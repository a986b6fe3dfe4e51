"""Make the optimizer by name, schedule its learning rate, and save its state as tensors of a safetensors file."""

import importlib
import inspect
import json
import math
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from training.settings.sections import OptimizerConfig, Schedule

SHORT_NAMES = {"AdamW": "torch.optim.AdamW", "AdamW8bit": "bitsandbytes.optim.AdamW8bit"}


def make_optimizer(parameters: Iterable[nn.Parameter] | Iterable[dict], config: OptimizerConfig) -> torch.optim.Optimizer:
    """Return the optimizer that `config` names: AdamW, AdamW8bit, or any class by its dotted name.

    Args:
        parameters: the parameters to update, or parameter groups in PyTorch's form, ``{"params": [...]}``.
        config: the settings.

    Raises:
        ValueError: there is no such class, its package is not installed, or it refuses an option.
    """
    dotted = SHORT_NAMES.get(config.name, config.name)
    module_name, _, class_name = dotted.rpartition(".")
    try:
        kind = getattr(importlib.import_module(module_name), class_name)
    except ModuleNotFoundError as error:
        raise ValueError(f"optimizer.name is {config.name!r}, but {error.name!r} is not installed: pip install it.") from error
    except (AttributeError, ValueError) as error:
        known = ", ".join(SHORT_NAMES)
        raise ValueError(f"optimizer.name is {config.name!r}: use {known} or a dotted name such as torch.optim.SGD.") from error
    if "lr" in config.options:
        raise ValueError("optimizer.options holds lr: set optimizer.learning_rate instead, which the schedule uses.")
    options = {"lr": config.learning_rate, **config.options}
    if "weight_decay" in inspect.signature(kind).parameters:
        options.setdefault("weight_decay", config.weight_decay)
    try:
        return kind(list(parameters), **options)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{dotted} refuses optimizer.options {dict(config.options)} ({error}): correct them.") from error


def require_resumable(config: OptimizerConfig, device: torch.device) -> None:
    """Refuse an optimizer that cannot step with gradients alone, or whose state no checkpoint could hold.

    It tries one step on a small matrix, so that a run fails at its start and not at its first checkpoint.

    Raises:
        ValueError: the message names the class.
    """
    probe = nn.Parameter(torch.ones(64, 64, device=device))  # bitsandbytes keeps smaller ones in full precision
    probe.grad = torch.full_like(probe, 0.01)
    optimizer = make_optimizer([probe], config)
    try:
        optimizer.step()
    except TypeError as error:
        raise ValueError(
            f"optimizer.name is {config.name!r}, whose step() needs more than gradients ({error}): use another, such as AdamW."
        ) from error
    optimizer_tensors(optimizer)


def learning_rate(config: OptimizerConfig, step: int, num_steps: int) -> float:
    """Return the learning rate of `step` (from 1) of `num_steps`: a linear warm-up, then constant or a cosine decay."""
    if step <= config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    if config.schedule is Schedule.CONSTANT:
        return config.learning_rate
    progress = (step - config.warmup_steps) / max(1, num_steps - config.warmup_steps)
    share = config.final_share + (1 - config.final_share) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return config.learning_rate * share


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the optimizer's state: its tensors, and everything else as metadata of a safetensors file.

    Raises:
        ValueError: the state holds something other than tensors and plain values, which cannot be restored.
    """
    state = optimizer.state_dict()
    tensors: dict[str, Tensor] = {}
    plain: dict[str, bool | int | float | str | None] = {}
    refusal = f"{type(optimizer).__name__} keeps {{}}, which cannot be saved: set optimizer.name to another one."
    for index, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{index}.{name}"] = value.detach().cpu().contiguous().clone()
            elif value is None or isinstance(value, bool | int | float | str):
                plain[f"{index}.{name}"] = value
            else:
                raise ValueError(refusal.format(f"{name} as {type(value).__name__}"))
    try:
        return tensors, {"plain": json.dumps(plain), "groups": json.dumps(state["param_groups"])}
    except TypeError as error:
        raise ValueError(refusal.format(f"group settings that are not plain values ({error})")) from error


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Restore the state that :func:`optimizer_tensors` returned."""
    state: dict[int, dict[str, object]] = {}
    for key, value in [*tensors.items(), *json.loads(metadata["plain"]).items()]:
        index, _, name = key.partition(".")
        state.setdefault(int(index), {})[name] = value
    groups = json.loads(metadata["groups"])
    for group, own in zip(groups, optimizer.param_groups, strict=True):
        for name, value in own.items():  # JSON turns tuples, such as betas, into lists
            if isinstance(value, tuple):
                group[name] = tuple(group[name])
    optimizer.load_state_dict({"state": state, "param_groups": groups})
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, values in state.items():  # PyTorch casts floating-point state to the parameter's dtype; keep the saved dtype
        for name, value in values.items():
            if isinstance(value, Tensor) and optimizer.state[parameters[index]][name].dtype != value.dtype:
                optimizer.state[parameters[index]][name] = value.to(parameters[index].device)
