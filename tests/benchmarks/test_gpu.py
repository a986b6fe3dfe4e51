"""The GPU benchmark at tiny shapes on CPU: the whole command, killed in the middle and resumed; its plan and its record."""

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import torch
from PIL import Image

from benchmarks.gpu import child as child_module
from benchmarks.gpu import command, stage_process
from benchmarks.gpu.bench import BROKEN, Bench, Measured
from benchmarks.gpu.child import End, Limits
from benchmarks.gpu.record import FAILED, MEASURED, RUNNING, STOPPED, Record
from benchmarks.gpu.report import ours_over_stock, write_report
from benchmarks.gpu.shapes import SHAPES
from benchmarks.gpu.stage_process import CROWDED
from benchmarks.gpu.stages import CARDS, H200, PROCESSOR, STAGES, planned

ROOT = Path(__file__).resolve().parents[2]
FULL, TINY = SHAPES["14b"], SHAPES["tiny"]
SETTINGS = stage_process.Options("tiny", "cpu", "", "").settings


def run(module: str, *arguments: str) -> str:
    command = [sys.executable, "-m", f"benchmarks.{module}", *map(str, arguments)]
    variables = os.environ | {"SVI_COMMIT": "tested"}  # a commit between two runs of a test would have all measured again
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=variables)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_cost_of_a_forward_pass_is_that_of_the_method_page():
    """docs/METHOD.md, 11.1 and 11.2: 32 760 tokens, 787 TFLOP linear, 900 attention; a clip 7.1 s in bf16, 3.7 s in 8 bits."""
    assert FULL.num_tokens == 32_760 and FULL.latent_shape == (1, 16, 21, 60, 104)
    assert FULL.linear_tflop == pytest.approx(787, rel=0.01) and FULL.attention_tflop == pytest.approx(900, rel=0.01)
    assert FULL.clip_limit("NVIDIA H200", 4, 16) == pytest.approx(7.1, rel=0.01)
    assert FULL.clip_limit("NVIDIA H200", 4, 8) == pytest.approx(3.7, rel=0.05)
    assert FULL.training_limit("NVIDIA H200", keeps_attention=False) == pytest.approx(6.65, rel=0.05)
    kept = FULL.training_limit("NVIDIA H200", True) / FULL.training_limit("NVIDIA H200", False)
    assert kept == pytest.approx(1 - 0.14, abs=0.005)
    assert FULL.clip_limit("another GPU", 4, 16) is None


SECONDS = {  # for which there is time in a lease of fifteen minutes
    "machine": 20, "kernels": 30, "weights": 40, "forward": 60, "loop": 140, "users": 75, "vae": 50, "training": 160,
}  # fmt: skip


def test_the_plan_has_the_stages_in_order_of_worth_and_their_seconds(capsys):
    assert command.main(["--plan"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "H200" in lines[0]
    assert [line.split(": ")[0].split("   ")[-1] for line in lines[1:]] == [stage.name for stage in STAGES]
    seconds = planned(STAGES, FULL, H200)
    assert [name for name, most in SECONDS.items() if not 5 < seconds[name] <= most] == []
    assert sum(seconds[name] for name in SECONDS) < 8 * 60, "README says --minutes 9, of which a minute is to spare"
    assert list(SECONDS) == [stage.name for stage in STAGES[: len(SECONDS)]] and STAGES[len(SECONDS)].name == "loop again"


def test_what_is_not_measured_is_listed_with_the_seconds_of_the_plan():
    listed = (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8")
    seconds = planned(STAGES, FULL, H200)
    assert [name for name in seconds if f"| `{name}` | {seconds[name]:.0f} |" not in listed] == []


@pytest.mark.parametrize("card", [*CARDS, PROCESSOR], ids=lambda card: card.name)
def test_every_stage_has_seconds_for_every_card(card):
    for stage in STAGES:
        assert 0 < stage.seconds(TINY, card, False) <= stage.seconds(FULL, card, False)
        assert stage.seconds(FULL, card, True) == pytest.approx(stage.seconds(FULL, card, False) + 1.15 * card.start)
        assert 0 < stage.row_seconds(FULL, card) <= stage.seconds(FULL, card, False), stage.name


def test_stages_of_one_process_follow_each_other():
    """Each start costs 12 s on the card, and what one has loaded serves the next."""
    processes = [stage.process for stage in STAGES]
    assert len([name for name, _ in itertools.groupby(processes)]) == len(set(processes)) == 6
    assert {stage.starter for stage in STAGES if stage.process == "users"} == {"dynamic_process"}
    assert {stage.process_on("cuda") for stage in STAGES} == set(processes)
    assert {stage.process_on("cpu") for stage in STAGES} == {"stage_process", "dynamic_process"}


def entry(outcome=MEASURED, **values):
    return {"outcome": outcome, "values": values, "why": "", "commit": "abc", "date": ""}


def test_a_record_goes_on_from_its_file_whatever_the_commit(tmp_path):
    path = tmp_path / "gpu.json"
    record = Record.open(path, SETTINGS)
    record.put("loop", "ours", MEASURED, {"s": 1.0}, commit="one")
    record.put("loop", "stock", FAILED, why="out of memory", commit="one")
    record.put("vae", "decode", RUNNING)
    again = Record.open(path, SETTINGS)
    assert again.is_known("loop", "ours") and again.is_known("loop", "stock") and not again.is_known("vae", "decode")
    assert again.end_running("vae", STOPPED, "time is up") == 1 and not again.is_known("vae", "decode")
    for stage in ("loop", "vae"):
        again.set_state(stage, "finished")
    assert again.is_finished("loop") and not again.is_finished("vae"), "a row that was stopped is measured again"
    again.forget_failures("loop")
    assert list(again.rows("loop")) == ["ours"] and not again.is_finished("loop")
    assert Record.open(path, SETTINGS, fresh=True).stages == {}


@pytest.mark.parametrize("content", ["{", "[]", '{"settings": {}}'])
def test_a_file_that_is_no_record_is_refused(tmp_path, content):
    path = tmp_path / "gpu.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"gpu\.json holds no figures of this benchmark .*: give another --output"):
        Record.open(path, SETTINGS)


def test_figures_of_other_shapes_are_refused(tmp_path):
    Record(tmp_path / "gpu.json", SETTINGS).save()
    with pytest.raises(ValueError, match="is of tiny shapes on cpu: give another --output, or --fresh"):
        Record.open(tmp_path / "gpu.json", stage_process.Options("14b", "cuda", "", "").settings)


@pytest.fixture
def bench(tmp_path):
    record = Record(tmp_path / "gpu.json", SETTINGS, {"GPU": "none"})
    return Bench("loop", TINY, torch.device("cpu"), tmp_path, record, "abc")


def fails(error):
    raise error


ENDS = {
    "not finite": (lambda: Measured({"s": 1.0}, [torch.ones(3), torch.tensor([1.0, float("nan")])]), "1 of 2 numbers are not"),
    "infinite": (lambda: Measured({"s": 1.0}, [torch.tensor(float("inf"))]), "1 of 1 numbers are not finite"),
    "nothing to check": (lambda: Measured({"s": 1.0}, []), "there is no result to check"),
    "empty": (lambda: Measured({"s": 1.0}, [torch.empty(0)]), "there is no result to check"),
    "no memory": (lambda: fails(torch.OutOfMemoryError("CUDA out of memory\nmore")), "OutOfMemoryError: CUDA out of memory"),
    "a bug": (lambda: fails(AssertionError()), "AssertionError"),
    "a missing package": (lambda: fails(ModuleNotFoundError("No module named 'x'")), "ModuleNotFoundError: No module"),
}


@pytest.mark.parametrize("case", ENDS)
def test_whatever_goes_wrong_in_a_row_is_its_outcome_and_the_next_has_its_turn(bench, case):
    measure, why = ENDS[case]
    bench.measure("first", measure)
    bench.measure("second", lambda: Measured({"s": 2.0}, [torch.ones(1)]))
    rows = Record.open(bench.record.path, SETTINGS).rows("loop")
    assert rows["first"]["outcome"] == FAILED and why in rows["first"]["why"] and "more" not in rows["first"]["why"]
    assert rows["second"]["outcome"] == MEASURED and rows["second"]["values"] == {"s": 2.0}
    assert f"failed: {rows['first']['why']}" in (bench.record.path.parent / "gpu.md").read_text()
    bench.measure("first", lambda: fails(RuntimeError("it was not to be measured again")))
    assert bench.record.rows("loop")["first"] == rows["first"]


def test_the_report_compares_ours_with_stock_and_draws_what_there_is(tmp_path):
    record = Record(tmp_path / "gpu.json", SETTINGS, {"GPU": "NVIDIA H200, 140 GiB"})
    ours, stock = (entry(**{"s per clip": 3 * s, "s per new frame": s}) for s in (1.0, 2.0))
    record.stages = {"loop": {"state": "finished", "rows": {"ours": ours, "stock": stock}}}
    record.set_state("users", "skipped: it takes about 60 s, and 3 s were left")
    text = write_report(record)
    assert ours_over_stock(record).endswith("**0.500** (0.500)")
    assert "| ours | 3 | 1 |" in text and "- users: skipped: it takes about 60 s, and 3 s were left" in text
    assert "| GPU | NVIDIA H200, 140 GiB |" in text and (tmp_path / "gpu.md").read_text() == text
    assert height_of(tmp_path / "gpu.png") == 70 + 2 * 34


def height_of(picture: Path) -> int:
    with Image.open(picture) as opened:
        return opened.height


LOOP = next(stage for stage in STAGES if stage.name == "loop")


@pytest.fixture
def told(tmp_path):
    return stage_process.Options("tiny", "cpu", str(tmp_path), str(tmp_path / "work"))


def runner(told, minutes=None):
    if not told.path.exists():
        Record(told.path, SETTINGS).save()
    return command.Runner(told, PROCESSOR, command.Budget(minutes))


def test_a_stage_whose_first_row_does_not_fit_is_skipped_and_named(told, monkeypatch):
    monkeypatch.setattr(command, "Child", lambda *_: pytest.fail("it was started"))
    runs = runner(told, 1.0)
    runs.run(LOOP)
    assert runs.record.note("loop").startswith("skipped: its first row takes about ") and "57 s were left" in runs.record.note(
        "loop"
    )
    assert not runs.record.is_finished("loop")


class ScriptedChild:
    """A process whose stages end as told: the row that it begins, and how it ends."""

    script: list
    begun: list

    def __init__(self, name, starter, options):
        self.name, self.told, self.code = name, options, None
        self.begun.append(name)

    def run(self, stage, limits):
        row, end, self.code = self.script.pop(0)
        record = Record.open(self.told.path, SETTINGS)
        if row:
            outcome = FAILED if self.code == BROKEN else MEASURED if end is End.FINISHED else RUNNING
            record.put(stage.name, row, outcome)
        if end is End.FINISHED:
            record.set_state(stage.name, "finished")
        return end

    def end(self):
        pass


@pytest.fixture
def scripted(monkeypatch):
    def script(*ends):
        ScriptedChild.script, ScriptedChild.begun = list(ends), []
        monkeypatch.setattr(command, "Child", ScriptedChild)
        return ScriptedChild

    return script


DONE = (End.FINISHED, None)


@pytest.mark.parametrize(
    ("ends", "outcomes", "note"),
    [
        ((("a", End.DIED, -9), ("b", *DONE)), {"a": FAILED, "b": MEASURED}, ""),
        ((("a", End.DIED, BROKEN), ("b", *DONE)), {"a": FAILED, "b": MEASURED}, ""),
        ((("a", End.ROW_TIME, None), ("b", *DONE)), {"a": FAILED, "b": MEASURED}, ""),
        ((("a", End.STAGE_TIME, None),), {"a": FAILED}, "stopped: the stage's time was up"),
        (
            (("a", End.DIED, -11), ("b", End.DIED, -11), ("", End.DIED, 1)),
            {"a": FAILED, "b": FAILED},
            "failed: the process ended",
        ),
        ((("", End.DIED, 1),), {}, "failed: the process ended with exit code 1"),
        ((("", End.ROW_TIME, None),), {}, "failed: the row's time was up"),
    ],
)
def test_a_row_that_dies_or_hangs_is_lost_and_the_others_get_a_new_process(told, scripted, ends, outcomes, note):
    child, runs = scripted(*ends), runner(told)
    runs.run(LOOP)
    assert {name: row["outcome"] for name, row in runs.record.rows("loop").items()} == outcomes
    assert runs.record.note("loop").startswith(note) and runs.record.is_finished("loop") == (not note)
    assert child.script == [] and all(row["why"] for name, row in runs.record.rows("loop").items() if name == "a" and note)


def test_a_row_that_the_end_of_the_time_cut_off_is_not_a_failure(told, scripted):
    """The same command measures it when there is time again."""
    scripted(("a", End.STAGE_TIME, None))
    runs = runner(told)
    runs._budget = SimpleNamespace(left=0.0)
    runs._once(LOOP, 0.0)
    assert runs.record.rows("loop")["a"]["outcome"] == STOPPED
    assert runs.record.note("loop") == "stopped: the time of --minutes was up"


def test_stages_share_a_process_until_it_dies_or_holds_too_much(told, scripted):
    again = [stage for stage in STAGES if stage.process == "again"]
    child = scripted(("a", *DONE), ("a", End.DIED, -9), ("b", *DONE), ("", End.DIED, CROWDED), ("a", *DONE), ("a", *DONE))
    runs = runner(told)
    for stage in again:
        runs.run(stage)
    assert child.begun == ["stage_process"] * 3 and child.script == []
    assert all(runs.record.is_finished(stage.name) for stage in again)
    assert runs.record.rows(again[1].name)["a"]["outcome"] == FAILED


def test_what_a_stage_left_is_freed_before_another_unless_that_takes_it_over(monkeypatch, told):
    """Compiled code of `more training` holds its model, and `smallest card` would find less memory than the card has."""
    ran, names = [], iter([stage.name for stage in STAGES])
    monkeypatch.setattr(stage_process, "free_memory", lambda device: ran.append("free"))
    monkeypatch.setattr(
        stage_process, "open_bench", lambda name, told: Bench(name, TINY, torch.device("cpu"), Path(), runner(told).record, "")
    )
    monkeypatch.setattr(
        stage_process, "importlib", SimpleNamespace(import_module=lambda name: SimpleNamespace(measure=ran.append))
    )
    monkeypatch.setattr(stage_process, "stages_to_run", lambda: SimpleNamespace(get=lambda: next(names)))
    with pytest.raises(StopIteration):
        stage_process.main([json.dumps(vars(told))])
    stages = [name if name == "free" else name.stage for name in ran]
    kept = [(before, after) for before, after in itertools.pairwise(stages) if "free" not in (before, after)]
    assert kept == [("loop again", "compiled"), ("compiled", "fetched")] and stages.count("free") == len(STAGES) - 3


@pytest.fixture
def slow_stage(monkeypatch, told, tmp_path):
    """A stage in a real process, whose second row never ends."""
    module = tmp_path / "slow_stage.py"
    module.write_text(
        "import sys, time, torch\n"
        "from benchmarks.gpu import stage_process, stages\n"
        "from benchmarks.gpu.bench import Measured\n"
        "class Slow:\n"
        "    name, module, loads = 'loop', 'slow_stage', ''\n"
        "def measure(bench):\n"
        "    for row, seconds in (('first', 0), ('second', 600), ('third', 0)):\n"
        "        bench.measure(row, lambda: time.sleep(seconds) or Measured({'s': 1.0}, [torch.ones(1)]))\n"
        "sys.modules['benchmarks.gpu.slow_stage'] = sys.modules['__main__']\n"
        "stage_process.STAGES = [Slow]\n"
        "stage_process.main(sys.argv[1:])\n"
    )
    plain = subprocess.Popen

    def popen(arguments, **options):
        arguments = [arguments[0], str(module), *arguments[3:]]
        return plain(arguments, **options, env=os.environ | {"PYTHONPATH": str(ROOT)})

    monkeypatch.setattr(child_module.subprocess, "Popen", popen)
    Record(told.path, SETTINGS).save()
    return told


@pytest.mark.slow
def test_a_row_that_hangs_is_ended_with_its_process(slow_stage):
    child = child_module.Child(LOOP.process, LOOP.starter, slow_stage)
    assert child.run(LOOP, Limits(time.monotonic() + 300, 30.0)) is End.ROW_TIME
    rows = Record.open(slow_stage.path, SETTINGS).rows("loop")
    assert {name: row["outcome"] for name, row in rows.items()} == {"first": MEASURED, "second": RUNNING}
    assert processes_of(slow_stage.output) == []
    record = Record.open(slow_stage.path, SETTINGS)
    record.end_running("loop", FAILED, "it hung")
    child = child_module.Child(LOOP.process, LOOP.starter, slow_stage)
    assert child.run(LOOP, Limits(time.monotonic() + 300, 60.0)) is End.FINISHED
    child.end()
    rows = Record.open(slow_stage.path, SETTINGS).rows("loop")
    assert {name: row["outcome"] for name, row in rows.items()} == {"first": MEASURED, "second": FAILED, "third": MEASURED}


def processes_of(output) -> list[psutil.Process]:
    """Return the processes that were told this folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(str(output) in argument for argument in process.cmdline()) and process.pid != os.getpid():
                found.append(process)
    return found


def wait_until(holds, seconds=600.0):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.05)


@dataclass(frozen=True)
class WholeRun:
    """The command at tiny shapes: what it had written when it was killed, and what it came to."""

    output: Path
    killed: dict
    record: Record
    printed: str


@pytest.fixture(scope="module")
def whole_run(comfyui_path, tmp_path_factory):
    """Run the whole command, kill -9 it while clips are made, and give the same command again."""
    output, work = tmp_path_factory.mktemp("gpu"), tmp_path_factory.mktemp("work")
    given = [sys.executable, "-m", "benchmarks.gpu", "--shapes", "tiny", "--device", "cpu"]
    given += ["--output", str(output), "--work", str(work)]
    variables = os.environ | {"SVI_COMMIT": "tested"}
    first = subprocess.Popen(given, cwd=ROOT, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(lambda: RUNNING in outcomes_of(output, "loop"))
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()
    wait_until(lambda: not processes_of(output), seconds=60.0)  # nobody goes on in secret and holds the card
    killed = json.loads((output / "gpu.json").read_text())
    done = subprocess.run(given, cwd=ROOT, env=variables, capture_output=True, text=True)
    record = Record.open(output / "gpu.json", SETTINGS)
    assert all(record.is_finished(stage.name) for stage in STAGES), done.stderr[-2000:]
    return WholeRun(output, killed, record, done.stdout)


def outcomes_of(output, stage):
    path = output / "gpu.json"
    rows = json.loads(path.read_text())["stages"].get(stage, {}).get("rows", {}) if path.exists() else {}
    return [row["outcome"] for row in rows.values()]


MISSING_ON_A_CPU = ("cudnn", "cuDNN", "to fp8, cuda")


def test_the_whole_command_measures_every_row_that_a_cpu_can(whole_run):
    for stage in STAGES:
        rows = whole_run.record.rows(stage.name)
        assert rows, stage.name
        for name, row in rows.items():
            assert (row["outcome"] == FAILED) == any(part in name for part in MISSING_ON_A_CPU), (stage.name, name, row)
            assert row["outcome"] == FAILED or stage.first in row["values"], (stage.name, name)
            assert f"| {name} | " in whole_run.printed
    assert "these figures only show that the benchmark works" in whole_run.printed
    assert (whole_run.output / "gpu.md").read_text() == whole_run.printed[whole_run.printed.index("## machine") :]
    assert height_of(whole_run.output / "gpu.png") > 1000
    assert {path.name for path in whole_run.output.iterdir()} == {"gpu.json", "gpu.md", "gpu.png", "gpu.log"}


def test_what_was_measured_before_the_kill_is_kept_and_the_row_that_was_cut_off_is_measured(whole_run):
    before = {(stage, row): found for stage, part in whole_run.killed["stages"].items() for row, found in part["rows"].items()}
    after = {key: whole_run.record.rows(key[0])[key[1]] for key in before}
    cut = [key for key, found in before.items() if found["outcome"] == RUNNING]
    assert cut == [("loop", "ours")] and after[cut[0]]["outcome"] == MEASURED
    assert len(before) > 30 and all(after[key] == found for key, found in before.items() if key not in cut)


def test_the_rows_of_clips_say_what_they_are(whole_run):
    """Compiled by a backend that runs graphs as they are, ours makes the same latent; stages add up; LoRAs have a row."""
    ours, stock = (whole_run.record.rows("loop")[kind]["values"] for kind in ("ours", "stock"))
    assert round(ours["s"] / ours["s per new frame"]) == 3 * (9 - 5) + 5
    assert round(stock["s"] / stock["s per new frame"]) == 3 * (9 - 1) + 1
    for row in (ours, stock):
        stages = [row[name] for name in ("conditioning", "transformer", "decode", "waiting for video", "rest")]
        assert min(stages[:4]) > 0 and sum(stages) == pytest.approx(row["s"])
        assert row["first clip, s"] > 0 and row["further clips, s"] > 0
    compiled = whole_run.record.rows("compiled")["ours, compiled"]["values"]
    assert compiled["deviation"] == 0.0 and compiled["with compiling"] > 0
    with_loras = whole_run.record.rows("users")["with both LoRAs"]["values"]
    assert with_loras["dynamic memory"].startswith("off") and with_loras["attention"] == "ComfyUI's"
    assert ours["dtype"] == "float32" and ours["in use on the card, GiB"] == ""
    assert list(whole_run.record.rows("loop again")) == ["stock", "ours"]


def test_a_finished_command_measures_nothing_again(whole_run):
    before = (whole_run.output / "gpu.json").read_bytes()
    output = ["--shapes", "tiny", "--device", "cpu", "--output", str(whole_run.output), "--work", str(whole_run.output / "w")]
    assert command.main(output) == 1, "rows that this machine cannot measure are failures"
    assert (whole_run.output / "gpu.json").read_bytes() == before


class WrongGradient(torch.autograd.Function):
    """Passes a tensor through, and its gradient with the last row doubled."""

    @staticmethod
    def forward(context, x):
        return x.clone()

    @staticmethod
    def backward(context, gradient):
        gradient = gradient.clone()
        gradient[:, -1] *= 2
        return gradient


@pytest.mark.parametrize("wrong", ["", "q", "k", "v"])
def test_a_backward_pass_that_is_wrong_in_one_token_is_seen(bench, comfy, wrong):
    from benchmarks.gpu import kernels

    def attend(q, k, v, heads):
        q, k, v = (WrongGradient.apply(t) if name == wrong else t for name, t in (("q", q), ("k", k), ("v", v)))
        return kernels._comfys(q.float(), k.float(), v.float(), heads).to(q.dtype)

    found = kernels.attention_row(bench, attend, TINY.num_tokens, TINY.num_tokens, backward=True)
    assert found.values["deviation"] > 0.2 if wrong else 0 < found.values["deviation"] < 0.01
    assert [result.shape for result in found.results] == [(1, TINY.num_tokens, TINY.dim)] * 3


def test_a_kernel_without_backward_pass_says_so(bench, comfy):
    from benchmarks.gpu import kernels

    def attend(q, k, v, heads):
        return kernels._comfys(q.detach(), k.detach(), v.detach(), heads)

    with pytest.raises(ValueError, match="forward only"):
        kernels.attention_row(bench, attend, TINY.num_tokens, TINY.num_tokens, backward=True)


def test_flash_attention_3_is_measured_backward_too(bench, comfy, monkeypatch):
    from benchmarks.gpu import kernels

    known = kernels.pack_module("nodes.bridge.attention_kernels")
    made = {name: known.Kernel(lambda *inputs: kernels._comfys(*inputs)) for name in ("flash 3", "ComfyUI's sage")}
    monkeypatch.setattr(known, "known_kernels", lambda: made)
    monkeypatch.setattr(kernels, "chosen_row", lambda *_: Measured({"ms": 1.0}, [torch.ones(1)]))
    kernels.measure_attention(bench)
    rows = bench.record.rows(bench.stage)
    backward = {name: row for name, row in rows.items() if name.endswith("backward")}
    assert [name.split(", ")[1] for name in backward] == ["ComfyUI's choice", "flash 3"]
    assert all(row["outcome"] == MEASURED and row["values"]["deviation"] < 0.1 for row in backward.values()), backward


@pytest.fixture
def places(tmp_path, monkeypatch):
    """Two places for weights, and how much is free in each."""
    from benchmarks.gpu import weights

    free = {"memory": 18e9, "disk": 18e9}
    found = {name: tmp_path / name for name in free}
    for place in found.values():
        place.mkdir()
    monkeypatch.setattr(weights, "IN_MEMORY", found["memory"])
    monkeypatch.setattr(weights.tempfile, "gettempdir", lambda: str(found["disk"]))
    monkeypatch.setattr(weights.shutil, "disk_usage", lambda place: SimpleNamespace(free=free[Path(place).name]))
    return weights, found, free


def test_weights_lie_in_memory_where_there_is_room(places):
    weights, found, free = places
    folder = weights.work_folder(FULL)
    assert folder.parent == found["memory"] and (os.name == "nt" or folder.stat().st_mode & 0o777 == 0o700)
    folder.rmdir()
    free["memory"] = 15e9
    assert weights.work_folder(FULL).parent == found["disk"]
    free["disk"] = 1e9
    assert weights.work_folder(FULL).parent == found["disk"], "that of an earlier run, whose weights are there"
    weights.work_folder(FULL).rmdir()
    with pytest.raises(
        ValueError, match="the weights need 17 GB, which are free neither in .* nor in .*: name a folder with --work"
    ):
        weights.work_folder(FULL)


@pytest.mark.skipif(os.name == "nt", reason="folders of others are POSIX")
@pytest.mark.parametrize("kind", ["link", "writable by all", "file"])
def test_a_folder_that_others_may_have_made_is_refused(places, tmp_path, kind):
    """Anybody may make one of that name in /dev/shm, and put other weights there."""
    weights, found, _ = places
    folder = found["memory"] / f"svi-benchmark-{os.getuid()}"
    if kind == "link":
        folder.symlink_to(tmp_path)
    elif kind == "file":
        folder.write_text("")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    with pytest.raises((ValueError, FileExistsError)):
        weights.work_folder(FULL)


def test_what_a_killed_writer_left_is_removed(tmp_path):
    """14 GB in memory, which nobody would find."""
    from benchmarks.gpu.weights import remove_leftovers
    from svi_core.files.atomic_file import STAGING_MARK

    (tmp_path / "weights").mkdir()
    left, whole = (tmp_path / "weights" / name for name in (f"14b-expert.77{STAGING_MARK}.safetensors", "14b-vae.safetensors"))
    for path in (left, whole):
        path.write_text("")
    remove_leftovers(tmp_path)
    assert not left.exists() and whole.exists()


def test_dynamic_memory_is_prepared_as_comfyui_does_it(monkeypatch):
    from benchmarks.gpu import dynamic_process

    monkeypatch.setitem(sys.modules, "comfy_aimdo", None)
    monkeypatch.setattr(dynamic_process.importlib.util, "find_spec", lambda name: None)
    for before, after in (
        (None, "backend:cudaMallocAsync"),
        ("expandable_segments:True", "expandable_segments:True,backend:cudaMallocAsync"),
        ("backend:native", "backend:native"),
    ):
        monkeypatch.delenv(dynamic_process.ALLOCATOR, raising=False)
        if before:
            monkeypatch.setenv(dynamic_process.ALLOCATOR, before)
        dynamic_process.prepare()
        assert os.environ[dynamic_process.ALLOCATOR] == after


@pytest.mark.parametrize(
    ("kind", "why"), [("absent", "not installed"), ("fails", "failed (no driver)"), ("refuses", "does not start")]
)
def test_users_are_measured_without_dynamic_memory_too(comfy, monkeypatch, kind, why):
    """As ComfyUI runs where comfy-aimdo does not start: the figure of users matters most."""
    import comfy_aimdo.control

    from benchmarks.gpu import comfyui

    def init_devices(devices):
        if kind == "fails":
            raise OSError("no driver")
        return False

    monkeypatch.setattr(comfyui, "load_pack", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(comfy_aimdo.control, "init_devices", init_devices)
    if kind == "absent":
        monkeypatch.setattr(comfyui.importlib.util, "find_spec", lambda name: None)
    assert comfyui.start_dynamic_memory().startswith("off: ") and why in comfyui.start_dynamic_memory()


def test_without_a_gpu_the_real_thing_says_so(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is one here")
    with pytest.raises(
        ValueError, match="PyTorch sees no CUDA device here: use a machine with one, or try it with --device cpu"
    ):
        stage_process.open_bench("machine", stage_process.Options("tiny", "cuda", str(tmp_path), str(tmp_path)))


def test_weights_are_files_that_comfyui_loads_as_what_they_say(tmp_path, comfy, monkeypatch):
    """Scaled fp8: normal numbers of unit gain, every key of the model, nothing infinite; not made durable, which costs time."""
    import comfy.sd
    from safetensors.torch import load_file

    from benchmarks.gpu.weights import expert_file, lora_file, vae_file, weights_exist

    monkeypatch.setattr(os, "fsync", lambda handle: pytest.fail("29 GB would be written through to the disk"))
    device = torch.device("cpu")
    file = expert_file(tmp_path, TINY, device)
    tensors = load_file(file)
    codes, scale = (tensors[f"blocks.1.ffn.0.weight{end}"] for end in ("", "_scale"))
    assert codes.dtype is torch.float8_e4m3fn
    values = codes.float() * scale
    assert float(values.std()) == pytest.approx(TINY.dim**-0.5, rel=0.05) and values.isfinite().all()
    model = comfy.sd.load_diffusion_model(str(file))
    assert type(model.model.diffusion_model.blocks[0].ffn[0].weight).__name__ == "QuantizedTensor"
    assert len(model.model.diffusion_model.blocks) == TINY.num_layers
    vae = load_file(vae_file(tmp_path, TINY, device))
    assert all(tensor.dtype is torch.bfloat16 and tensor.isfinite().all() for tensor in vae.values())
    assert not weights_exist(tmp_path, TINY)
    ranks = [load_file(lora_file(tmp_path, TINY, device, name)) for name in ("svi", "distilled")]
    layers = {key.split(".lora_")[0].removeprefix("diffusion_model.") for key in ranks[0]}
    assert {f"{layer}.weight" for layer in layers} == {key for key in tensors if codes.dtype is tensors[key].dtype}
    assert [next(iter(lora.values())).shape[0] for lora in ranks] == [TINY.lora_rank, TINY.lora_rank // 2]
    assert weights_exist(tmp_path, TINY)


def test_the_bank_is_timed_at_small_sizes_too(tmp_path):
    output = run("bank", "--quick", "--output", tmp_path)
    for row in ("2 RAM", "2 file", "4 RAM", "4 file"):
        assert f"| {row} |" in output
    found = json.loads((tmp_path / "bank.json").read_text())["measured"]["4 file"]
    assert found["draw"] > 0 and found["insertion"] > 0 and found["waited"] >= 0
    assert Image.open(tmp_path / "bank.png").size[0] > 100
    assert not (tmp_path / "bank.work").exists()


@pytest.mark.slow
def test_every_gain_is_exact_where_it_says_so(tmp_path, comfyui_path):
    """Frames, gradients and outputs are equal to the last bit; times at this size say nothing and are not looked at.

    The VAE's weights in another order give sums in another order.
    """
    run("gains", "--quick", "--output", tmp_path)
    measured = json.loads((tmp_path / "gains.json").read_text())["measured"]
    assert len(measured) == 17 and height_of(tmp_path / "gains.png") > 100
    for row, found in measured.items():
        assert all(value > 0 for value in found["before"] + found["after"]), row
        if "last" in row or "drift" in row:  # sums in another order
            assert found["deviation"] < 1e-3
        elif "gradients" not in row:
            assert found["deviation"] == ("" if any(word in row for word in ("fp8", "GB", "off by")) else 0.0), row
    for row in ("GB that decoding a clip writes", "GB of the tensors that it makes"):
        assert measured[row]["after"] < measured[row]["before"]
    fp8 = measured["share of a LoRA left in fp8"]
    assert fp8["before"][0] < 0.5 < 0.9 < fp8["after"][0] < 1.1
