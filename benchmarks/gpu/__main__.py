"""List the GPU benchmarks: ``python -m benchmarks.gpu``."""

import sys

import benchmarks.gpu

if __name__ == "__main__":
    sys.stdout.write(benchmarks.gpu.__doc__)
