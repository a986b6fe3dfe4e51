"""What a clip and a training step hold in memory at least, and so which cards can do them: counted, no GPU needed.

    python -m benchmarks.memory

The real code runs at the real shapes of Wan 14B on tensors without numbers (PyTorch's meta device), and the bytes of those
that are alive together are counted. What kernels take for themselves, the driver and gaps between tensors are not in it, so
these are estimates; `python -m benchmarks.gpu.smallest_card` measures.
"""
