"""What the pack adds to ComfyUI's start: the time to import it, in processes that hold ComfyUI's core already.

    python -m benchmarks.startup            # 7 processes, about two minutes on a quiet machine
    python -m benchmarks.startup --quick    # one process, to see that it works

CPU time is the figure to compare; wall time means little on a busy machine. Python's bytecode files exist, as at every start
but the first: one process more than those that count writes them.
"""
