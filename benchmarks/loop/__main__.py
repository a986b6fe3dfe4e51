"""Check the arguments, set up the environment, and measure in it: ``python -m benchmarks.loop``."""

import argparse
import os
import sys
from pathlib import Path

from dev.environment import REPOSITORY, SetupError, ensure_environment, execute_inside, say

OUTPUT = REPOSITORY / ".runtime" / "benchmarks"


def main() -> int:
    """Replace this process by the measurements; return only if there is no environment for them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.loop", description="Our loop against stock nodes, on CPU.")
    parser.add_argument(
        "--output", type=Path, default=OUTPUT, help=f"folder of loop.json, loop.md, loop.png (default: {OUTPUT})"
    )
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter runs: to see that it works, not to publish")
    options = parser.parse_args()
    flags = [name for name in ("fresh", "quick") if getattr(options, name)]
    os.environ["OMP_NUM_THREADS"] = "1"  # for the server too
    try:
        environment = ensure_environment()
    except SetupError as error:
        say(f"error: {error}")
        return 1
    execute_inside(environment, ["-m", "benchmarks.loop.measure", str(options.output.absolute()), *flags])


if __name__ == "__main__":
    sys.exit(main())
