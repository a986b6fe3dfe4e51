"""Several processes as one: sum gradients, gather errors, agree on decisions. In a single process none of it does anything.

    torchrun --nproc-per-node 8 -m training.erft --config training/configs/film.toml

Source: docs/METHOD.md, 9.6 (gathering of errors in the warm-up), torch.distributed.
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as distributed
from torch import Tensor

MESSAGE_NUMBERS = 1 << 25  # 128 MiB of fp32: few messages, and little memory besides the gradients
TIMEOUT = timedelta(days=1)  # the others wait while the first process saves, or chains clips for a diagnosis, which takes hours


@dataclass(frozen=True)
class MeasuredError:
    """The model's error on one example of a step.

    Attributes:
        slot: place of the example in the step, over all processes.
        residual: [C, F, h, w] fp32, predicted velocity - target velocity.
        sigma: noise level at which it was measured.
        stored: whether the bank stores it.
    """

    slot: int
    residual: Tensor
    sigma: float
    stored: bool


@dataclass(frozen=True)
class Group:
    """The processes that train together.

    Attributes:
        rank: number of this process; process 0 writes all files but the banks.
        size: number of processes.
        device: device of the tensors that processes exchange.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def is_first(self) -> bool:
        """Whether this is process 0, the one that writes."""
        return self.rank == 0

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient by its sum over the processes."""
        if self.size == 1:
            return
        for gradients in _messages([parameter.grad for parameter in parameters if parameter.grad is not None]):
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            distributed.all_reduce(flat)
            for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def largest(self, *values: float) -> list[float]:
        """Return the maximum of each value over the processes."""
        return self._reduced(values, "MAX")

    def total(self, *values: float) -> list[float]:
        """Return the sum of each value over the processes."""
        return self._reduced(values, "SUM")

    def _reduced(self, values: Sequence[float], operation: str) -> list[float]:
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor, op=getattr(distributed.ReduceOp, operation))
        return tensor.tolist()

    def gather_errors(self, errors: Sequence[MeasuredError]) -> list[MeasuredError]:
        """Return the errors of all processes in the order of their slots. Every process must pass equally many."""
        if self.size == 1:
            return sorted(errors, key=lambda error: error.slot)
        facts = torch.tensor(
            [[error.slot, error.sigma, error.stored, *error.residual.shape] for error in errors],
            dtype=torch.float64,
            device=self.device,
        )
        all_facts = [torch.empty_like(facts) for _ in range(self.size)]
        distributed.all_gather(all_facts, facts)
        shapes = [[[int(side) for side in row[3:]] for row in rank.tolist()] for rank in all_facts]
        longest = max(torch.Size(shape).numel() for rank in shapes for shape in rank)
        values = torch.zeros(len(errors), longest, device=self.device)
        for row, error in zip(values, errors, strict=True):
            row[: error.residual.numel()] = error.residual.reshape(-1)
        all_values = [torch.empty_like(values) for _ in range(self.size)]
        distributed.all_gather(all_values, values)
        gathered = [
            MeasuredError(int(fact[0]), row[: torch.Size(shape).numel()].view(shape).cpu(), fact[1], bool(fact[2]))
            for rank_facts, rank_values, rank_shapes in zip(all_facts, all_values, shapes, strict=True)
            for fact, row, shape in zip(rank_facts.tolist(), rank_values, rank_shapes, strict=True)
        ]
        return sorted(gathered, key=lambda error: error.slot)

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.size > 1:
            distributed.barrier()

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1:
            distributed.destroy_process_group()


def _messages(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield `gradients` in order, in lists of at least MESSAGE_NUMBERS numbers each, except the last."""
    message, count = [], 0
    for gradient in gradients:
        message.append(gradient)
        count += gradient.numel()
        if count >= MESSAGE_NUMBERS:
            yield message
            message, count = [], 0
    if message:
        yield message


def take_own_gpu() -> None:
    """Make the GPU of torchrun's local rank the current GPU of this process.

    Call it before ComfyUI is imported: ComfyUI queries the current GPU's memory, which leaves some hundred MB allocated on it.
    """
    if "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def join_group() -> Group:
    """Return the group in which torchrun started this process, or a group of one. See :func:`take_own_gpu`."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Group()
    if torch.cuda.is_available():
        take_own_gpu()
        device = torch.device("cuda", torch.cuda.current_device())
        distributed.init_process_group("nccl", device_id=device, timeout=TIMEOUT)
    else:
        device = torch.device("cpu")
        distributed.init_process_group("gloo", timeout=TIMEOUT)
    return Group(distributed.get_rank(), size, device)
