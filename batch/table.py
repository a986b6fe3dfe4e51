"""Read stories from a CSV or JSONL file, or from a folder of images with a text of prompts for each.

A file that cannot be read as a table is an error. A row that cannot be made is a problem: it is named, and the others stay.
"""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from batch.story import FIELDS, PROMPTS_FILE, WORKFLOW, Cell, Place, Problem, Story, StoryError
from svi_core.files.output_folder import MAX_NAME_BYTES, is_file_name
from svi_core.files.strict_json import parse_json
from svi_core.files.text_file import read_text

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tiff", ".gif")
_WHOLE_NUMBERS = {"clips": 1, "seed": 0}  # the smallest of each
_DELIMITERS = ",;\t"

Row = tuple[Place, Mapping[str, Cell]]


def read_table(path: Path) -> tuple[list[Story], list[Problem]]:
    """Return the stories of a table, and what is wrong with its other rows.

    Raises:
        ValueError: `path` is no table: it cannot be read, its header is wrong, or it holds no row.
    """
    if path.is_dir():
        rows: Iterable[Row | Problem] = _rows_of_folder(path)
    elif path.suffix.lower() in (".jsonl", ".ndjson"):
        rows = _rows_of_jsonl(path)
    else:
        rows = _rows_of_csv(path)
    folder = path if path.is_dir() else path.parent
    stories: list[Story] = []
    problems: list[Problem] = []
    names: dict[str, Place] = {}
    for number, row in enumerate(rows, start=1):
        if isinstance(row, Problem):
            problems.append(row)
            continue
        try:
            stories.append(_story(*row, folder.absolute(), number, names))
        except StoryError as error:
            problems.append(error.problem)
    if not stories and not problems:
        raise ValueError(f"{path} holds no story")
    return stories, list(_told_apart(problems, {story.name for story in stories}))


def _told_apart(problems: Iterable[Problem], names: set[str]) -> Iterator[Problem]:
    """Yield `problems`, each under a name of its own, so that a list of stories has an entry for every row."""
    for problem in problems:
        name = problem.story
        if not name or name in names:
            name = f"{name} (line {problem.place.line})".strip() if problem.place.line else problem.place.file
        names.add(name)
        yield replace(problem, story=name)


def _story(place: Place, cells: Mapping[str, Cell], folder: Path, number: int, names: dict[str, Place]) -> Story:
    """Return the story of a row, and note its name in `names`. Raises StoryError."""
    draft = Story("", place, {name: cell for name, cell in cells.items() if name != "name"}, folder)
    name = str(cells["name"].value) if "name" in cells else _unused_name(draft, number, names)
    story = replace(draft, name=name)
    place_of_name = cells["name"].place if "name" in cells else place
    if not is_file_name(name) or "%" in name:  # to ComfyUI % begins a date or a widget
        rule = f"use letters, digits, - and _, at most {MAX_NAME_BYTES} bytes"
        raise StoryError(name, place_of_name, f"{name[:80]!r} cannot name a file on every system: {rule}")
    earlier = names.setdefault(_as_on_disk(name), place)
    if earlier is not place:
        raise StoryError(name, place_of_name, f"the name {name!r} is that of {earlier} already: choose another")
    for column, smallest in _WHOLE_NUMBERS.items():
        _require_whole_number(story, column, smallest)
    return _with_prompts(story)


def _as_on_disk(name: str) -> str:
    """Return what is the same for names that mean one file on some system."""
    return unicodedata.normalize("NFC", name).casefold()


def _unused_name(draft: Story, number: int, names: Mapping[str, Place]) -> str:
    stem = Path(str(draft.cells["image"].value)).stem if "image" in draft.cells else f"story-{number}"
    return next(name for name in (stem, *(f"{stem}-{n}" for n in range(2, number + 2))) if _as_on_disk(name) not in names)


def _require_whole_number(story: Story, column: str, smallest: int) -> None:
    value = story.cells[column].value if column in story.cells else smallest
    text = str(value).strip()
    if isinstance(value, bool) or not (text.isascii() and text.isdecimal()) or not smallest <= int(text) < 1 << 53:
        raise story.error(column, f"{str(value)[:40]!r} is no whole number from {smallest} on")


def _with_prompts(story: Story) -> Story:
    """Return the story with the text of its prompts: that of the cell, of the file, or of the list of prompts."""
    cells = dict(story.cells)
    if PROMPTS_FILE in cells:
        if "prompts" in cells:
            raise story.error(PROMPTS_FILE, f"the row has both prompts and {PROMPTS_FILE}: leave one empty")
        file = cells.pop(PROMPTS_FILE)
        try:
            cells["prompts"] = Cell(read_text(story.path(file.value)), file.place)
        except ValueError as error:
            raise story.error(PROMPTS_FILE, str(error)) from error
    prompts = cells.get("prompts")
    if prompts is not None and isinstance(prompts.value, list):
        if not all(isinstance(prompt, str) and prompt.strip() for prompt in prompts.value):
            raise story.error("prompts", "a list of prompts must hold texts only, none of them empty")
        cells["prompts"] = replace(prompts, value="\n\n".join(prompts.value))
    return replace(story, cells=cells)


# -------------------------------------------------------------------------------------------------------------- CSV


def _rows_of_csv(path: Path) -> Iterator[Row | Problem]:
    text = read_text(path)
    if "\0" in text:
        raise ValueError(f"{path} holds a zero byte, so it is no CSV file: save the table as CSV, UTF-8")
    first = text.lstrip("\r\n").split("\n", 1)[0]
    delimiter = max(_DELIMITERS, key=first.count)
    reader = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    header: list[str] = []
    start = 1
    try:
        for row in reader:
            if not header:
                header = _without_empty_ends([name.strip() for name in row])
                _check_header(header, path, start)
            elif any(cell.strip() for cell in row):
                yield _csv_row(path, start, header, row)
            start = reader.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}, line {start}: {error}: correct the quotes of this row, which may end lines below") from error


def _without_empty_ends(header: list[str]) -> list[str]:
    """Return a header without the empty cells at its end, which spreadsheets write."""
    while header and not header[-1]:
        header.pop()
    return header


def _check_header(header: list[str], path: Path, line: int) -> None:
    for column, name in enumerate(header, start=1):
        place = f"{path}, line {line}, column {column}"
        if name in header[: column - 1]:
            raise ValueError(f"{place}: the column {name!r} is there twice: name each once")
        if complaint := _complaint_of_column(name):
            raise ValueError(f"{place}: {complaint}")


def _complaint_of_column(name: str) -> str:
    """Return what is wrong with the name of a column, or "". Whether a workflow has `node.widget` is seen later."""
    if name in ("name", PROMPTS_FILE, WORKFLOW, *FIELDS) or "." in name.strip("."):
        return ""
    known = ", ".join(("name", *FIELDS, PROMPTS_FILE, WORKFLOW))
    return f"there is no column {name!r}: use {known}, or node.widget for any widget of the workflow"


def _csv_row(path: Path, line: int, header: list[str], row: list[str]) -> Row | Problem:
    place = Place(str(path), line)
    if len(row) > len(header) and any(cell.strip() for cell in row[len(header) :]):
        excess = replace(place, column=len(header) + 1, name="without a name")
        name = row[header.index("name")].strip() if "name" in header else ""
        return Problem(name, excess, f"the row has {len(row)} cells, the header {len(header)}: quote cells that hold a comma")
    named = zip(header, row, strict=False)
    cells = {
        name: Cell(value.strip(), replace(place, column=column, name=name))
        for column, (name, value) in enumerate(named, start=1)
        if value.strip()
    }
    return place, cells


# ------------------------------------------------------------------------------------------------ JSONL and folders


def _rows_of_jsonl(path: Path) -> Iterator[Row | Problem]:
    for line, text in enumerate(read_text(path).split("\n"), start=1):
        if not text.strip():
            continue
        place = Place(str(path), line)
        try:
            yield _json_row(place, parse_json(text, "the line"))
        except ValueError as error:
            yield Problem(f"line {line}", place, str(error))


def _json_row(place: Place, row: object) -> Row:
    if not isinstance(row, dict):
        raise ValueError(f"the line is a JSON {type(row).__name__}: write an object, {{...}}")
    cells = {}
    for column, (name, value) in enumerate(row.items(), start=1):
        if complaint := _complaint_of_column(name):
            raise ValueError(complaint)
        if isinstance(value, dict) or (isinstance(value, list) and name != "prompts"):
            raise ValueError(f"{name} is a JSON {type(value).__name__}: write a text, a number, true or false")
        if value is not None and value != "":
            cells[name] = Cell(value, replace(place, column=column, name=name))
    return place, cells


def _rows_of_folder(path: Path) -> Iterator[Row | Problem]:
    found = (file for file in path.iterdir() if not file.name.startswith("."))  # as macOS writes beside files
    images = sorted(file for file in found if file.suffix.lower() in IMAGE_SUFFIXES)
    if not images:
        raise ValueError(f"{path} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    for image in images:
        place = Place(str(image), 0)
        prompts = image.with_suffix(".txt")
        if prompts.is_file():
            yield place, {"image": Cell(image.name, place), PROMPTS_FILE: Cell(prompts.name, Place(str(prompts), 0))}
        else:
            yield Problem(image.stem, place, f"its prompts, {prompts.name}, are missing: put that text file beside it")
