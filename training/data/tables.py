"""Read tables of clips and captions row by row. Broken rows are reported with their line, the others used.

Source: docs/METHOD.md, 9.3 (columns of the released data) and 12.5 (what goes wrong in tables).
"""

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from svi_core.files import text_file
from svi_core.files.strict_json import parse_json

VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".gif"})
FILE_COLUMNS = ("filename", "file_name", "file", "video", "video_path", "path")
POSE_COLUMNS = ("pose", "pose_video", "pose_path")
CAPTION_COLUMNS = ("video description", "caption", "text", "prompt", "description")
MAX_TABLE_BYTES = 1 << 30
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}


@dataclass(frozen=True)
class Rejected:
    """A clip, row or table that cannot be used, and the reason."""

    where: str
    reason: str


@dataclass(frozen=True)
class Row:
    """One line of a table: its clip's file, the caption, the line's place, and the pose video's file or ""."""

    file: str
    caption: str
    origin: str
    pose: str = ""


def read_table(path: Path, name: str) -> Iterator[Row | Rejected]:
    """Yield the rows of a CSV, TSV, JSONL or JSON table called `name` in order, unusable ones as :class:`Rejected`."""
    readers = {".jsonl": _jsonl_rows, ".json": _json_rows}
    try:
        yield from readers.get(path.suffix.lower(), _csv_rows)(_table_text(path), name)
    except ValueError as error:
        yield Rejected(name, str(error))


def caption_beside(path: Path) -> str:
    """Return the caption in the text file beside a clip, or in the JSON object ``{"caption": ...}``; "" if it has none.

    Raises:
        ValueError: the file cannot be read, is larger than 16 MiB, is not JSON, or its caption is no text; the message begins
            with the file's name.
    """
    text = text_file.read_text(path, path.name)
    if path.suffix.lower() != ".json":
        return text
    value = parse_json(text, path.name)
    fields = _fields(value) if isinstance(value, dict) else {}
    caption = next((fields[column] for column in CAPTION_COLUMNS if column in fields), "")
    if not isinstance(caption, str):
        raise ValueError(f"{path.name}: caption must be a text, not {type(caption).__name__}")
    return caption


def _csv_rows(text: str, name: str) -> Iterator[Row | Rejected]:
    """Yield the rows of a CSV table.

    A quote that is never closed would swallow the rows after it. So each record is read on its own: the line where a broken
    record begins is rejected, and reading continues on the next line.

    Raises:
        ValueError: the header is broken or lacks a column.
    """
    lines = io.StringIO(text, newline="").readlines()
    delimiter = _delimiter_of(lines[0] if lines else "")
    header, position = _read_record(lines, 0, delimiter)
    columns = [column.strip().lower() for column in header]
    file_column, caption_column = _column(columns, FILE_COLUMNS), _column(columns, CAPTION_COLUMNS)
    pose_column = next((columns.index(name) for name in POSE_COLUMNS if name in columns), None)
    while position < len(lines):
        origin = f"{name} line {position + 1}"
        try:
            fields, position = _read_record(lines, position, delimiter)
        except ValueError as error:
            yield Rejected(origin, str(error))
            position += 1
            continue
        if len(fields) == len(header):
            pose = "" if pose_column is None else fields[pose_column]
            yield Row(fields[file_column], fields[caption_column], origin, pose)
        elif any(field.strip() for field in fields):
            yield Rejected(origin, f"has {len(fields)} fields where the header has {len(header)}: quote texts that hold commas")


def _read_record(lines: list[str], position: int, delimiter: str) -> tuple[list[str], int]:
    """Return the fields of the record that begins at line `position`, and the position after it.

    Raises:
        ValueError: a quote is not closed or misplaced, or a field is longer than 128 KiB.
    """
    reader = csv.reader((lines[index] for index in range(position, len(lines))), delimiter=delimiter, strict=True)
    try:
        return next(reader), position + reader.line_num
    except csv.Error as error:
        raise ValueError(f"is not valid CSV ({error}): close every quote, and double quotes inside a quoted field") from error


def _delimiter_of(header: str) -> str:
    """Return the delimiter that splits the header into columns with a file column and a caption column among them.

    Raises:
        ValueError: no delimiter does.
    """
    for delimiter in _DELIMITERS:
        columns = {column.strip().strip('"').lower() for column in header.split(delimiter)}
        if columns & set(FILE_COLUMNS) and columns & set(CAPTION_COLUMNS):
            return delimiter
    raise ValueError(
        f"its header is {header.strip()[:120]!r}: name a file column (Filename) and a caption column (Video Description, "
        f"caption or text), separated by {', '.join(_DELIMITERS.values())}"
    )


def _column(columns: list[str], known: tuple[str, ...]) -> int:
    """Return the position of the first known name among `columns`.

    Raises:
        ValueError: no column has a known name.
    """
    position = next((columns.index(name) for name in known if name in columns), None)
    if position is None:
        raise ValueError(f"its header {str(columns)[:300]} has none of the columns {', '.join(known)}")
    return position


def _json_rows(text: str, name: str) -> Iterator[Row | Rejected]:
    """Yield the rows of a JSON table: a list of objects with the column names of a CSV table, or captions by file.

    Raises:
        ValueError: other JSON, or none.
    """
    for number, entry in enumerate(_json_entries(text), start=1):
        origin = f"{name} entry {number}"
        try:
            yield _row_of(entry, origin)
        except ValueError as error:
            yield Rejected(origin, str(error))


def require_json_table(path: Path) -> None:
    """Refuse a JSON file that holds no rows.

    Raises:
        ValueError: what is wrong with it.
    """
    _json_entries(_table_text(path))


def _json_entries(text: str) -> list[object]:
    """Return the entries of a JSON table; raise ValueError for other JSON, or none."""
    table = parse_json(text, "it")
    if isinstance(table, dict):
        rows = {file: row for file, row in table.items() if Path(file).suffix.lower() in VIDEO_SUFFIXES}
        table = [{"file": file, **(row if isinstance(row, dict) else {"caption": row})} for file, row in rows.items()]
    if not isinstance(table, list) or not any(_is_row(entry) for entry in table):
        raise ValueError('is not a table: write [{"file": ..., "caption": ...}] or {"clip.mp4": "caption"}')
    return table


def _is_row(entry: object) -> bool:
    fields = _fields(entry) if isinstance(entry, dict) else {}
    return any(name in fields for name in FILE_COLUMNS) and any(name in fields for name in CAPTION_COLUMNS)


def _jsonl_rows(text: str, name: str) -> Iterator[Row | Rejected]:
    """Yield the rows of a JSONL table: one object per line, with the column names of a CSV table."""
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: JSON text may hold U+2028
        if not line.strip():
            continue
        origin = f"{name} line {number}"
        try:
            yield _row_of(parse_json(line, "it"), origin)
        except ValueError as error:
            yield Rejected(origin, str(error))


def _fields(entry: dict) -> dict[str, object]:
    return {str(key).strip().lower(): value for key, value in entry.items()}


def _row_of(entry: object, origin: str) -> Row:
    """Return the row in an object of a table.

    Raises:
        ValueError: it is not an object with a file and a caption, both text.
    """
    if not isinstance(entry, dict):
        raise ValueError('is not a JSON object: write {"file": ..., "caption": ...}')
    fields = _fields(entry)
    columns = list(fields)
    file = fields[columns[_column(columns, FILE_COLUMNS)]]
    caption = fields[columns[_column(columns, CAPTION_COLUMNS)]]
    pose = next((fields[name] for name in POSE_COLUMNS if name in fields), "")
    for what, value in (("file", file), ("caption", caption), ("pose", pose)):
        if not isinstance(value, str):
            raise ValueError(f"{what} must be a text, not {type(value).__name__}")
    return Row(file, caption, origin, pose)


def _table_text(path: Path) -> str:
    return text_file.read_text(path, path.name, MAX_TABLE_BYTES)
