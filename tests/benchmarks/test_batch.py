"""What the batch benchmark measures, against a stand-in for ComfyUI whose stories take two seconds of its own clock."""

import json
from pathlib import Path

import pytest

from benchmarks.batch import __main__ as benchmark
from benchmarks.results import Results
from comfyui.client import RemoteServer
from tests.batch.fake_comfyui import FakeComfyUI, workflow


def interrupted(*_: object) -> float:
    raise KeyboardInterrupt


def test_pairs_of_stories_alternate_and_a_large_table_is_checked_and_placed(tmp_path: Path, monkeypatch):
    """In two goes: what was measured before Ctrl-C is not measured again."""
    (tmp_path / "graph.json").write_text(json.dumps(workflow()))
    monkeypatch.setattr(benchmark, "GRAPH", tmp_path / "graph.json")
    monkeypatch.setattr(benchmark, "MANY", 3)
    with FakeComfyUI() as server:
        with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
            stopped.setattr(benchmark.run, "main", interrupted)  # which checks the table; stories are made in other processes
            results = Results(tmp_path / "batch.json", {}, {"commit": "c"})
            benchmark.measure(RemoteServer(server.url), tmp_path, results, num_pairs=1)
        assert list(results.measured) == ["by hand 0", "batch run 0"]
        results = Results(tmp_path / "batch.json", {}, {"commit": "c"})
        benchmark.measure(RemoteServer(server.url), tmp_path, results, num_pairs=2)
        queued = [graph["4"]["inputs"] for graph in server.queued]
    pairs = ["by hand 0", "batch run 0", "batch run 1", "by hand 1"]
    assert list(results.measured) == [*pairs, "check", "place", "place mixed"], "who is first changes"
    assert all(results.measured[name]["executed"] == 2.0 and results.measured[name]["wall"] > 0 for name in pairs)
    assert [inputs["seed"] for inputs in queued] == [0, 1, 2, 0, 3, 4], (
        "nothing is in a cache, and nothing is made of the large table"
    )
    assert {inputs["num_clips"] for inputs in queued} == {3}
    rows = [json.loads(line) for line in (tmp_path / "checked.jsonl").read_text().splitlines()]
    assert [len(row["prompts"]) for row in rows] == [51] * 3
    assert results.measured["check"] > 0 and results.measured["place"] > 0
    assert results.measured["place mixed"] > 0


def test_the_table_says_what_the_command_adds(tmp_path: Path):
    results = Results(tmp_path / "batch.json", {}, {"commit": "c"})
    for number, (slow, added) in enumerate(((1.0, 0.4), (3.0, 0.6), (2.0, 0.3))):  # a machine that others use
        results.get(f"by hand {number}", lambda slow=slow: {"wall": 10.0 * slow + 1, "executed": 10.0 * slow})
        results.get(
            f"batch run {number}", lambda slow=slow, added=added: {"wall": 11.0 * slow + 1 + added, "executed": 11.0 * slow}
        )
    results.measured.update(check=4.04, place=0.5)
    results.measured["place mixed"] = 2.5
    text = benchmark.report(results, num_pairs=3)
    assert "| 2 | 30.00 | 33.00 | 1.000 | 1.600 |" in text
    assert "The command adds 0.400 s to a story (0.300 to 0.600), 1.9% of its 21.00 s by hand" in text
    assert (
        "checks 1000 rows of 51 prompts in 4.0 s of one core, and gives each of 1000 stories to one of 100 places in 0.50 ms, "
        "in 2.50 ms with a LoRA of its own." in text
    )


def test_a_measurement_that_is_missing_is_no_table(tmp_path: Path):
    with pytest.raises(KeyError):
        benchmark.report(Results(tmp_path / "batch.json", {}, {"commit": "c"}), 1)
