"""Make many stories from one table.

    python -m batch run stories.csv --workflow workflow.json --output videos/ [--server http://127.0.0.1:8188]

Run it from this folder with the Python of your ComfyUI. Without `--server` a ComfyUI with the demo's tiny models is started,
in the environment of the demo, which is set up if it is missing. See docs/BATCH.md.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from batch.arguments import command_line

NEEDED = ("torch", "aiohttp", "av", "filelock", "PIL")  # ComfyUI's requirements bring them


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command in a Python that has what it needs; return the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = command_line().parse_args(arguments)
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if (missing or not options.server) and (code := _enter_environment(arguments, missing)):
        return code
    from batch import run

    return run.main(options)


def _enter_environment(arguments: Sequence[str], missing: Sequence[str]) -> int:
    """Go on in the environment of the demo, unless this is its Python; return an exit code if there is none."""
    try:
        from dev.environment import SetupError, ensure_environment, execute_inside
    except ModuleNotFoundError:  # the registry's archive has no dev/ and no demo models
        lacks = f"this Python lacks {', '.join(missing)}: run it with that of your ComfyUI" if missing else ""
        sys.stderr.write(f"[svi] error: {lacks or 'name your running ComfyUI: --server http://127.0.0.1:8188'}\n")
        return 2
    try:
        environment = ensure_environment()
    except SetupError as error:
        sys.stderr.write(f"[svi] error: {error}\n")
        return 1
    if Path(sys.prefix) != environment.python.parent.parent:
        execute_inside(environment, ["-m", "batch", *arguments])
    return 0


if __name__ == "__main__":
    sys.exit(main())
