"""The benchmark of the host's steps: its arithmetic, and that the functions which it times exist."""

import ast
import json
import threading
from pathlib import Path

import pytest

from benchmarks.host import __main__ as host
from benchmarks.host import loop
from benchmarks.results import Results

ROOT = Path(__file__).resolve().parents[2]


def test_a_step_is_counted_without_the_steps_inside_it_and_in_its_own_thread(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(loop, "_clocks", lambda: [now[0], now[0] / 2])

    def pass_time(seconds):
        now[0] += seconds

    watch = loop.Watch()
    inner = watch.timed("inner", pass_time)
    inner(5.0)  # before a clip has begun
    for outer_seconds in (3.0, 4.0):
        watch.clips.append({})
        with watch.step("outer"):
            pass_time(outer_seconds)
            inner(1.0)
            inner(1.5)
            thread = threading.Thread(target=inner, args=(0.0,))
            thread.start()
            thread.join()
    assert watch.clips == [{"outer": [s, s / 2], "inner": [2.5, 1.25]} for s in (3.0, 4.0)]


def test_the_table_adds_the_steps_up_without_frames_and_controls(tmp_path):
    results = Results(tmp_path / "host.json", {}, {"date": "today"}, fresh=True)
    steps = {"noise": [[0.02, 0.01], [0.04, 0.03]], "keys": [[0.04, 0.03], [0.06, 0.04]], loop.FRAMES: [[9.0, 8.0]] * 2}
    results.get("loop", lambda: steps)
    results.get("Talk", lambda: [[0.5, 0.4], [0.7, 0.6]])
    text = host.report(results)
    assert "| noise | 0.0300 (0.0200 to 0.0400) | 0.0200 (0.0100 to 0.0300) | under |" in text
    assert "| the steps above together | 0.0800 (0.0600 to 0.1000) | 0.0550 (0.0400 to 0.0700) | over |" in text
    assert f"| {loop.FRAMES} | 9.0000 (9.0000 to 9.0000) | 8.0000 (8.0000 to 8.0000) |  |" in text
    assert "| Talk | 0.6000 (0.5000 to 0.7000) | 0.5000 (0.4000 to 0.6000) | over |" in text and "| date | today |" in text


def test_every_function_that_is_timed_is_there():
    """Read in the source, since loading the pack takes seconds."""
    for place in (place for step in loop.STEPS.values() for place in step):
        module, _, path = place.partition(":")
        body = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8")).body
        for name in path.split("."):
            imported = [alias.name for node in body if isinstance(node, ast.ImportFrom) for alias in node.names]
            defined = {node.name: node for node in body if isinstance(node, ast.ClassDef | ast.FunctionDef)}
            assert name in defined or name in imported, place
            body = defined[name].body if name in defined else []


@pytest.mark.slow
def test_the_loop_runs_with_stand_ins_and_every_step_takes_time(tmp_path):
    assert host.main(["--quick", "--output", str(tmp_path)]) == 0
    measured = json.loads((tmp_path / "host.json").read_text(encoding="utf-8"))["measured"]
    assert set(measured["loop"]) == set(loop.STEPS) and len(measured) == 3
    assert [name for name, taken in measured["loop"].items() if not all(wall > 0 for wall, _ in taken)] == []
