"""A stage whose ComfyUI manages the card's memory dynamically: comfy-aimdo must be there before PyTorch is.

Otherwise as :mod:`benchmarks.gpu.stage_process`.
"""

import sys

import comfy_aimdo.control

if __name__ == "__main__":
    comfy_aimdo.control.init(nvml_pressure=True)
    from benchmarks.gpu.stage_process import main

    sys.exit(main(sys.argv[1:]))
