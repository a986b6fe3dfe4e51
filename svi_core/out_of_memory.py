"""Recognise out-of-memory errors of every library, and explain them: what was being made, and what helps."""

from collections.abc import Generator
from contextlib import contextmanager

import torch

# CUDA and MPS; PyTorch's CPU allocator on Linux and on Windows; cuDNN and cuBLAS. None of these has its own error type.
_PHRASES = ("out of memory", "can't allocate memory", "not enough memory", "alloc_failed")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` means that a device or the machine ran out of memory."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _PHRASES)


@contextmanager
def explain_out_of_memory(what: str, remedy: str) -> Generator[None]:
    """Prefix an out-of-memory error from the block with `what` was being made, and add the `remedy`.

    The error keeps its type, by which ComfyUI knows to unload models. Other errors pass through.
    """
    try:
        yield
    except Exception as error:
        if is_out_of_memory(error):
            error.args = (f"{what}: memory ran out. {remedy} ({error})",)
        raise
