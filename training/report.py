"""Write the report of a training run, while it runs or later: ``python -m training.report RUN``."""

import argparse
import sys
from pathlib import Path

from training.run.report import write_report


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the run's folder")
    options = parser.parse_args(arguments)
    try:
        path = write_report(options.run)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
