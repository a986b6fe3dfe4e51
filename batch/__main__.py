"""Make many stories from one table, and score them.

    python -m batch table consistent-50s photos/ --output stories.jsonl
    python -m batch run stories.jsonl --workflow workflow.json --output videos/ [--server http://127.0.0.1:8188]
    python -m batch score videos/

Run it from this folder with the Python of your ComfyUI. Without `--server`, in a clone of the repository only, it starts a
ComfyUI: yours if COMFYUI_PATH names it, else that of the demo with its tiny models, in an environment that is set up if it is
missing. See docs/BATCH.md.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Sequence

from batch.arguments import command_line
from batch.demo_environment import NoEnvironment, demo_environment, go_on_inside

# Each command's module, and the packages that it needs; ComfyUI's requirements bring them.
COMMANDS = {
    "run": ("batch.run", ("aiohttp", "av", "filelock", "PIL")),
    "table": ("batch.make_table", ()),
    "score": ("batch.score", ("torch", "av", "filelock", "PIL")),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command in a Python that has what it needs; return the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    options = command_line().parse_args(arguments)
    module, needed = COMMANDS[options.command]
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    starts_server = options.command == "run" and not options.server
    if missing and not starts_server:
        sys.stderr.write(f"[svi] error: this Python lacks {', '.join(missing)}: run it with that of your ComfyUI\n")
        return 2
    if starts_server:
        try:
            go_on_inside(demo_environment(), arguments)
        except NoEnvironment as error:
            sys.stderr.write(f"[svi] error: {error}\n")
            return 2
    return importlib.import_module(module).main(options)  # it alone, and not PyTorch: a start of a second, not of six


if __name__ == "__main__":
    sys.exit(main())
