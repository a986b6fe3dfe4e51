"""Run tests on other ComfyUI trees and front ends, print a table, and write it into docs/COMPATIBILITY.md.

    make matrix COMFYUI="pinned ~/ComfyUI"                    # trees; the default is the pinned one alone
    make matrix COMFYUI=~/ComfyUI FRONT_ENDS="own newest"     # versions of comfyui-frontend-package, for the browser tests
    python -m dev.matrix ~/ComfyUI --rooms e2e -k resume      # a part; the table says how many tests were not run

Each tree gets an environment of its own in `.runtime/matrix/`, unless COMFYUI_PYTHON names a Python that has its packages.
Outcomes are recorded one by one in `.runtime/matrix/records/`, so a stopped command loses nothing, and parts add up to the
whole. Delete a record to begin it again. A run of the browser tests needs Chromium.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from comfyui.environment import clean_python_variables
from dev.comfyui_tree import check_comfyui, comfyui_version
from dev.commit import git
from dev.environment import Environment, ensure_environment
from dev.front_ends import NEWEST, installed_front_end
from dev.matrix.results import RECORD_VARIABLE, Case, Result, read_result
from dev.matrix.table import row_of, table_of, update_document
from dev.setup_files import REPOSITORY, Layout, SetupError, say

ROOMS = ("nodes", "e2e", "browser")
PINNED = "pinned"
OWN = "own"
DOCUMENT = REPOSITORY / "docs" / "COMPATIBILITY.md"
VERSIONS = (
    "import importlib.metadata as m, json, platform\n"
    "print(json.dumps([m.version('comfyui-frontend-package'), platform.python_version(), m.version('torch')]))"
)


@dataclass(frozen=True)
class Tree:
    """A ComfyUI tree with the environment that runs it, and their versions."""

    environment: Environment
    comfyui: str
    front_end: str
    python: str
    torch: str


def prepared_tree(wanted: str) -> Tree:
    """Return the tree of a command-line word, "pinned" or a path, after setting up its environment.

    Raises:
        SetupError: `wanted` is not a ComfyUI tree of a supported version, or its environment cannot be set up.
    """
    if wanted == PINNED:
        with _variables(COMFYUI_PATH=None, COMFYUI_PYTHON=None):
            environment = ensure_environment(["test"])
    else:
        path = check_comfyui(Path(wanted))
        digest = hashlib.sha256((path / "requirements.txt").read_bytes()).hexdigest()[:12]
        layout = Layout(runtime=Layout().runtime / "matrix" / digest)
        layout.runtime.mkdir(parents=True, exist_ok=True)
        with _variables(COMFYUI_PATH=str(path), COMFYUI_PYTHON=os.environ.get("COMFYUI_PYTHON")):
            environment = ensure_environment(["test"], layout)
    command = [str(environment.python), "-c", VERSIONS]
    told = subprocess.run(command, capture_output=True, text=True, check=True, env=clean_python_variables()).stdout
    return Tree(environment, _version(environment.comfyui), *json.loads(told))


def cases_of(tree: Tree, front_ends: Sequence[str]) -> Iterator[tuple[Case, Path | None]]:
    """Yield each room of tests of a tree with the folder of the front end to serve, None for the tree's own.

    Only the browser sees the front end, so the other rooms run with the tree's own.
    """
    for room in ROOMS:
        for wanted in front_ends if room == "browser" else [OWN]:
            version, folder = tree.front_end, None
            if wanted not in (OWN, tree.front_end):
                version, folder = installed_front_end(wanted, Layout(), tree.environment.python)
            yield Case(tree.comfyui, room, version, tree.python, tree.torch), folder


def run_tests(tree: Tree, case: Case, front_end: Path | None, record: Path, selection: str | None) -> bool:
    """Run the tests of a case, those of `selection` (pytest's -k) alone if it is given, and record their outcomes.

    Returns whether pytest came to its end and none of them failed: one that never ends leaves no outcome.

    Raises:
        SetupError: pytest ended without running the tests.
    """
    say(f"ComfyUI {case.comfyui}, front end {case.front_end}: tests/{case.room}{f' -k {selection!r}' if selection else ''}")
    record.parent.mkdir(parents=True, exist_ok=True)
    command = [str(tree.environment.python), "-m", "pytest", f"tests/{case.room}", "-q", "-p", "dev.matrix.recorder"]
    command += ["-k", selection] if selection else []
    served = {"COMFYUI_FRONT_END": "" if front_end is None else str(front_end)}
    chosen = {"COMFYUI_PATH": str(tree.environment.comfyui), "COMFYUI_PYTHON": str(tree.environment.python)}
    variables = {**clean_python_variables(), "OMP_NUM_THREADS": "1", **chosen, **served, RECORD_VARIABLE: str(record)}
    code = subprocess.run(command, cwd=REPOSITORY, env=variables, stdout=sys.stderr).returncode
    if code not in (0, 1) and not (selection and code == 5):  # 1: tests failed, as the table tells; 5: none was selected
        raise SetupError(f"pytest ended with {code} (its output is above): {' '.join(command)}")
    return code != 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the matrix; return 1 if a test of it fails or never ends, if all of a room are skipped, or if it cannot be run."""
    options = _parser().parse_args(arguments)
    results: dict[Case, Result | None] = {}
    good = True
    try:
        for tree in [prepared_tree(wanted) for wanted in options.trees]:
            for case, front_end in cases_of(tree, options.front_ends):
                record = Layout().runtime / "matrix" / "records" / case.record_name
                if case.room in options.rooms and case not in results:  # the newest front end may be the tree's own
                    good &= run_tests(tree, case, front_end, record, options.k)
                results[case] = result = read_result(record)
                if result is not None and result.outcomes and not result.tests("passed"):
                    say(f"no test of {case.room} passed on ComfyUI {case.comfyui}: see above why")
                    good = False
    except SetupError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted; what was tested is recorded. Run other parts with -k; `--rooms` without a name writes the table")
        return 130
    ran = {case: result for case, result in results.items() if result is not None and result.outcomes}
    update_document(DOCUMENT, ran)
    sys.stdout.write(table_of([row_of(case, result) for case, result in ran.items()]) + "\n")
    return int(not good or any(result.tests("failed") for result in ran.values()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dev.matrix", description="Run tests on other ComfyUI trees and front ends."
    )
    parser.add_argument(
        "trees", nargs="*", default=[PINNED], help=f"folders of ComfyUI, or {PINNED!r} for the one of make setup"
    )
    front_ends = f"versions of the front end for the browser tests: {OWN!r} (the tree's), {NEWEST!r}, or as 1.58.1"
    parser.add_argument("--front-ends", nargs="+", default=[OWN], metavar="VERSION", help=front_ends)
    parser.add_argument("--rooms", nargs="*", choices=ROOMS, default=list(ROOMS), help="run these only; with none only write")
    parser.add_argument("-k", metavar="EXPRESSION", help="run the tests that this selects, as pytest does")
    return parser


def _version(comfyui: Path) -> str:
    """Return the version of a ComfyUI tree, with its commit if it is a checkout: a version number names many commits."""
    version = comfyui_version(comfyui)
    commit = git(comfyui, "rev-parse", "--short", "HEAD") if (comfyui / ".git").exists() else None
    return f"{version} ({commit})" if commit else version


@contextlib.contextmanager
def _variables(**wanted: str | None) -> Iterator[None]:
    """Set environment variables, or unset those that are None, and restore them."""
    saved = {name: os.environ.pop(name, None) for name in wanted}
    os.environ.update({name: value for name, value in wanted.items() if value is not None})
    try:
        yield
    finally:
        for name, value in saved.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


if __name__ == "__main__":
    sys.exit(main())
