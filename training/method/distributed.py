"""Several processes as one: gradients are summed, errors gathered, decisions shared. Alone, all of it does nothing.

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

MESSAGE_NUMBERS = 1 << 25  # 128 MiB of fp32: few messages, and little memory beside the gradients
PATIENCE = timedelta(hours=1)  # the others wait while the first process makes a sample video or saves


@dataclass(frozen=True)
class MeasuredError:
    """What one example of a step adds to the bank.

    Attributes:
        slot: place of the example in the step, over all processes.
        residual: [C, F, h, w], fp32.
        sigma: noise level it was measured at.
        stored: whether the bank takes it.
    """

    slot: int
    residual: Tensor
    sigma: float
    stored: bool


@dataclass(frozen=True)
class Group:
    """The processes that train together.

    Attributes:
        rank: number of this one; 0 writes.
        size: how many they are.
        device: where tensors must lie to be sent.
    """

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient by its sum over the processes, in messages of some megabytes."""
        if self.size == 1:
            return
        for gradients in _messages([parameter.grad for parameter in parameters if parameter.grad is not None]):
            flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
            distributed.all_reduce(flat)
            for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
                gradient.copy_(part.view_as(gradient))

    def largest(self, *values: float) -> list[float]:
        """Return the largest of each value over the processes."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor, op=distributed.ReduceOp.MAX)
        return tensor.tolist()

    def total(self, *values: float) -> list[float]:
        """Return the sum of each value over the processes."""
        if self.size == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(tensor)
        return tensor.tolist()

    def gather_errors(self, errors: Sequence[MeasuredError]) -> list[MeasuredError]:
        """Return the errors of all processes, in the order of their slots. Every process must give equally many."""
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
        """Wait until all processes are here."""
        if self.size > 1:
            distributed.barrier()

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1:
            distributed.destroy_process_group()


def _messages(gradients: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Yield `gradients` in order, as many at a time as make a message of about MESSAGE_NUMBERS."""
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
    """Make the GPU of torchrun's local rank the current one of this process.

    Call it before ComfyUI is imported: that asks the current GPU for its memory, and leaves some hundred MB on it.
    """
    if "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def join_group() -> Group:
    """Return the group that torchrun started this process in, or a group of one; see :func:`take_own_gpu`."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return Group()
    if torch.cuda.is_available():
        take_own_gpu()
        device = torch.device("cuda", torch.cuda.current_device())
        distributed.init_process_group("nccl", device_id=device, timeout=PATIENCE)
    else:
        device = torch.device("cpu")
        distributed.init_process_group("gloo", timeout=PATIENCE)
    return Group(distributed.get_rank(), size, device)
