"""The least memory of a clip and of a training step, and so which cards can do them: counted, no GPU needed.

    python -m benchmarks.memory

The real code runs at the real shapes of Wan 14B on tensors without numbers (PyTorch's meta device), and the bytes of those
that are alive together are counted. Workspace of kernels, the driver and gaps between tensors are not included, so these are
estimates; `python -m benchmarks.gpu --only "smallest card"` measures.
"""
