"""What was measured, in one file that is whole after every row: the same command goes on from it."""

import datetime
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from svi_core.files.atomic_file import write_bytes

Row = dict[str, Any]
MEASURED, FAILED, STOPPED, RUNNING = "measured", "failed", "stopped", "running"


@dataclass
class Record:
    """The rows of all stages, in the order in which they began.

    A row that failed is kept, with the reason; one that was stopped from outside is measured at the next run. Rows say of
    which commit and day they are, since mending one row must not cost the others.

    Attributes:
        path: of the file.
        settings: shapes and device; a file of other settings is refused.
        machine: facts about hardware and software.
        stages: by name: "finished", or why it did not run; and its rows.
    """

    path: Path
    settings: dict[str, Any]
    machine: dict[str, str] = field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path, settings: dict[str, Any], fresh: bool = False) -> "Record":
        """Return the record at `path`, or an empty one.

        Raises:
            ValueError: the file is of other settings, or is none of ours.
        """
        if fresh or not path.exists():
            return cls(path, settings)
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            found = cls(path, content["settings"], content["machine"], content["stages"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} holds no figures of this benchmark ({error}): give another --output.") from error
        if found.settings != settings:
            raise ValueError(
                f"{path} is of {found.settings['shapes']['name']} shapes on {found.settings['device']}: give another --output, "
                "or --fresh to measure all of it again."
            )
        return found

    def rows(self, stage: str) -> dict[str, Row]:
        """Return the rows of a stage by name."""
        return self.stages.get(stage, {}).get("rows", {})

    def is_finished(self, stage: str) -> bool:
        """Whether the stage came to its end, and none of its rows was stopped."""
        rows = self.rows(stage).values()
        return self.stages.get(stage, {}).get("state") == "finished" and all(_is_known(row) for row in rows)

    def is_known(self, stage: str, row: str) -> bool:
        """Whether the row was measured or failed."""
        return _is_known(self.rows(stage).get(row, {}))

    def forget_failures(self, stage: str) -> None:
        """Forget the failed rows of a stage, and that it is finished."""
        rows = self.rows(stage)
        failed = [name for name, row in rows.items() if row["outcome"] == FAILED]
        for name in failed:
            del rows[name]
        if failed or self.note(stage).startswith("failed"):
            self.set_state(stage, "")

    def put(self, stage: str, row: str, outcome: str, values: Row | None = None, why: str = "", commit: str = "") -> None:
        """Store one row."""
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        entry = {"outcome": outcome, "values": values or {}, "why": why, "commit": commit, "date": now}
        self.stages.setdefault(stage, {"state": "", "rows": {}})["rows"][row] = entry
        self.save()

    def end_running(self, stage: str, outcome: str, why: str) -> int:
        """Give the rows that a process left unfinished their outcome; return their number."""
        running = [name for name, row in self.rows(stage).items() if row["outcome"] == RUNNING]
        for name in running:
            self.put(stage, name, outcome, why=why)
        return len(running)

    def set_state(self, stage: str, state: str) -> None:
        """Store that a stage is finished, or why it is not."""
        self.stages.setdefault(stage, {"state": "", "rows": {}})["state"] = state
        self.save()

    def note(self, stage: str) -> str:
        """Return why a stage is not finished; empty if there is nothing to say."""
        state = self.stages.get(stage, {}).get("state", "")
        return "" if state == "finished" else state

    def save(self) -> None:
        """Write the file atomically."""
        content = {"settings": self.settings, "machine": self.machine, "stages": self.stages}
        write_bytes(self.path, (json.dumps(content, indent=1) + "\n").encode())


def _is_known(row: Row) -> bool:
    return row.get("outcome") in (MEASURED, FAILED)
