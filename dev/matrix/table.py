"""The table of docs/COMPATIBILITY.md: a row for each room of tests, ComfyUI and front end."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from dev.matrix.results import Case, Result

COLUMNS = ("ComfyUI", "tests", "front end", "Python", "PyTorch", "commit", "date", "passed", "failed", "skipped", "not run")
HEADER = f"| {' | '.join(COLUMNS)} |"
_NUM_KEYS = 5  # the first columns, which are the fields of Case
Row = tuple[str, ...]


def row_of(case: Case, result: Result) -> Row:
    """Return the cells of a case; the names of failed tests are among them."""
    keys = (case.comfyui, case.room, case.front_end, case.python, case.torch)
    failed = sorted(test.removeprefix(f"tests/{case.room}/") for test in result.tests("failed"))
    names = "".join(f"<br>`{name}`" for name in failed)
    counts = (str(len(result.tests("passed"))), f"{len(failed)}{names}", str(len(result.tests("skipped"))))
    return (*keys, ", ".join(result.commits), result.date, *counts, str(result.num_tests - len(result.outcomes)))


def table_of(rows: list[Row]) -> str:
    """Return a Markdown table, the newest ComfyUI first."""
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in sorted(rows, key=_order)]
    return "\n".join([HEADER, f"|{'-|' * len(COLUMNS)}", *lines])


def updated(document: str, cases: Mapping[Case, Result]) -> str:
    """Return the document with the rows of `cases` in its table. Rows of other cases stay as they are.

    Raises:
        ValueError: the document has no table with these columns.
    """
    before, header, rest = document.partition(HEADER + "\n")
    if not header:
        raise ValueError(f"the document has no table that begins with {HEADER!r}: restore that line")
    lines = rest.splitlines(keepends=True)
    num_rows = next((number for number, line in enumerate(lines) if not line.startswith("|")), len(lines))
    rows = {row[:_NUM_KEYS]: row for row in map(_cells, lines[1:num_rows])}
    for case, result in cases.items():
        row = row_of(case, result)
        rows[row[:_NUM_KEYS]] = row
    return before + table_of(list(rows.values())) + "\n" + "".join(lines[num_rows:])


def update_document(path: Path, cases: Mapping[Case, Result]) -> None:
    """Write the rows of `cases` into the table of the document at `path`. Raises ValueError as :func:`updated` does."""
    path.write_text(updated(path.read_text(encoding="utf-8"), cases), encoding="utf-8")


def _cells(line: str) -> Row:
    return tuple(cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())[1:-1])


def _order(row: Row) -> tuple:
    version = [-int(number) for number in re.findall(r"\d+", row[0])[:3]]
    return version, row[1:2], [-int(number) for number in re.findall(r"\d+", row[2])], row
