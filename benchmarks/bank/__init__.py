"""What the error bank costs a training step: draws and insertions of real-size entries, in RAM and on disk; on CPU.

    python -m benchmarks.bank            # some minutes; 2.1 GB of memory, 3.3 GB of free disk
    python -m benchmarks.bank --quick    # few small entries: to see that it works

One grid cell is filled to its capacity, so every insertion searches all its entries for the most similar one, the worst case.
A step is one draw of all three errors and one insertion, which the trainer makes in a thread during the backward pass; here a
sleep stands for that pass. "Waited" is the time added to a step: the draw, and the part of the insertion that outlasts the
sleep. It is compared with the lower bound for a bf16 training step of Wan 14B with checkpointed blocks on an H200
(docs/METHOD.md, 11.2).
"""
