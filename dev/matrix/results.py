"""What a room of tests gave on one ComfyUI and front end, read from the record of one or several runs."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RECORD_VARIABLE = "SVI_MATRIX_RECORD"  # names the file that a run of pytest records its outcomes in


@dataclass(frozen=True)
class Case:
    """A room of tests in one environment: the columns that tell rows of the table apart.

    Attributes:
        comfyui: ComfyUI's version, with its commit where the tree is a checkout.
        room: nodes, e2e or browser.
        front_end: the version of comfyui-frontend-package.
        python: Python's version.
        torch: PyTorch's version.
    """

    comfyui: str
    room: str
    front_end: str
    python: str
    torch: str

    @property
    def record_name(self) -> str:
        """The name of the file that records its runs."""
        return f"{self.comfyui}-{self.room}-{self.front_end}-{self.python}-{self.torch}.jsonl".replace(" ", "-")


@dataclass(frozen=True)
class Result:
    """The last outcome of each test of a room.

    Attributes:
        outcomes: "passed", "failed" or "skipped" by test; without those that have not run.
        num_tests: how many tests the room has.
        commits: the commits of the pack whose outcomes stand, oldest first.
        date: the day of the last of them, as 2026-11-30.
    """

    outcomes: dict[str, str]
    num_tests: int
    commits: tuple[str, ...]
    date: str

    def tests(self, outcome: str) -> list[str]:
        """Return the tests with this outcome."""
        return [test for test, found in self.outcomes.items() if found == outcome]


def read_result(record: Path) -> Result | None:
    """Return what the runs of a record gave together; None if none has begun.

    A later outcome replaces an earlier one. Tests that the last run did not find any more are left out.
    """
    runs: list[dict[str, Any]] = []
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for line in _lines(record):
        if "tests" in line:
            runs.append(line)
            found = {test: found[test] for test in line["tests"] if test in found}
        elif runs:
            found[line["test"]] = (line["outcome"], runs[-1])
    if not runs:
        return None
    standing = [run for run in runs if any(told_by is run for _, told_by in found.values())]
    commits = tuple(dict.fromkeys(run["commit"] for run in standing))
    outcomes = {test: outcome for test, (outcome, _) in found.items()}
    return Result(outcomes, len(runs[-1]["tests"]), commits, (standing or runs)[-1]["date"])


def _lines(record: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole lines of a record; the last one of a killed run may be cut short, and does not count."""
    if record.is_file():
        for line in record.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError):
                yield json.loads(line)
