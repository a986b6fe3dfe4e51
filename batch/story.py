"""A story: one row of the table, which becomes one video."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FIELDS = ("image", "prompts", "layout", "clips", "seed", "sound", "pose")
PROMPTS_FILE = "prompts_file"
WORKFLOW = "workflow"  # in place of that of the command


@dataclass(frozen=True)
class Place:
    """Where something stands in the table, for messages."""

    file: str
    line: int
    column: int = 0  # from 1; 0: the whole row
    name: str = ""  # of the column

    def __str__(self) -> str:
        if not self.line:
            return self.file
        return f"{self.file}, line {self.line}" + (f", column {self.column} ({self.name})" if self.column else "")


@dataclass(frozen=True)
class Cell:
    """A value of a row; text in a CSV file, typed in a JSONL file."""

    value: object
    place: Place


@dataclass(frozen=True)
class Problem:
    """Why a story cannot be made, before it was tried."""

    story: str
    place: Place
    message: str

    def __str__(self) -> str:
        return f"{self.place}: {self.message}"


class StoryError(ValueError):
    """A story cannot be made as its row says."""

    def __init__(self, story: str, place: Place, message: str) -> None:
        super().__init__(f"{place}: {message}")
        self.problem = Problem(story, place, message)


@dataclass(frozen=True)
class Story:
    """One row of the table.

    Attributes:
        name: of its video; unique, and a valid file name.
        cells: column -> value, without empty cells; the columns are FIELDS, WORKFLOW and `node.widget`.
        folder: relative paths are relative to it.
    """

    name: str
    place: Place
    cells: Mapping[str, Cell]
    folder: Path

    def error(self, column: str, message: str) -> StoryError:
        """Return the error that `message` is about a cell, or about the whole row if there is no such cell."""
        return StoryError(self.name, self.cells[column].place if column in self.cells else self.place, message)

    @property
    def workflow(self) -> Path | None:
        """The workflow that the row names, if any."""
        return self.path(self.cells[WORKFLOW].value) if WORKFLOW in self.cells else None

    def path(self, value: object) -> Path:
        """Return the absolute path of a file that a cell names."""
        return (self.folder / Path(str(value)).expanduser()).absolute()
