"""Wan 14B on a GPU, with random weights of the real shapes: kernels, loop, training step, the smallest card.

    python -m benchmarks.gpu.kernels          # matrix products, attention, VAE, transfers
    python -m benchmarks.gpu.loop             # three clips of four steps: ours, stock, diffusers
    python -m benchmarks.gpu.training_step    # our step, and one of diffusers and peft
    python -m benchmarks.gpu.smallest_card    # which cards are large enough

Each takes under 10 minutes on an H200, saves every figure at once and resumes after a stop. They run in the Python that starts
them, which must have ComfyUI's packages. `--shapes tiny --device cpu` runs the same code anywhere; its figures mean nothing.
README.md says how to run them on a machine that has only PyTorch.
"""
