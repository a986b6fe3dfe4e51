"""Set up the environment and run the test suite in it: ``python -m tests [pytest's arguments]``, from the repository root."""

import sys

from demo.environment import SetupError, ensure_environment, execute_inside, say


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
    execute_inside(environment, ["-m", "pytest", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
