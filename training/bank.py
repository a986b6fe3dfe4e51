"""Write a training run's error banks to one file: ``python -m training.bank RUN FILE``.

Another run draws its image errors from it with bank.image_errors_from=FILE, on another machine too. On one machine it can name
the run's folder instead.
"""

import argparse
import sys
from pathlib import Path


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="the run's folder; its newest checkpoint is read, also while it trains")
    parser.add_argument("file", type=Path, help="the safetensors file to write")
    options = parser.parse_args(arguments)
    try:
        from training.run.error_source import export_banks  # starts ComfyUI, which takes seconds: --help must be quick

        facts = export_banks(options.run, options.file)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{options.file}: errors of the {facts.expert} expert after step {facts.step}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
