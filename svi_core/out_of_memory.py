"""Memory that runs out: known whatever library says it, and told with what was being made and what helps."""

from collections.abc import Generator
from contextlib import contextmanager

import torch

# CUDA and MPS; PyTorch's CPU allocator on Linux and on Windows; cuDNN and cuBLAS. None of these has a type of its own.
_SAID = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that memory of a device or of the machine ran out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _SAID)


@contextmanager
def explain_out_of_memory(what: str, remedy: str) -> Generator[None]:
    """Put `what` was made and the `remedy` in front of an out-of-memory error from the block.

    The error keeps its type, by which ComfyUI knows that models must be unloaded. Other errors pass through.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            error.args = (f"{what}: memory ran out. {remedy} ({error})",)
        raise
