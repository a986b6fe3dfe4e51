"""Gather the logs of all training runs into one small table, demo/samples/loss_curves.csv.

Run `python -m demo.models.loss_curves` after training.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

from demo.models.training_run import RUNS

TABLE = Path(__file__).resolve().parent.parent / "samples" / "loss_curves.csv"


def read_logs(folder: Path = RUNS) -> list[tuple[str, int, float, str, float]]:
    """Return (run, step, seconds, figure, value) of every figure that the runs have logged."""
    rows = []
    for path in sorted(folder.glob("*/log.jsonl")):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            step, seconds = record.pop("step"), record.pop("seconds")
            rows.extend((path.parent.name, step, seconds, name, value) for name, value in record.items())
    return rows


def main() -> None:
    """Write the table."""
    with TABLE.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("run", "step", "seconds", "figure", "value"))
        writer.writerows(read_logs())


if __name__ == "__main__":
    main()
