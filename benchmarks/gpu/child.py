"""The parent's side of a process that runs stages: begin a stage, watch its rows, end it when its time is up."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from benchmarks.gpu.record import RUNNING, Record
from benchmarks.gpu.stage_process import Options
from benchmarks.gpu.stages import Stage
from dev.environment import REPOSITORY

LOG = "gpu.log"
_LOOK = 0.1  # seconds between two looks at the record


class End(StrEnum):
    """How a stage ended."""

    FINISHED = "finished"
    DIED = "the process died"
    STAGE_TIME = "the stage's time was up"
    ROW_TIME = "the row's time was up"


@dataclass(frozen=True)
class Limits:
    """When a stage is ended.

    Attributes:
        ends: by the clock of time.monotonic.
        row_seconds: that one row may take, or the process until its first row.
    """

    ends: float
    row_seconds: float


class Child:
    """One process; it ends with this one.

    Attributes:
        name: stages of this process run in it.
    """

    def __init__(self, name: str, starter: str, told: Options):
        self.name, self._told = name, told
        command = [sys.executable, "-m", f"benchmarks.gpu.{starter}", json.dumps(asdict(told))]
        with self._log(f"process {name}") as log:
            self._process = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stderr=log, start_new_session=True)

    @property
    def code(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.poll()

    def run(self, stage: Stage, limits: Limits) -> End:
        """Run the missing rows of a stage; a process whose time is up is killed."""
        with self._log(stage.name):
            pass
        record = Record.open(self._told.path, self._told.settings)
        record.set_state(stage.name, "")
        try:
            self._process.stdin.write(f"{stage.name}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            self._process.wait()
            return End.DIED
        end = self._watch(stage, limits)
        if end in (End.STAGE_TIME, End.ROW_TIME):
            self.end()
        return end

    def _watch(self, stage: Stage, limits: Limits) -> End:
        row, since, seen = None, time.monotonic(), None
        while True:
            has_ended, changed = self.code is not None, self._told.path.stat().st_mtime_ns
            if changed != seen:
                record, seen = Record.open(self._told.path, self._told.settings), changed
                if record.stages[stage.name]["state"] == End.FINISHED:
                    return End.FINISHED
                running = next((name for name, found in record.rows(stage.name).items() if found["outcome"] == RUNNING), None)
                if running != row:
                    row, since = running, time.monotonic()
            if has_ended:
                return End.DIED
            now = time.monotonic()
            if now > limits.ends:
                return End.STAGE_TIME
            if now > since + limits.row_seconds:
                return End.ROW_TIME
            time.sleep(_LOOK)

    def end(self) -> None:
        """Kill it with everything that it started."""
        if self._process.poll() is None:
            if os.name == "nt":
                self._process.kill()
            else:
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process.stdin.close()

    def _log(self, title: str):
        log = (Path(self._told.output) / LOG).open("ab")
        log.write(f"\n=== {title}\n".encode())
        log.flush()
        return log
