"""Wan 14B on a GPU, with random weights of the real shapes: everything worth knowing, in order of worth, in one command.

    python -m benchmarks.gpu --plan          # the stages, with computed seconds for this card
    python -m benchmarks.gpu --minutes 9     # what fits into nine minutes; the same command goes on where it stopped
    python -m benchmarks.gpu --only loop     # some stages

Each stage has a time limit of its own; stages that follow each other share a process, since each start costs 12 s. After every
row the figures, tables and plots in --output are whole; a row whose result is not finite is a failure, not a figure. It runs in
the Python that starts it, which must have ComfyUI's packages. `--shapes tiny --device cpu` runs the same code anywhere; its
figures mean nothing. README.md says how to run it on a machine that has only PyTorch.
"""
