"""Feed the pack odd and damaged input, and check what it makes of it.

    python -m tests.fuzz                                  # two minutes over all families, as in the test suite
    python -m tests.fuzz prompts videos --minutes 30      # two families, fifteen minutes each
    python -m tests.fuzz --minutes 60 --seed 7            # other examples
    python -m tests.fuzz panel --seed 21 --batches 1      # repeat a failure, as its message says

A family is a file test_<family>.py in this folder: a strategy that makes examples, and an oracle. Each example must give what
it says, or be refused in one sentence, in bounded time. Examples follow from the seed alone. A campaign by time that checks too
few examples, or sees only one kind of outcome, fails; with --batches only a wrong outcome does, since a few may be of one kind.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dev.environment import SetupError, ensure_environment, execute_inside, say

FOLDER = Path(__file__).parent
FAMILIES = sorted(path.stem.removeprefix("test_") for path in FOLDER.glob("test_*.py"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run pytest on the families in place of this process; return only if there is no environment to run it in."""
    options = _parse(arguments)
    try:
        environment = ensure_environment(["test"])
    except SetupError as error:
        say(f"error: {error}")
        return 1
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["SVI_FUZZ_SEED"], os.environ["SVI_FUZZ_MINUTES"] = str(options.seed), str(options.minutes)
    os.environ["SVI_FUZZ_BATCHES"] = str(options.batches or 0)
    files = [FOLDER / f"test_{family}.py" for family in options.families or FAMILIES]
    execute_inside(environment, ["-m", "pytest", "-q", "-s", "-o", "faulthandler_timeout=0", *map(str, files)])


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", nargs="*", metavar="family", help=f"of {', '.join(FAMILIES)}; all without any")
    parser.add_argument("--seed", type=int, default=14, help="of the first batch; batch k has seed + k")
    parser.add_argument("--minutes", type=float, default=2.0, help="for all families together")
    parser.add_argument("--batches", type=int, help="for each test, 1 or more, instead of a time")
    options = parser.parse_args(arguments)
    refuse_bad_options(parser, options, "batches", options.families, "family", FAMILIES)
    return options


def refuse_bad_options(parser: argparse.ArgumentParser, options: argparse.Namespace, counted: str, chosen, kind: str, known):
    """End the program with a message if it would examine nothing, or a name in `chosen` is no `kind` of `known`."""
    count = getattr(options, counted)
    if count is not None and count < 1:
        parser.error(f"--{counted} is {count}, which examines nothing: use 1 or more")
    if not options.minutes > 0:
        parser.error(f"--minutes is {options.minutes:g}, which is no time: use more than 0")
    unknown = [name for name in chosen if name not in known]
    if unknown:
        parser.error(f"there is no {kind} {unknown[0]!r}: choose from {', '.join(known)}")


if __name__ == "__main__":
    sys.exit(main())
