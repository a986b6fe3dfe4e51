"""Measurements that anyone can run again. Each folder with a __main__.py is one benchmark, one command:

    python -m benchmarks          # list them
    python -m benchmarks.loop     # run one

What they share: machine.py (what was measured on), results.py (kept after every measurement, so that a stopped benchmark goes
on where it was), server_run.py (one graph on a real ComfyUI, watched from outside), probe/ (counts inside of it), chart.py.
"""
