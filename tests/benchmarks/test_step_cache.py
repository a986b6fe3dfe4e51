"""The benchmark of EasyCache: its graphs, and its table on made-up numbers. The node: tests/nodes/bridge/test_step_cache.py."""

from types import SimpleNamespace

from benchmarks.results import Results
from benchmarks.step_cache import __main__ as step_cache


def graph(threshold):
    server = SimpleNamespace(add_input=lambda path: path.name)
    return step_cache.graph_of(server, "boat.png", threshold, num_clips=2, num_steps=50)


def test_easycache_goes_behind_both_experts_and_nothing_else_changes():
    plain, cached = graph(0.0), graph(0.2)
    added = {key: node for key, node in cached.items() if key not in plain}
    assert [node["class_type"] for node in added.values()] == ["EasyCache", "EasyCache"]
    assert all(node["inputs"]["reuse_threshold"] == 0.2 for node in added.values())
    generate = next(key for key, node in plain.items() if node["class_type"] == "SVIGenerate")
    before, after = plain[generate]["inputs"], cached[generate]["inputs"]
    assert {name for name in before if before[name] != after[name]} == {"model", "model_low_noise", "filename_prefix"}
    for name in ("model", "model_low_noise"):
        assert cached[after[name][0]]["inputs"]["model"] == before[name]
    assert all(cached[key] == node for key, node in plain.items() if key != generate)


def test_the_log_tells_what_was_skipped():
    line = "EasyCache - skipped 17/24 steps (3.43x speedup)."
    assert step_cache.SKIPPED.findall(line + "\n" + line.replace("17", "3")) == [("17", "24"), ("3", "24")]


def test_the_table_shows_drift_beside_what_is_saved(tmp_path):
    results = Results(tmp_path / "step_cache.json", {}, {"date": "today"}, fresh=True)
    found = {"skipped": 0.4, "seconds": 61.2, "colour": 0.021, "sharpness": -0.3, "contrast": 0.01, "away": 4.26, "valid": 1.0}
    results.get("boat.png, threshold 0.2", lambda: found)
    text, shares = step_cache.report(results)
    assert (
        "| boat.png, threshold 0.2 | 40 | 61 | 0.021 | -0.300 | +0.010 | 4.3 | valid |" in text and "| date | today |" in text
    )
    assert shares == {"boat.png, threshold 0.2": 0.4}
