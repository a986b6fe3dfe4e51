"""The command: which stages run, how long each may take, and what happens to those that do not end."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.gpu.bench import BROKEN
from benchmarks.gpu.record import FAILED, STOPPED, Record
from benchmarks.gpu.report import write_report
from benchmarks.gpu.shapes import SHAPES, Shapes
from benchmarks.gpu.stage_process import Options
from benchmarks.gpu.stages import H200, PROCESSOR, STAGES, Card, Stage, Work, card_named
from benchmarks.gpu.weights import weights_exist, work_folder
from dev.environment import REPOSITORY, say

OUTPUT = REPOSITORY / ".runtime" / "benchmarks" / "gpu"
LOG = "gpu.log"
PATIENCE, GRACE = 2.0, 30.0  # a stage may take so many times its seconds, and so many more
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
    if options.plan:
        sys.stdout.write(plan_text(stages, shapes, card or H200))
        return 0
    if card is None:
        say("the rates of this card are not known; seconds are computed for an H200")
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        work = options.work or work_folder(shapes)
        told = Options(options.shapes, options.device, str(options.output.absolute()), str(work.absolute()))
        record = Record.open(told.path, told.settings, options.fresh)
    except ValueError as error:
        say(f"error: {error}")
        return 2
    record.save()
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the stage's process is ended too
    try:
        for stage in stages:
            if options.retry:
                record.forget_failures(stage.name)
            record = run_if_it_fits(stage, told, card or H200, budget, record)
    except KeyboardInterrupt:
        say("stopped; the same command goes on")
        return 130
    finally:
        signal.signal(signal.SIGTERM, before)
    sys.stdout.write(write_report(record))
    _remove_weights(record, work, keep=options.work is not None)
    return _exit_code(record, stages)


def run_if_it_fits(stage: Stage, told: Options, card: Card, budget: Budget, record: Record) -> Record:
    """Run what is missing of a stage, or note why there is no time for it; return the record as it is then."""
    if record.is_finished(stage.name):
        say(f"{stage.name}: measured before")
        return record
    shapes = SHAPES[told.shapes]
    needed = stage.seconds(shapes, card)
    if stage.needs_weights and not weights_exist(Path(told.work), shapes):
        needed += Work(shapes, card).weights
    if needed > budget.left:
        record.set_state(stage.name, f"skipped: it takes about {needed:.0f} s, and {max(0.0, budget.left):.0f} s were left")
        say(f"{stage.name}: {record.note(stage.name)}")
        return record
    say(f"{stage.name}: about {needed:.0f} s")
    ends = time.monotonic() + min(budget.left, PATIENCE * needed + GRACE)
    while True:
        code = run_process(stage, told, ends)
        record = Record.open(told.path, told.settings)
        if code is None:
            record.end_running(stage.name, STOPPED, "the stage's time was up")
            record.set_state(stage.name, f"stopped: its time was up; {told.output}/{LOG} says how far it came")
            return record
        if code == 0:
            return record
        lost = record.end_running(stage.name, FAILED, _death(code))
        if not lost and code != BROKEN:  # it did not come to a row: another try would end in the same way
            record.set_state(stage.name, f"failed: {_death(code)}; the end of {told.output}/{LOG} says why")
            return record
        say(f"{stage.name}: {_death(code)}; its other rows get a new process")


def run_process(stage: Stage, told: Options, ends: float) -> int | None:
    """Run one process of a stage; return its exit code, or None if it was still running at `ends` and was killed."""
    command = [sys.executable, "-m", f"benchmarks.gpu.{stage.process}", stage.name, json.dumps(asdict(told))]
    with (Path(told.output) / LOG).open("ab") as log:
        log.write(f"\n=== {stage.name}\n".encode())
        log.flush()
        child = subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stderr=log, start_new_session=True)
        try:
            return child.wait(timeout=max(0.1, ends - time.monotonic()))
        except subprocess.TimeoutExpired:
            return None
        finally:
            if child.poll() is None:
                _kill(child)
            child.stdin.close()


def _kill(child: subprocess.Popen) -> None:
    """Kill a stage with everything that it started."""
    if os.name == "nt":
        child.kill()
    else:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def plan_text(stages: Sequence[Stage], shapes: Shapes, card: Card) -> str:
    """Return the stages with their seconds, and the minutes after each."""
    lines, total = [f"{shapes.name} shapes, computed for {card.name}"], 0.0
    for stage in stages:
        seconds = stage.seconds(shapes, card)
        total += seconds
        lines.append(f"{seconds:6.0f} s   {total / 60:5.1f} min   {stage.name}: {stage.purpose}")
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
