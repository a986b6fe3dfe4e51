"""The compatibility matrix: it runs pytest in each environment, adds up parts, and keeps the rows of other machines."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dev import front_ends
from dev.environment import Environment
from dev.matrix import __main__ as command
from dev.matrix.results import RECORD_VARIABLE, Case, Result, read_result
from dev.matrix.table import COLUMNS, HEADER, row_of, table_of, updated
from dev.setup_files import REPOSITORY, Layout, SetupError

CASE = Case("0.33.0", "nodes", "1.49.6", "3.11.7", "2.11.0")
ROOM = """
import pytest
def test_passes(): pass
def test_fails(): assert False
@pytest.mark.parametrize("word", ["a|b"])
def test_is_skipped(word): pytest.skip("not here")
@pytest.fixture
def broken():
    yield
    raise OSError("the teardown")
def test_fails_at_its_end(broken): pass
@pytest.mark.slow
def test_is_slow(): pass
"""


def run_recorded(folder: Path, record: Path, *arguments: str) -> Result:
    """Run a small room of tests as the matrix does and return what its record holds."""
    (folder / "test_room.py").write_text(ROOM, encoding="utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = slow: x\naddopts = -p tests.conftest\n", encoding="utf-8")
    variables = {**os.environ, RECORD_VARIABLE: str(record), "PYTHONPATH": str(REPOSITORY), "SVI_COMMIT": "abc1234"}
    command = [sys.executable, "-m", "pytest", ".", "-q", "-p", "dev.matrix.recorder", *arguments]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    result = read_result(record)
    assert result is not None
    return result


def test_outcomes_are_recorded_and_parts_add_up(tmp_path: Path):
    record = tmp_path / "record.jsonl"
    part = run_recorded(tmp_path, record, "-k", "passes")
    assert part.outcomes == {"test_room.py::test_passes": "passed"} and part.num_tests == 4
    with record.open("a", encoding="utf-8") as lines:
        lines.write('\n{"test": "test_room.py::test_fa')  # what a kill leaves
    whole = run_recorded(tmp_path, record)
    assert whole.outcomes == {
        "test_room.py::test_passes": "passed",
        "test_room.py::test_fails": "failed",
        "test_room.py::test_is_skipped[a|b]": "skipped",
        "test_room.py::test_fails_at_its_end": "failed",
    }
    assert whole.commits == ("abc1234",) and whole.num_tests == 4 and len(whole.date) == 10


def test_a_later_run_replaces_outcomes_and_forgets_tests_that_are_gone(tmp_path: Path):
    record = tmp_path / "record.jsonl"
    lines = [
        {"commit": "old", "date": "2026-01-01", "tests": ["a", "b", "gone"]},
        *({"test": name, "outcome": "failed"} for name in ("a", "b", "gone")),
        {"commit": "new", "date": "2026-02-02", "tests": ["a", "b", "added"]},
        {"test": "a", "outcome": "passed"},
    ]
    record.write_text("\n".join(json.dumps(line) for line in lines), encoding="utf-8")
    assert read_result(record) == Result({"a": "passed", "b": "failed"}, 3, ("old", "new"), "2026-02-02")
    assert read_result(tmp_path / "absent.jsonl") is None


def test_the_table_keeps_what_others_ran_and_names_failures_and_what_was_not_run():
    result = Result({"tests/nodes/a.py::x[p|q]": "failed", "tests/nodes/a.py::y": "passed"}, 5, ("abc1234",), "2026-02-02")
    other = Case("0.30.0", "browser", "1.47.12", "3.12.1", "2.9.1")
    document = f"# Title\n\n{table_of([row_of(other, result)])}\n\nAfter.\n"
    found = updated(document, {CASE: result})
    first, second, *rest = found.partition(HEADER)[2].splitlines()[2:]
    assert first == ("| 0.33.0 | nodes | 1.49.6 | 3.11.7 | 2.11.0 | abc1234 | 2026-02-02 | 1 | 1<br>`a.py::x[p\\|q]` | 0 | 3 |")
    assert second.startswith("| 0.30.0 | browser | 1.47.12 | 3.12.1 | 2.9.1 | abc1234 |") and rest == ["", "After."]
    assert updated(found, {CASE: result}) == found
    assert len(row_of(CASE, result)) == len(COLUMNS)
    with pytest.raises(ValueError, match="the document has no table"):
        updated("# Title\n", {})


def test_the_newest_comfyui_comes_first():
    result = Result({"a": "passed"}, 1, ("abc",), "2026-02-02")
    rows = [
        row_of(Case(version, "nodes", "1.0.0", "3", "2"), result) for version in ("0.9.1", "0.33.0 (abc)", "1.0.0", "0.30.2")
    ]
    assert [row.split("|")[1].strip() for row in table_of(rows).splitlines()[2:]] == [
        "1.0.0",
        "0.33.0 (abc)",
        "0.30.2",
        "0.9.1",
    ]


@pytest.fixture
def tree(tmp_path: Path) -> command.Tree:
    """A tree whose Python notes its arguments and variables instead of running pytest."""
    python = tmp_path / "a python"
    python.write_text('#!/bin/sh\nprintf "%s\\n" "$@" > "$NOTES"\nenv >> "$NOTES"\nexit ${CODE:-0}\n', encoding="utf-8")
    python.chmod(0o755)
    return command.Tree(Environment(python, tmp_path / "tree"), "0.33.0", "1.49.6", "3.11.7", "2.11.0")


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for Python is a shell script")
def test_pytest_runs_in_the_trees_environment_with_the_front_end(tree: command.Tree, tmp_path: Path, monkeypatch):
    notes = tmp_path / "notes"
    monkeypatch.setenv("NOTES", str(notes))
    command.run_tests(tree, CASE, tmp_path / "front end", tmp_path / "records" / "a.jsonl", "one or two")
    told = notes.read_text().splitlines()
    assert ["tests/nodes", "-q", "-p", "dev.matrix.recorder", "-k", "one or two"] == told[2:8]
    assert {
        f"COMFYUI_PATH={tree.environment.comfyui}",
        f"COMFYUI_PYTHON={tree.environment.python}",
        f"COMFYUI_FRONT_END={tmp_path / 'front end'}",
        f"{RECORD_VARIABLE}={tmp_path / 'records' / 'a.jsonl'}",
    } <= set(told)
    monkeypatch.setenv("COMFYUI_FRONT_END", "the user's")
    monkeypatch.setenv("CODE", "5")
    command.run_tests(tree, CASE, None, tmp_path / "records" / "a.jsonl", "none in this room")
    assert "COMFYUI_FRONT_END=" in notes.read_text().splitlines()
    monkeypatch.setenv("CODE", "4")
    with pytest.raises(SetupError, match="pytest ended with 4"):
        command.run_tests(tree, CASE, None, tmp_path / "records" / "a.jsonl", None)


def test_only_the_browser_runs_with_each_front_end(tree: command.Tree, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(command, "installed_front_end", lambda wanted, layout, python: ("1.60.0", tmp_path / wanted))
    cases = [(case.room, case.front_end, folder) for case, folder in command.cases_of(tree, ["own", "newest"])]
    assert cases == [
        ("nodes", "1.49.6", None),
        ("e2e", "1.49.6", None),
        ("browser", "1.49.6", None),
        ("browser", "1.60.0", tmp_path / "newest"),
    ]


def test_the_command_writes_the_table_and_fails_if_a_test_does(tree: command.Tree, tmp_path: Path, monkeypatch, capsys):
    document = tmp_path / "COMPATIBILITY.md"
    document.write_text(table_of([]) + "\n", encoding="utf-8")
    monkeypatch.setattr(command, "DOCUMENT", document)
    monkeypatch.setattr(command, "prepared_tree", lambda wanted: tree)
    outcomes = {"e2e": "passed", "nodes": "passed"}
    monkeypatch.setattr(
        command, "run_tests", lambda tree, case, front_end, record, selection: ran.append((case.room, selection)) or True
    )
    monkeypatch.setattr(command, "read_result", lambda record: result_of(record.name.split("-")[1]))

    def result_of(room: str) -> Result | None:
        if room not in outcomes:
            return None if room == "browser" else Result({}, 1, (), "2026-02-02")  # begun, and killed before the first outcome
        return Result({f"tests/{room}/x": outcomes[room]}, 1, ("abc",), "2026-02-02")

    ran: list[tuple[str, str | None]] = []
    assert command.main(["tree", "--rooms", "e2e", "nodes", "-k", "x"]) == 0
    assert ran == [("nodes", "x"), ("e2e", "x")]
    assert document.read_text() == capsys.readouterr().out and "| browser |" not in document.read_text()
    outcomes["e2e"] = "failed"
    assert command.main(["tree", "--rooms"]) == 1 and len(ran) == 2
    del outcomes["nodes"]
    document.write_text(table_of([]) + "\n", encoding="utf-8")
    assert command.main(["tree", "--rooms"]) == 1 and "| nodes |" not in document.read_text()


@pytest.mark.skipif(os.name == "nt", reason="the stand-in for Python is a shell script")
@pytest.mark.parametrize(
    ("code", "outcome", "wanted"), [("0", "passed", 0), ("1", "passed", 1), ("0", "skipped", 1), ("0", "failed", 1)]
)
def test_the_command_fails_if_tests_hang_or_all_are_skipped(tree, tmp_path: Path, monkeypatch, code, outcome, wanted):
    """pytest ends with 1 when it gives up on a test that never ends, which then has no outcome, or that of an earlier run."""
    document = tmp_path / "COMPATIBILITY.md"
    document.write_text(table_of([]) + "\n", encoding="utf-8")
    monkeypatch.setattr(command, "DOCUMENT", document)
    monkeypatch.setattr(command, "Layout", lambda: Layout(tmp_path, tmp_path))
    monkeypatch.setattr(command, "prepared_tree", lambda wanted: tree)
    monkeypatch.setattr(command, "read_result", lambda record: Result({"x": outcome}, 2, ("abc",), "2026-02-02"))
    monkeypatch.setenv("NOTES", str(tmp_path / "notes"))
    monkeypatch.setenv("CODE", code)
    assert command.main(["tree", "--rooms", "nodes"]) == wanted


def test_a_front_end_that_is_named_twice_is_tested_once(tree: command.Tree, tmp_path: Path, monkeypatch):
    document, ran = tmp_path / "COMPATIBILITY.md", []
    document.write_text(table_of([]) + "\n", encoding="utf-8")
    monkeypatch.setattr(command, "DOCUMENT", document)
    monkeypatch.setattr(command, "Layout", lambda: Layout(tmp_path, tmp_path))
    monkeypatch.setattr(command, "prepared_tree", lambda wanted: tree)
    monkeypatch.setattr(command, "installed_front_end", lambda *_: (tree.front_end, tmp_path))
    monkeypatch.setattr(command, "run_tests", lambda *words: ran.append(words[1]) or True)
    assert command.main(["tree", "--front-ends", "own", "newest", "--rooms", "browser"]) == 0 and len(ran) == 1


def test_a_folder_that_is_no_comfyui_is_refused_before_anything_is_set_up(tmp_path: Path, capsys):
    assert command.main([str(tmp_path)]) == 1
    assert "is not a ComfyUI folder: it has no main.py" in capsys.readouterr().err


def test_a_front_end_is_installed_once_and_under_its_version(tmp_path: Path, monkeypatch):
    asked = []

    def pretend(layout: Layout, arguments: list[str], python: Path | None) -> None:
        asked.append(arguments[-1])
        target = Path(arguments[arguments.index("--target") + 1])
        (target / "comfyui_frontend_package" / "static").mkdir(parents=True)
        (target / "comfyui_frontend_package-1.60.0.dist-info").mkdir()
        (target / "comfyui_frontend_package" / "static" / "index.html").touch()

    monkeypatch.setattr(front_ends, "pip", pretend)
    layout = Layout(tmp_path, tmp_path / ".runtime")
    wanted = ("1.60.0", tmp_path / ".runtime" / "front_ends" / "1.60.0" / "comfyui_frontend_package" / "static")
    for _ in range(2):
        assert front_ends.installed_front_end("1.60.0", layout, Path("python")) == wanted
    assert asked == ["comfyui-frontend-package==1.60.0"]
    assert front_ends.installed_front_end("newest", layout, Path("python")) == wanted
    assert asked[1:] == ["comfyui-frontend-package"] and not (layout.runtime / "front_ends" / "partial").exists()
