"""Find out before training whether error recycling is likely to help: chain the base on held-out clips, and judge.

    python -m training.diagnose --config training/configs/film.toml [section.key=value ...] [--output FOLDER]

It reads the cache of `python -m training.cache` and trains nothing. It prints what share of an error the base copies (gain),
how much of the true clips' contrast, detail, motion and colour is left in each clip of a chain, how large the base's errors
are, and a verdict with its reason. The run's folder, or FOLDER, gets diagnosis.json, and report.html with curves and frames.
The settings are in training/settings/diagnosis.py, for example diagnosis.num_clips=20. Six clips or more must be held out for a
verdict (data.held_out=8); that needs no new cache. The repository's DECISIONS.md says where its thresholds come from.
"""

import argparse
import logging
import sys
from pathlib import Path

from svi_core.out_of_memory import is_out_of_memory
from training.method.distributed import take_own_gpu


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config", action="append", required=True, type=Path, help="TOML file; later files win over earlier ones"
    )
    parser.add_argument("--output", type=Path, metavar="FOLDER", help="folder for the results instead of the run's")
    parser.add_argument("settings", nargs="*", metavar="section.key=value", help="settings, which win over the files")
    options = parser.parse_intermixed_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("training").setLevel(logging.INFO)
    take_own_gpu()
    try:
        from training.run import session  # imports ComfyUI, which takes seconds: --help must be quick

        session.diagnose_base(options.config, options.settings, options.output)
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped\n")
        return 130
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            raise
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
