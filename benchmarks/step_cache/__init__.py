"""What ComfyUI's EasyCache saves of 50 steps, and what it does to drift, with the demo's trained tiny models; on CPU.

    python -m benchmarks.step_cache    # three clips of two pictures, without it and with three thresholds

EasyCache goes behind each expert's ModelSamplingSD3, with its own defaults but for the threshold. Steps that it skips are read
from ComfyUI's log. Drift is that of SVI Drift Report, of the last clip against the first; "away" is the mean distance of all
frames from those of the run without it.
"""
