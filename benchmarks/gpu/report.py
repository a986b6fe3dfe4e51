"""Tables and plots of what has been measured so far."""

import io
from typing import Any

from PIL import Image

from benchmarks.chart import draw_bars
from benchmarks.gpu.record import FAILED, MEASURED, RUNNING, STOPPED, Record, Row
from benchmarks.gpu.stages import STAGES
from benchmarks.loop.report import table
from svi_core.files.atomic_file import write_bytes

TABLES, PLOTS = "gpu.md", "gpu.png"
_WORDS = {FAILED: "failed", STOPPED: "stopped", RUNNING: "began"}


def write_report(record: Record) -> str:
    """Write gpu.md and gpu.png beside the record and return the former's text."""
    parts = [text for stage in STAGES if (text := _section(record, stage.name))]
    notes = [f"- {stage.name}: {note}" for stage in STAGES if (note := record.note(stage.name))]
    if notes:
        parts.append("## Not run to the end\n\n" + "\n".join(notes))
    if ratio := ours_over_stock(record):
        parts.append(ratio)
    parts.append("## Measured on\n\n" + table(("", ""), [*record.machine.items(), ("commits", ", ".join(_commits(record)))]))
    text = "\n\n".join(parts) + "\n"
    write_bytes(record.path.with_name(TABLES), text.encode())
    if pictures := _pictures(record):
        write_bytes(record.path.with_name(PLOTS), _stacked(pictures))
    return text


def one_line(name: str, row: Row) -> str:
    """Return a row as one line of text."""
    if row["outcome"] != MEASURED:
        return f"{name}: {_WORDS[row['outcome']]}: {row['why']}"
    return f"{name}: " + ", ".join(f"{column} {cell(value)}" for column, value in row["values"].items())


def cell(value: Any) -> str:
    """Return a figure to three digits, or a word."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def ours_over_stock(record: Record) -> str:
    """Return one line: seconds of ours over seconds of stock for each new frame, of each pair and of both."""
    column, pairs = "s per new frame", []
    for stage in ("loop", "loop again"):
        found = [record.rows(stage).get(name, {}).get("values", {}).get(column) for name in ("ours", "stock")]
        if all(found):
            pairs.append(found)
    if not pairs:
        return ""
    ours, stock = (sum(values) for values in zip(*pairs, strict=True))
    each = ", ".join(f"{ours / stock:.3f}" for ours, stock in pairs)
    return f"ours / stock, seconds for each new frame: **{ours / stock:.3f}** ({each})"


def _section(record: Record, stage: str) -> str:
    rows = record.rows(stage)
    if not rows:
        return ""
    columns = list(dict.fromkeys(column for row in rows.values() for column in row["values"]))
    lines = []
    for name, row in rows.items():
        if row["outcome"] == MEASURED:
            lines.append((name, *(cell(row["values"].get(column, "")) for column in columns)))
        else:
            lines.append((name, f"{_WORDS[row['outcome']]}: {row['why']}", *[""] * (len(columns) - 1)))
    return f"## {stage}\n\n{table(('', *(columns or [''])), lines)}"


def _pictures(record: Record) -> list[Image.Image]:
    """Return a bar chart for each stage with figures, of the column that tells most."""
    device, pictures = record.machine.get("GPU", record.settings["device"]).split(",")[0], []
    for stage in STAGES:
        found = {name: row["values"].get(stage.first) for name, row in record.rows(stage.name).items()}
        drawn = {name: value for name, value in found.items() if isinstance(value, int | float)}
        if drawn:
            pictures.append(
                draw_bars(f"{stage.name}, {record.settings['shapes']['name']} shapes, {device}: {stage.first}", drawn)
            )
    return pictures


def _stacked(pictures: list[Image.Image]) -> bytes:
    """Return the pictures below each other as one PNG file."""
    size = (max(picture.width for picture in pictures), sum(picture.height for picture in pictures))
    whole, top = Image.new("RGB", size), 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height
    data = io.BytesIO()
    whole.save(data, "PNG")
    return data.getvalue()


def _commits(record: Record) -> list[str]:
    rows = (row for stage in record.stages for row in record.rows(stage).values())
    return list(dict.fromkeys(row["commit"] for row in rows if row["commit"]))
