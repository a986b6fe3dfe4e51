"""The benchmark's own parts, by hand: graphs, counting, results that go on, tables. Nothing here is timed."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

import dev.commit
from benchmarks import machine
from benchmarks.chart import draw_lines
from benchmarks.loop import measure, report
from benchmarks.loop.graphs import GRAPHS, MAX_BATCHED, Job, num_shown_frames, our_graph, stock_graph
from benchmarks.loop.measure import QUICK, Settings, expected_bytes
from benchmarks.results import Results
from benchmarks.startup import __main__ as startup

ROOT = Path(__file__).resolve().parents[2]


def of_type(graph, class_type):
    return [node for node in graph.values() if node["class_type"] == class_type]


def test_python_m_benchmarks_lists_what_there_is():
    done = subprocess.run([sys.executable, "-m", "benchmarks"], cwd=ROOT, capture_output=True, text=True, check=True)
    packages = [path.parent.name for path in (ROOT / "benchmarks").glob("*/__main__.py")]
    assert "loop" in packages
    for name in packages:
        assert f"python -m benchmarks.{name}\n    " in done.stdout


def test_startup_counts_no_process_that_had_to_write_bytecode(tmp_path):
    results = Results(tmp_path / "startup.json", {}, {"commit": "c0ffee", "load": "0.10"})
    for number, cpu in enumerate((9.0, 0.2, 0.1, 0.4)):
        results.get(f"process {number}", lambda cpu=cpu: {"modules": 80, "cpu": cpu, "wall": 2 * cpu})
    text = startup.report(results)
    assert "| 3 processes, 80 modules | median | least | most |" in text and "- load: 0.10" in text
    assert "| cpu s to import the pack | 0.200 | 0.100 | 0.400 |" in text


def test_both_graphs_ask_for_the_same_work():
    job = Job(num_clips=3, seed=7)
    ours, stock = our_graph("x.png", job, "a"), stock_graph("x.png", job, "a")
    (generate,) = of_type(ours, "SVIGenerate")
    samplers = of_type(stock, "KSamplerAdvanced")
    assert generate["inputs"]["num_clips"] == 3 and len(samplers) == 6
    assert {node["inputs"]["steps"] for node in samplers} == {of_type(ours, "BasicScheduler")[0]["inputs"]["steps"]}
    assert {node["inputs"]["cfg"] for node in samplers} == {generate["inputs"]["cfg"]}
    assert sorted({node["inputs"]["noise_seed"] for node in samplers}) == [7, 49, 91]
    texts = of_type(ours, "SVIPromptStream")[0]["inputs"]["text"].split("\n\n")
    assert {node["inputs"]["text"] for node in of_type(stock, "CLIPTextEncode")} > set(texts) and len(set(texts)) == 3
    for kind in ("UNETLoader", "LoraLoaderModelOnly", "VAELoader", "CLIPLoader", "SaveVideo"):
        assert of_type(ours, kind) == of_type(stock, kind)


@pytest.mark.parametrize("num_clips", [1, 2, MAX_BATCHED, MAX_BATCHED + 1, 120])
def test_the_stock_graph_shows_every_clip_once_in_order(num_clips):
    graph = stock_graph("x.png", Job(num_clips), "a")

    def shown(link):
        node = graph[link[0]]
        if node["class_type"] != "BatchImagesNode":
            return [link[0]]
        assert len(node["inputs"]) <= MAX_BATCHED
        return [name for part in node["inputs"].values() for name in shown(part)]

    assert shown(graph["video"]["inputs"]["images"]) == ["frames0", *(f"new{clip}" for clip in range(1, num_clips))]


@pytest.mark.parametrize(("kind", "frames"), [("ours", 3 * 76 + 5), ("stock", 3 * 80 + 1)])
def test_frames_shown(kind, frames):
    assert num_shown_frames(kind, Job(3)) == frames


def test_a_stopped_benchmark_goes_on_and_another_commit_begins_anew(tmp_path):
    made = []

    def measure(value):
        made.append(value)
        return {"value": value}

    facts = {"commit": "abc"}
    first = Results(tmp_path / "sub" / "x.json", {"a": [1]}, facts)
    assert first.get("one", lambda: measure(1)) == {"value": 1}
    again = Results(tmp_path / "sub" / "x.json", {"a": [1]}, facts | {"load": "other"})
    assert again.get("one", lambda: measure(2)) == {"value": 1} and made == [1]
    for settings, commit, fresh in (({"a": [2]}, "abc", False), ({"a": [1]}, "abd", False), ({"a": [1]}, "abc", True)):
        assert Results(tmp_path / "sub" / "x.json", settings, {"commit": commit}, fresh).measured == {}


def test_memory_that_a_run_will_need_follows_from_the_runs_before(tmp_path):
    settings = Settings(memory_clips=[3, 10, 30, 100])
    results = Results(tmp_path / "x.json", {}, {"commit": ""})
    assert expected_bytes(results, settings, "stock", 100) == 0
    results.measured.update({"memory stock 3": {"peak_bytes": 100}, "memory stock 10": {"peak_bytes": 170}})
    assert expected_bytes(results, settings, "stock", 30) == 170 + 10 * 20


def measured_by_hand():
    """Two clips each; ours takes 2 s and shows 157 frames, stock takes 4 s and shows 161."""
    counted = {"VAE encodes": 1, "copied frame bytes": 157 * 3 * 4 * 64 * 64, "wall_seconds": 1.0, "cpu_seconds": 1.0}
    measured = {f"counts {kind}": {"cold": counted, "first": counted, "again": counted} for kind in GRAPHS}
    run = {"child_cpu_seconds": 0.5, "video seconds": 0.25, "wall_seconds": 5.0}
    ours, stock = ({"kind": kind, "cpu_seconds": seconds} | run for kind, seconds in (("ours", 2.0), ("stock", 4.0)))
    measured["times 0"] = [ours, stock, stock, ours]
    for kind, slope in (("ours", 0), ("stock", 1_000_000)):
        measured |= {
            f"memory {kind} {n}": {"peak_bytes": 900_000_000 + slope * n, "child_peak_bytes": 50_000_000} for n in (3, 10)
        }
    return measured


def test_every_measurement_is_made_once_and_reported(tmp_path, monkeypatch):
    by_hand, made = measured_by_hand(), []

    def give(kind):
        return lambda bench, settings, *which: made.append((kind, *which)) or by_hand[" ".join(map(str, (kind, *which)))]

    for name, kind in (("counts", "counts"), ("block", "times"), ("memory", "memory")):
        monkeypatch.setattr(measure, f"measure_{name}", give(kind))
    settings = Settings(counted_clips=2, timed_clips=2, num_blocks=1, memory_clips=[3, 10])
    results = Results(tmp_path / "loop.json", asdict(settings), {"commit": "abc"})
    for _ in range(2):
        measure.measure_all(None, settings, results)
    memory = [("memory", kind, clips) for clips in (3, 10) for kind in GRAPHS]
    assert made == [("counts", "ours"), ("counts", "stock"), ("times", 0), *memory]
    assert "| 10 | 900 | 910 |" in report.write_report(results.content, tmp_path)


def test_a_stock_run_that_would_need_too_much_memory_is_left_out(tmp_path, monkeypatch):
    results = Results(tmp_path / "loop.json", {}, {"commit": "abc"})
    results.measured.update(measured_by_hand())
    monkeypatch.setattr(measure, "measure_memory", lambda bench, settings, kind, clips: {"peak_bytes": clips, "kind": kind})
    monkeypatch.setattr(measure, "expected_bytes", lambda results, settings, kind, clips: 10**15 if kind == "stock" else 0)
    measure.measure_all(None, Settings(num_blocks=1, memory_clips=[30]), results)
    assert "memory ours 30" in results.measured and "memory stock 30" not in results.measured


def test_the_tables_say_what_was_measured(tmp_path):
    settings = asdict(Settings(counted_clips=2, timed_clips=2, num_blocks=1, memory_clips=[3, 10, 30]))
    content = {"settings": settings, "machine": {"commit": "abc"}, "measured": measured_by_hand()}
    text = report.write_report(json.loads(json.dumps(content)), tmp_path)
    assert "| copies of each shown frame, as float32 | 1.00 | 0.98 |" in text
    assert "| CPU s for each clip | 1 (1 to 1) | 2 (2 to 2) | **0.50** (0.50 to 0.50) |" in text
    assert "| waiting for video files, % of wall time | 5 (5 to 5) | 5 (5 to 5) |" in text
    assert "| 30 | left out | left out |" in text and "| each clip adds | 0.00 | 1.00 |" in text
    assert "| ffmpeg beside it, at most | 50 | 50 |" in text
    assert "| commit | abc |" in text and (tmp_path / "loop.md").read_text() == text
    assert (tmp_path / "loop.png").read_bytes().startswith(b"\x89PNG")


def test_chart_puts_higher_values_higher():
    import numpy

    picture = numpy.asarray(draw_lines("t", "x", "y", {"a": [(1, 1.0), (10, 9.0)]}))
    rows, columns = numpy.nonzero((picture == (56, 189, 248)).all(-1))
    assert rows[columns == columns.min()].mean() > rows[columns == columns.max()].mean() + 200


def test_the_machine_is_named(comfyui_path):
    facts = machine.machine_facts(comfyui_path)
    assert {"date", "commit", "processor", "memory", "ComfyUI", "packages"} <= set(facts) and all(facts.values())
    assert "torch 2" in facts["packages"]


def test_quick_settings_are_of_the_same_kind():
    assert set(asdict(QUICK)) == set(asdict(Settings())) and max(QUICK.memory_clips) < 5


def test_a_commit_is_named_with_what_was_changed_since_in_code_that_figures_depend_on(tmp_path, monkeypatch):
    def git(*arguments):
        done = subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a", *arguments], cwd=tmp_path, capture_output=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode().strip()

    monkeypatch.delenv("SVI_COMMIT", raising=False)
    monkeypatch.setattr(dev.commit, "REPOSITORY", tmp_path)
    files = {
        "svi_core/a.py": True,
        "nodes/a.py": True,
        "training/configs/a.toml": True,
        "demo/models/a.bin": True,
        "benchmarks/a.py": True,
        "benchmarks/A.md": False,
        "benchmarks/results/a.json": False,
        "tests/a.py": False,
    }
    git("init", "-q")
    for name in files:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("before")
    git("add", "-A")
    git("commit", "-qm", "All of it")
    clean = git("rev-parse", "--short", "HEAD")
    (tmp_path / "svi_core/new.py").write_text("imported by nothing that git knows")
    assert machine.commit() == clean
    for name, matters in files.items():
        (tmp_path / name).write_text("after")
        assert machine.commit() == clean + (" with uncommitted changes" if matters else ""), name
        (tmp_path / name).write_text("before")
    monkeypatch.setenv("SVI_COMMIT", "told")
    assert machine.commit() == "told"
