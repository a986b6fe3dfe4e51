"""Each speed-up by itself, before and after, on CPU: what it saves, and how far its result deviates.

    python -m benchmarks.gains            # about five minutes
    python -m benchmarks.gains --quick    # small sizes: to see that it works

- Video files written beside sampling: three clips of 81 frames at 832 x 480. A sleep stands for sampling on a GPU;
  "before" waits for each file as soon as its frames are decoded.
- Self-attention kept for the backward pass: forward and backward of two checkpointed blocks, where attention is most of it.
- Weights and block inputs on the host: the GB for whose copy a step waits, counted.
- A LoRA's term scaled while it is narrow: one layer, forward and backward.
- What is rounded: a LoRA's gradients by products in fp8, and two of the drift report's measures, each against exact ones.
- A LoRA merged into fp8: the share of it that survives, rounded to nearest and stochastically as ComfyUI's Save Model does.

What only a GPU can show is in benchmarks.gpu, what the bank costs in benchmarks.bank, counts against stock in benchmarks.loop.
"""
