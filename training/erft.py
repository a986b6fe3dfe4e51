"""Error-Recycling Fine-Tuning of a Wan image-to-video model: a LoRA that mends its own errors.

    python -m training.cache --config training/configs/film.toml                      # encode the clips, once
    python -m training.erft --config training/configs/film.toml --dry-run             # plan, memory, first batch as a picture
    python -m training.erft --config training/configs/film.toml run=runs/mine         # train
    python -m training.erft --resume runs/mine                                        # go on, bit for bit
    torchrun --nproc-per-node 8 -m training.erft --config training/configs/film.toml  # on eight GPUs

Settings: training/settings.py; each can be given as section.key=value. Several --config files add up, the later ones win.
Ctrl-C, SIGTERM or a file called stop in the run's folder saves a checkpoint and ends. Under torchrun prefer the file,
`touch runs/mine/stop`: torchrun passes a signal on to its processes, but kills those that still save 30 seconds later (what was
saved before stays).
Source: SVI (arXiv:2510.09212), Sec. 4, Eq. 3-6; docs/METHOD.md, 9 (released trainer).
"""

import argparse
import logging
import sys
from pathlib import Path

from svi_core.out_of_memory import is_out_of_memory
from training.method.distributed import take_own_gpu
from training.method.erft_step import TrainingStopped


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("training").setLevel(logging.INFO)
    take_own_gpu()
    from training.run import session  # it imports ComfyUI, which settles on a GPU then

    try:
        return session.run_command(options.config, options.settings, options.resume, options.dry_run)
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped at once; --resume goes on from the last checkpoint\n")
        return 130
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        expected = not isinstance(error, RuntimeError) or isinstance(error, TrainingStopped) or is_out_of_memory(error)
        if not expected:
            raise
        sys.stderr.write(f"{error}\n")
        return 2


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, action="append", default=[], help="TOML file; several add up, later ones win")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with the run in this folder")
    parser.add_argument(
        "--dry-run", action="store_true", help="print the plan, measure one step, draw the first batch, and end"
    )
    parser.add_argument("settings", nargs="*", metavar="section.key=value", help="settings, which win over the files")
    options = parser.parse_intermixed_args(arguments)
    if not options.config and options.resume is None:
        parser.error("give --config FILE to begin a run, or --resume RUN to go on with one")
    return options


if __name__ == "__main__":
    sys.exit(main())
