"""What a GPU takes for Wan 14B, on random weights of the real shapes: kernels, loop, training step, the smallest card.

    python -m benchmarks.gpu.kernels          # matrix products, attention, VAE, transfers
    python -m benchmarks.gpu.loop             # three clips of four steps: ours, stock, diffusers
    python -m benchmarks.gpu.training_step    # our step, and one of diffusers and peft
    python -m benchmarks.gpu.smallest_card    # which cards are large enough

Each is meant to take under 10 minutes on an H200, keeps every figure as it is made and goes on where it was stopped. They run
in the Python that starts them, which must be one that ComfyUI runs in. `--shapes tiny --device cpu` runs the same code
anywhere; its figures mean nothing. README.md says how to run them on a machine that has nothing but PyTorch.
"""
