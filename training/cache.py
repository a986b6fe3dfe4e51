"""Encode a dataset once, so that training only reads latents.

    python -m training.cache --config training/configs/film.toml data.folder=/data/clips [section.key=value ...] [--prune]

It scans every clip, draws windows, anchors and crops (see training/data/windows.py), and encodes them with ComfyUI's VAE,
text encoder and CLIP vision. Clips that cannot be used are skipped; the table at the end and `report.json` say why. It can be
killed at any moment and run again: finished examples stay, and damaged ones are found by their checksum, reported and encoded
again.
"""

import argparse
import sys
from pathlib import Path

from svi_core.out_of_memory import is_out_of_memory
from svi_core.systems.layouts import Condition
from training.data.build_cache import build_cache
from training.data.store import REPORT
from training.model.encoder_files import find_encoders
from training.settings.reader import load_config


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config", action="append", required=True, type=Path, help="TOML file; later files win over earlier ones"
    )
    parser.add_argument("--prune", action="store_true", help="remove entries that no configuration in the folder uses")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings, which win over the files")
    options = parser.parse_intermixed_args(arguments)
    try:
        config = load_config(options.config, options.overrides)
        files = find_encoders(config.model, with_sound=config.data.svi_layout.condition is Condition.SOUND)
        from training.model.encoders import WanEncoders  # starts ComfyUI, which takes seconds: --help must be quick

        report = build_cache(config.data, WanEncoders(files, config.data.vae_tile), options.prune, progress=True)
    except KeyboardInterrupt:
        sys.stderr.write("\nstopped; finished examples stay, run the same command to resume\n")
        return 130
    except (ValueError, OSError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_out_of_memory(error):
            raise
        sys.stderr.write(f"{error}\n")
        return 2
    sys.stdout.write(f"{report.summary()}\nfull report: {config.data.cache_folder / REPORT}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
