"""What the error bank costs a training step, at the size of real entries: draws and insertions in RAM and on disk; on CPU.

    python -m benchmarks.bank            # some minutes; 2.1 GB of memory, 3.3 GB of free disk
    python -m benchmarks.bank --quick    # few small entries: to see that it works

One grid cell is filled to its capacity, so every insertion looks for the most similar of all its entries, the dearest case.
A step is one draw of all three errors and one insertion, which the trainer makes in a thread beside the backward pass; here a
sleep stands for that pass, during which this process waits for the GPU. "Waited" is what a step is longer by: the draw, and
what of the insertion is left after the sleep. It is compared with the least time that an H200 needs for a bf16 training step of
Wan 14B with checkpointed blocks (docs/METHOD.md, 11.2), which no step can undercut.
"""
