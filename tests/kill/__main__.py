"""Kill runs and training runs at random moments, go on, and compare with what was never disturbed, bit for bit.

    python -m tests.kill                                   # six minutes: two for each kind
    python -m tests.kill run training --minutes 60         # the loop and the trainer on tiny models, half an hour each
    python -m tests.kill comfyui --seed 7                  # SVI Generate in a real ComfyUI process, which is killed
    python -m tests.kill run --seed 21 --rounds 1          # repeat a failure, as its message says

Finished clips and checkpoints keep their bytes, no finished clip is made again, and the last video and LoRA are those of an
undisturbed run. The test suite makes a few rounds of each kind.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dev.environment import SetupError, ensure_environment, execute_inside, say
from tests.fuzz.__main__ import refuse_bad_options

FOLDER = Path(__file__).parent
KINDS = {
    "run": [str(FOLDER / "test_run.py")],
    "training": [str(FOLDER / "test_training.py")],
    "comfyui": [f"{FOLDER.parent / 'e2e' / 'test_resume.py'}::test_runs_killed_at_any_moment_go_on_where_they_were"],
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run pytest in place of this process; return only if there is no environment to run it in."""
    options = _parse(arguments)
    try:
        environment = ensure_environment(["test"])
    except SetupError as error:
        say(f"error: {error}")
        return 1
    kinds = options.kinds or list(KINDS)
    minutes = 0.0 if options.rounds else options.minutes / len(kinds)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ |= {
        "SVI_KILL_SEED": str(options.seed),
        "SVI_KILL_MINUTES": str(minutes),
        "SVI_KILL_BY_TIME": "0" if options.commits_only else "1",
        "SVI_KILL_ROUNDS": str(options.rounds or 1),
    }
    execute_inside(
        environment,
        [
            "-m",
            "pytest",
            "-q",
            "-s",
            "--slow",
            "-o",
            "faulthandler_timeout=0",
            *(test for kind in kinds for test in KINDS[kind]),
        ],
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m tests.kill", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kinds", nargs="*", metavar="kind", help=f"of {', '.join(KINDS)}; all without any")
    parser.add_argument("--seed", type=int, default=14, help="of the first round; round k has seed + k")
    parser.add_argument("--minutes", type=float, default=6.0, help="for all kinds together")
    parser.add_argument("--rounds", type=int, help="of each test, 1 or more, instead of a time")
    parser.add_argument("--commits-only", action="store_true", help="kill at calls that change the folder, as the suite does")
    options = parser.parse_args(arguments)
    refuse_bad_options(parser, options, "rounds", options.kinds, "kind", KINDS)
    return options


if __name__ == "__main__":
    sys.exit(main())
