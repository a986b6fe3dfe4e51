"""What the batch benchmark measures, against a stand-in for ComfyUI whose stories take two seconds of its own clock."""

import json
from pathlib import Path

import pytest

from benchmarks.batch import __main__ as benchmark
from benchmarks.results import Results
from comfyui.client import RemoteServer
from tests.batch.fake_comfyui import FakeComfyUI, workflow


def test_both_ways_make_the_same_stories_in_turn(tmp_path: Path, monkeypatch):
    (tmp_path / "graph.json").write_text(json.dumps(workflow()))
    monkeypatch.setattr(benchmark, "GRAPH", tmp_path / "graph.json")
    results = Results(tmp_path / "batch.json", {}, {"commit": "c"})
    with FakeComfyUI() as server:
        benchmark.measure(RemoteServer(server.url), tmp_path, results, num_stories=2, num_rounds=2)
        queued = [graph["4"]["inputs"] for graph in server.queued]
    assert list(results.measured) == ["by hand 0", "batch run 0", "batch run 1", "by hand 1"], "who is first changes"
    assert all(one["executed"] == 4.0 and one["wall"] > 0 for one in results.measured.values())
    assert [inputs["seed"] for inputs in queued] == [0, 1, 2, 1001, 1002, 2001, 2002, 3001, 3002], "nothing is in a cache"
    assert {inputs["num_clips"] for inputs in queued} == {3}


def test_the_table_says_what_the_command_adds(tmp_path: Path):
    results = Results(tmp_path / "batch.json", {}, {"commit": "c"})
    for number, slow in enumerate((1.0, 3.0, 2.0)):  # a machine that others use
        results.get(f"by hand {number}", lambda slow=slow: {"wall": 21.0 * slow, "executed": 20.0 * slow})
        results.get(f"batch run {number}", lambda slow=slow: {"wall": 21.4 * slow, "executed": 20.0 * slow})
    text = benchmark.report(results, num_stories=2, num_rounds=3)
    assert "| by hand | 3 | 20.00 | 1.000 |" in text and "| batch run | 3 | 20.00 | 1.400 |" in text
    assert "The command adds 0.400 s to a story, 1.9% of its 21.00 s by hand." in text


def test_a_measurement_that_is_missing_is_no_table(tmp_path: Path):
    with pytest.raises(KeyError):
        benchmark.report(Results(tmp_path / "batch.json", {}, {"commit": "c"}), 2, 1)
