"""The command line of ``python -m batch``; needs nothing but the standard library."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn


class OneLineParser(argparse.ArgumentParser):
    """A parser with one-line errors."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"[svi] error: {message}\n")
        sys.exit(2)


def command_line() -> argparse.ArgumentParser:
    """Return the parser; it exits with 2 on bad arguments."""
    parser = OneLineParser(prog="python -m batch", description="Make many stories from one table.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="make the videos of a table")
    run.add_argument("table", type=_path, help="a CSV or JSONL file, or a folder of images with a .txt of prompts for each")
    run.add_argument("--workflow", type=_path, required=True, help="a workflow of ComfyUI, as saved or as Export (API)")
    run.add_argument("--output", type=_path, required=True, help="the folder of the videos; the same command goes on there")
    run.add_argument(
        "--server",
        action="append",
        default=[],
        metavar="URL",
        help="a running ComfyUI, may be given often; without any, one is started",
    )
    run.add_argument(
        "--models", type=_path, action="append", default=[], help="without --server: a folder like ComfyUI's models"
    )
    run.add_argument("--check", action="store_true", help="only check everything, and make nothing")
    run.add_argument("--strict", action="store_true", help="make nothing if any story cannot be made")
    return parser


def _path(text: str) -> Path:
    return Path(text).expanduser()
