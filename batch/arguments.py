"""The command line of ``python -m batch``; needs nothing but the standard library."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import NoReturn

from batch.tables.benchmarks import BENCHMARKS


class OneLineParser(argparse.ArgumentParser):
    """A parser with one-line errors."""

    def error(self, message: str) -> NoReturn:
        sys.stderr.write(f"[svi] error: {message}\n")
        sys.exit(2)


def command_line() -> argparse.ArgumentParser:
    """Return the parser; it exits with 2 on bad arguments."""
    parser = OneLineParser(prog="python -m batch", description="Make many stories from one table, and score them.")
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
    run.add_argument(
        "--ray",
        nargs="?",
        const="",
        metavar="ADDRESS",
        help="a ComfyUI on each GPU of a Ray cluster: of the one here, else of a new local one, or of that at ADDRESS",
    )
    run.add_argument("--check", action="store_true", help="only check everything, and make nothing")
    run.add_argument("--strict", action="store_true", help="make nothing if any story cannot be made")
    _add_table(commands.add_parser("table", help="make the table of a benchmark from a folder of images"))
    _add_score(commands.add_parser("score", help="measure the videos of a folder, and write a page to look at"))
    return parser


def _add_table(table: argparse.ArgumentParser) -> None:
    table.add_argument("benchmark", choices=list(BENCHMARKS), metavar="BENCHMARK", help=", ".join(BENCHMARKS))
    table.add_argument("images", type=_path, help="a folder of images, each with a .txt that says what it shows, if you like")
    table.add_argument("--output", type=_path, required=True, help="the table, a .jsonl file")
    table.add_argument("--samples", type=_number, default=0, help="stories (default: as many as in the paper)")
    table.add_argument("--clips", type=_number, default=0, help="clips of each video (default: as long as in the paper)")
    table.add_argument("--seed", type=int, default=0, help="of the first story; each further one adds 1")
    table.add_argument("--llm", metavar="URL", help="a language model writes the prompts: an OpenAI-compatible address")
    table.add_argument("--llm-model", metavar="NAME", help="the model there; its key, if any, is read from SVI_LLM_API_KEY")
    table.add_argument(
        "--llm-workflow",
        type=_path,
        metavar="FILE",
        help="--llm is a ComfyUI: a workflow of text nodes there with {instruction}",
    )
    table.add_argument("--llm-sees-images", action="store_true", help="show the image of each story to --llm-model")


def _add_score(score: argparse.ArgumentParser) -> None:
    score.add_argument("folder", type=_path, help="a folder of videos, such as the --output of a batch")
    score.add_argument("--output", type=_path, help="the folder of the report (default: scores/ in the folder of videos)")
    score.add_argument(
        "--clip-length",
        type=_number,
        default=0,
        help="frames that each clip adds, such as 80; the first has the rest (default: as recorded)",
    )
    score.add_argument("--references", type=_path, help="a folder of true videos of the same names, for PSNR, SSIM and FVD")
    score.add_argument(
        "--check-list", type=_path, help="the file that the report's page saved (default: check_list.json there)"
    )


def _number(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text) <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 to 100000")
    return int(text)


def _path(text: str) -> Path:
    return Path(text).expanduser()
