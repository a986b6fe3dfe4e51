"""Error-Recycling Fine-Tuning: train a LoRA for a Wan image-to-video model that corrects its own errors.

    python -m training.cache --config training/configs/film.toml                      # encode the clips, once
    python -m training.erft --config training/configs/film.toml --dry-run             # time, memory, first batch as a picture
    python -m training.erft --config training/configs/film.toml --dry-run --diagnose  # and whether it is likely to help
    python -m training.erft --config training/configs/film.toml run=runs/mine         # train
    python -m training.erft --resume runs/mine                                        # resume, bit for bit
    torchrun --nproc-per-node 8 -m training.erft --config training/configs/film.toml  # on eight GPUs

All settings are explained in training/settings/ (sections.py, data.py, lora.py). Each can be given as section.key=value.
Several --config files add up; later files win over earlier ones.
Ctrl-C, SIGTERM or a file called stop in the run's folder: the run saves a checkpoint and ends. Under torchrun prefer the file,
`touch runs/mine/stop`: torchrun passes a signal on, but kills processes that are still saving 30 seconds later. Earlier
checkpoints stay.
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
    try:
        from training.run import session  # imports ComfyUI, which uses the GPU that is the current one at that moment

        return session.run_command(
            options.config, options.settings, options.resume, options.dry_run, with_diagnosis=options.diagnose
        )
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped without saving; --resume continues from the last checkpoint\n")
        return 130
    except (ValueError, OSError, RuntimeError, MemoryError) as error:
        expected = not isinstance(error, RuntimeError) or isinstance(error, TrainingStopped) or is_out_of_memory(error)
        if not expected:
            raise
        sys.stderr.write(f"{error}\n")
        return 2


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config", type=Path, action="append", default=[], help="TOML file; later files win over earlier ones")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="resume the run in this folder")
    parser.add_argument(
        "--dry-run", action="store_true", help="describe the run, measure one step, draw the first batch, and end"
    )
    parser.add_argument("--diagnose", action="store_true", help="at the end of --dry-run, do what training.diagnose does")
    parser.add_argument("settings", nargs="*", metavar="section.key=value", help="settings, which win over the files")
    options = parser.parse_intermixed_args(arguments)
    if not options.config and options.resume is None:
        parser.error("give --config FILE to start a run, or --resume RUN to resume one")
    if options.diagnose and not options.dry_run:
        parser.error("--diagnose comes after --dry-run; during training set diagnosis.every to a number of steps")
    if options.diagnose and options.resume is not None:
        parser.error("--diagnose measures the model before its training: give --config, not --resume")
    return options


if __name__ == "__main__":
    sys.exit(main())
