"""The command: which stages run, how long each may take, and what happens to those that do not end."""

import argparse
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.gpu.bench import BROKEN
from benchmarks.gpu.child import LOG, Child, End, Limits
from benchmarks.gpu.record import FAILED, STOPPED, Record
from benchmarks.gpu.report import write_report
from benchmarks.gpu.shapes import SHAPES, Shapes
from benchmarks.gpu.stage_process import CROWDED, Options
from benchmarks.gpu.stages import H200, PROCESSOR, SPARE, STAGES, Card, Stage, Work, card_named, planned
from benchmarks.gpu.weights import remove_leftovers, weights_exist, work_folder
from dev.environment import REPOSITORY, say

OUTPUT = REPOSITORY / ".runtime" / "benchmarks" / "gpu"
PATIENCE, GRACE = 2.0, 30.0  # a stage, and a row, may take so many times its seconds, and so many more
LAST = 3.0  # seconds that are kept for the last report


class Budget:
    """The seconds that are left of --minutes; without it there is no end."""

    def __init__(self, minutes: float | None):
        self._end = None if minutes is None else time.monotonic() + 60 * minutes - LAST

    @property
    def left(self) -> float:
        return float("inf") if self._end is None else self._end - time.monotonic()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the stages that are missing and fit; return 0 unless a stage did not come to its end or a row failed."""
    options = _arguments(arguments)
    budget = Budget(options.minutes)
    shapes = SHAPES[options.shapes]
    card = _card(options.device)
    stages = [stage for stage in STAGES if not options.only or stage.name in options.only]
    if card is None:
        say("the rates of this card are not known; seconds are computed for an H200")
    if options.plan:
        sys.stdout.write(plan_text(stages, shapes, card or H200))
        return 0
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        work = options.work or work_folder(shapes)
        told = Options(options.shapes, options.device, str(options.output.absolute()), str(work.absolute()))
        record = Record.open(told.path, told.settings, options.fresh)
    except ValueError as error:
        say(f"error: {error}")
        return 2
    record.save()
    remove_leftovers(work)
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the stage's process is ended too
    runner = Runner(told, card or H200, budget)
    try:
        for stage in stages:
            if options.retry:
                runner.record.forget_failures(stage.name)
            runner.run(stage)
    except KeyboardInterrupt:
        say("stopped; the same command goes on")
        return 130
    finally:
        runner.end()
        signal.signal(signal.SIGTERM, before)
    record = runner.record
    sys.stdout.write(write_report(record))
    _remove_weights(record, work, keep=options.work is not None)
    return _exit_code(record, stages)


class Runner:
    """Runs stages, those of one process in one child as long as it lives."""

    def __init__(self, told: Options, card: Card, budget: Budget):
        self._told, self._card, self._budget = told, card, budget
        self._shapes = SHAPES[told.shapes]
        self._child: Child | None = None

    def run(self, stage: Stage) -> None:
        """Run what is missing of a stage, or note why there is no time for it."""
        record = self.record
        if record.is_finished(stage.name):
            say(f"{stage.name}: measured before")
            return
        needed, of_a_row = self._seconds(stage)
        if min(needed, of_a_row) > self._budget.left:
            left = max(0.0, self._budget.left)
            record.set_state(stage.name, f"skipped: its first row takes about {of_a_row:.0f} s, and {left:.0f} s were left")
            say(f"{stage.name}: {record.note(stage.name)}")
            return
        say(f"{stage.name}: about {needed:.0f} s")
        ends = time.monotonic() + PATIENCE * needed + GRACE
        while self._once(stage, ends):
            pass

    def end(self) -> None:
        """End the child, if there is one."""
        if self._child is not None:
            self._child.end()
        self._child = None

    @property
    def record(self) -> Record:
        """The record as it is now."""
        return Record.open(self._told.path, self._told.settings)

    def _seconds(self, stage: Stage) -> tuple[float, float]:
        """Return the seconds of a stage and of its longest row, with what they need first."""
        before = SPARE * self._card.start if self._needs_process(stage) else 0.0
        if stage.needs_weights and not weights_exist(Path(self._told.work), self._shapes):
            before += Work(self._shapes, self._card).weights
        return before + stage.seconds(self._shapes, self._card, False), before + stage.row_seconds(self._shapes, self._card)

    def _needs_process(self, stage: Stage) -> bool:
        return self._child is None or self._child.name != stage.process_on(self._told.device)

    def _once(self, stage: Stage, ends: float) -> bool:
        """Run a stage in the child, or a new one; return whether its other rows should be tried in another."""
        limits = Limits(min(ends, time.monotonic() + self._budget.left), PATIENCE * self._seconds(stage)[1] + GRACE)
        is_fresh = self._needs_process(stage)
        if is_fresh:
            self.end()
            self._child = Child(stage.process_on(self._told.device), stage.starter, self._told)
        end = self._child.run(stage, limits)
        if end is End.FINISHED:
            return False
        code, record = self._child.code, self.record
        self.end()
        if end is End.STAGE_TIME and self._budget.left <= 0:
            record.end_running(stage.name, STOPPED, "the time of --minutes was up")
            record.set_state(stage.name, "stopped: the time of --minutes was up")
            return False
        why = _death(code) if end is End.DIED else str(end)
        lost = record.end_running(stage.name, FAILED, why)
        if end is End.STAGE_TIME:
            record.set_state(stage.name, f"stopped: {end}; {self._told.output}/{LOG} says how far it came")
            return False
        if not lost and code != BROKEN and is_fresh:  # it did not come to a row: another try would end in the same way
            record.set_state(stage.name, f"failed: {why}; the end of {self._told.output}/{LOG} says why")
            return False
        say(f"{stage.name}: {why}; its other rows get a new process")
        return True


def plan_text(stages: Sequence[Stage], shapes: Shapes, card: Card) -> str:
    """Return the stages with their seconds, and the minutes after each."""
    lines, total = [f"{shapes.name} shapes, computed for {card.name}"], 0.0
    seconds = planned(stages, shapes, card)
    for stage in stages:
        total += seconds[stage.name]
        lines.append(f"{seconds[stage.name]:6.0f} s   {total / 60:5.1f} min   {stage.name}: {stage.purpose}")
    return "\n".join(lines) + "\n"


def _card(device: str) -> Card | None:
    """Return the card of a device, asked of the driver: this process does not touch it. None if its rates are not known."""
    if device == "cpu":
        return PROCESSOR
    try:
        asked = subprocess.run(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return card_named(asked.stdout)


def _remove_weights(record: Record, work: Path, keep: bool) -> None:
    """Remove our own folder of weights once no stage needs them."""
    if keep or not work.exists():
        return
    if all(record.is_finished(stage.name) for stage in STAGES):
        shutil.rmtree(work)
    else:
        say(f"{work} keeps the weights for the next run; remove it if there will be none")


def _death(code: int) -> str:
    if code == BROKEN:
        return "the device answered no more"
    if code == CROWDED:
        return "the memory of the stage before was not freed"
    return f"the process was ended by signal {-code}" if code < 0 else f"the process ended with exit code {code}"


def _exit_code(record: Record, stages: Sequence[Stage]) -> int:
    """Return 1 if a stage that ran did not come to its end, or a row failed."""
    broken = [stage.name for stage in stages if record.note(stage.name).startswith(("failed", "stopped"))]
    rows = [row for stage in stages for row in record.rows(stage.name).values()]
    return int(bool(broken) or any(row["outcome"] == FAILED for row in rows))


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description="Wan 14B on a GPU, with random weights.")
    parser.add_argument("--minutes", type=float, help="run only what fits into them (default: all)")
    parser.add_argument("--plan", action="store_true", help="print the stages and their computed seconds, and end")
    parser.add_argument("--only", action="append", choices=[stage.name for stage in STAGES], help="run this stage; repeatable")
    parser.add_argument("--shapes", choices=SHAPES, default="14b", help="sizes of model and clip (default: 14b)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu only shows that it works")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"folder of figures, tables, plots (default: {OUTPUT})")
    parser.add_argument("--work", type=Path, help="folder of weights and videos (default: in memory where there is room)")
    parser.add_argument("--retry", action="store_true", help="measure rows that failed again")
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    return parser.parse_args(arguments)
