"""Set up the environment and run the test suite in it: ``python -m tests [pytest's arguments]``, from the repository root.

Tests marked slow run only with ``--slow``: long campaigns, and full sweeps of which the suite otherwise runs a part.

Without a path among the arguments the suite is shared out to worker processes, whole files at a time, one for each core
and four at most; ``-n 0`` runs it in one process. With a path (``python -m tests tests/core``) there are no workers.
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from dev.environment import SetupError, ensure_environment, execute_inside, say

# tests/conftest.py says what goes together, and puts the rooms that take longest first, which --no-loadscope-reorder keeps.
WORKERS = ("-n", "logical", "--maxprocesses", "4", "--dist", "loadfile", "--no-loadscope-reorder")


def pytest_arguments(arguments: Sequence[str]) -> list[str]:
    """Return `arguments` for pytest, after those that share the tests out unless a path is among them."""
    names_a_path = any(Path(word.split("::")[0]).exists() for word in arguments if not word.startswith("-"))
    return [*(() if names_a_path else WORKERS), *arguments]


def main() -> int:
    """Run pytest in place of this process; return only if there is no environment to run it in."""
    try:
        environment = ensure_environment(["test"])
    except SetupError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the same command goes on from here")
        return 130
    # The models are tiny: more threads only get into each other's way, in pytest and in the servers that it starts.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    execute_inside(environment, ["-m", "pytest", *pytest_arguments(sys.argv[1:])])


if __name__ == "__main__":
    sys.exit(main())
