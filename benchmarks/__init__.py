"""Measurements that anyone can repeat.

Each folder with a __main__.py is one benchmark and one command:

    python -m benchmarks          # list them
    python -m benchmarks.loop     # run one

They share machine.py (the hardware and the commit), results.py (saves every measurement, so that a stopped benchmark
resumes), server_run.py (runs one graph on a real ComfyUI and watches it from outside), probe/ (counts inside it), chart.py.
"""
