"""Make a long video in a real ComfyUI on CPU, with the tiny models of this folder.

    python -m demo [--image PICTURE] [--prompts TEXT_FILE] [--clips N] [--seed S]

It needs Python 3.11 or newer and nothing else: it checks the arguments, sets up the environment, and continues there as
`demo.run`. Messages go to standard error; the last line of standard output is the path of the video, relative to the
repository.

Exit codes: 0 success; 1 failure; 2 bad arguments; 130 interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from batch.arguments import OneLineParser
from dev.environment import REPOSITORY, SetupError, ensure_environment, execute_inside, say

DEMO = REPOSITORY / "demo"
DEFAULT_PROMPTS = DEMO / "prompts.txt"
DEFAULT_CLIPS = 3
MAX_SEED = 2**53 - 1  # the largest whole number that ComfyUI's front end keeps exactly


def main(arguments: Sequence[str] | None = None) -> int:
    """Replace this process with `demo.run` in the environment; return an exit code if that fails."""
    options = argument_parser().parse_args(arguments)
    try:
        image = check_file(options.image or default_image(), "--image")
        prompts = check_prompts(options.prompts or DEFAULT_PROMPTS)
        environment = ensure_environment()
    except ValueError as error:
        say(f"error: {error}")
        return 2
    except SetupError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the same command resumes")
        return 130
    execute_inside(environment, ["-m", "demo.run", str(image), str(prompts), str(options.clips), str(options.seed)])


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line; it exits with 2 on bad arguments."""
    parser = OneLineParser(prog="python -m demo", description="Make a long video in a real ComfyUI on CPU.")
    parser.add_argument("--image", type=Path, help="the picture the video starts from (default: the first in demo/images)")
    parser.add_argument("--prompts", type=Path, help="a text file with one prompt per clip, separated by blank lines")
    parser.add_argument("--clips", type=num_clips, default=DEFAULT_CLIPS, help=f"how many (default: {DEFAULT_CLIPS})")
    parser.add_argument("--seed", type=seed, default=0, help="0 to 2^53 - 1 (default: 0)")
    return parser


def num_clips(text: str) -> int:
    """Return the number of clips. Raises ArgumentTypeError unless it is a whole number >= 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of clips: give a whole number from 1")
    return int(text)


def seed(text: str) -> int:
    """Return the seed. Raises ArgumentTypeError unless it is a whole number in 0 .. 2^53 - 1."""
    if not text.isdecimal() or int(text) > MAX_SEED:
        raise argparse.ArgumentTypeError(f"{text!r} is not a seed: give a whole number from 0 to {MAX_SEED}")
    return int(text)


def default_image() -> Path:
    """Return the first PNG of demo/images. Raises ValueError if there is none."""
    images = sorted((DEMO / "images").glob("*.png"))
    if not images:
        raise ValueError(f"{DEMO / 'images'} holds no PNG: is this a complete checkout? Or choose a picture with --image")
    return images[0]


def check_file(path: Path, option: str) -> Path:
    """Return the absolute `path`. Raises ValueError, naming the option, unless it is a readable file."""
    path = path.expanduser().absolute()
    try:
        with path.open("rb") as handle:
            if not handle.read(1):
                raise ValueError(f"{option} {path} is empty")
    except OSError as error:
        raise ValueError(f"{option} {path} cannot be read: {error.strerror}") from error
    return path


def check_prompts(path: Path) -> Path:
    """Return the absolute `path`. Raises ValueError if it is not UTF-8 text or holds no prompt."""
    path = check_file(path, "--prompts")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"--prompts {path} is not UTF-8 text: save it as UTF-8") from None
    if not any(line.strip() and not line.lstrip().startswith("#") for line in lines):
        raise ValueError(f"--prompts {path} holds no prompt: write one per clip, separated by blank lines")
    return path


if __name__ == "__main__":
    sys.exit(main())
