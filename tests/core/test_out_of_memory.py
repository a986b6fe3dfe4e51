import pytest
import torch

from svi_core.out_of_memory import explain_out_of_memory, is_out_of_memory

KINDS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    MemoryError(),
    RuntimeError(
        "[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
    ),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
    RuntimeError("MPS backend out of memory (MPS allocated: 1.00 GB)"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
]
OTHERS = [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory"), KeyboardInterrupt()]


@pytest.mark.parametrize("error", KINDS, ids=repr)
def test_every_kind_is_known_and_keeps_its_type_and_its_own_words(error):
    said = str(error)
    assert is_out_of_memory(error)
    with pytest.raises(type(error)) as caught, explain_out_of_memory("clip 3", "Use less."):
        raise error
    assert caught.value is error and str(error) == f"clip 3: memory ran out. Use less. ({said})"
    assert is_out_of_memory(error)


@pytest.mark.parametrize("error", OTHERS, ids=repr)
def test_other_errors_pass_unchanged(error):
    said = str(error)
    assert not is_out_of_memory(error)
    with pytest.raises(type(error)) as caught, explain_out_of_memory("clip 3", "Use less."):
        raise error
    assert str(caught.value) == said


def test_pytorch_s_own_allocator_is_known():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**50, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)
