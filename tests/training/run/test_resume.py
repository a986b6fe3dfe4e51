"""A stopped run resumes bit for bit: after kill -9 at chosen places (tests/kill: anywhere), signals, damaged checkpoints."""

import errno
import importlib
import json
import math
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.fakes import FakeDataset, settings
from training.method.banks import Banks
from training.method.distributed import Group
from training.run.checkpoint import checkpoints
from training.run.report import write_report
from training.run.run_folder import RunFolder, begun_config, resumed_config
from training.run.stop_signal import BY_FILE
from training.settings.reader import config_table

pytestmark = [
    pytest.mark.usefixtures("training_mode"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes, which this system does not have"),
]
ROOT = Path(__file__).resolve().parents[3]
BANKS = ["ram", "file"]


def config_for(run: Path, wan_folder: Path, bank: str = "ram", **sections):
    return settings(
        run, model={"expert": "high", "path": str(wan_folder / "fp32.safetensors")}, bank={"storage": bank}, **sections
    )


def start(config, tmp_path: Path, comfyui_path: Path) -> subprocess.Popen:
    """Begin to train in another process."""
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(config_table(config)))
    environment = {**os.environ, "COMFYUI_PATH": str(comfyui_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.training.train_fake", str(path)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def train_in_a_fork_that_dies(config, module_name: str, function: str, at_call: int) -> int:
    """Train in a forked process that is killed as by kill -9 at a call of a function of a module."""
    module = importlib.import_module(module_name)
    child = os.fork()
    if child == 0:
        original, calls = getattr(module, function), [0]

        def dying(*arguments, **options):
            calls[0] += 1
            if calls[0] == at_call:
                os.kill(os.getpid(), signal.SIGKILL)
            return original(*arguments, **options)

        setattr(module, function, dying)
        try:
            train_here(config)
        finally:
            os._exit(99)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def train_here(config, resume: bool = False, data=None) -> int:
    from training.run.session import run_training

    return run_training(config, Group(), lambda *_: data or FakeDataset(), resume=resume)


def outcome(run: Path) -> dict:
    """Return everything that must not depend on interruptions."""
    newest = checkpoints(run)[0]
    files = {path.name: path.read_bytes() for path in newest.iterdir() if path.name in ("adapters.safetensors",)}
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [(line["step"], line["loss"], line["gradient_norm"]) for line in lines if line["kind"] == "step"]
    lora = (run / f"{run.name}.safetensors").read_bytes()
    state = json.loads((newest / "state.json").read_text())
    optimizer, errors = optimizer_of(newest), errors_of(run, newest)
    return {"files": files, "losses": losses, "lora": lora, "optimizer": optimizer, "errors": errors, "step": state["step"]}


def errors_of(run: Path, checkpoint: Path) -> dict:
    """Return what the first process's banks hold at a checkpoint, in its order, wherever they lie."""
    config = begun_config(run)
    limits = {"num_snapshots": config.loop.keep_checkpoints + 1, "expected_entries": 100}
    with closing(Banks(config.recycling, config.bank, run / "bank" / "process0", **limits)) as banks:
        banks.restore(load_file(checkpoint / "bank_0.safetensors"))
        return {
            (shape, grid): [(sigma, residual.float().numpy().tobytes()) for sigma, residual in banks.of(shape).contents(grid)]
            for shape in banks.statistics()
            for grid in range(config.recycling.num_grids)
        }


def optimizer_of(folder: Path) -> dict:
    return {key: value.numpy().tobytes() for key, value in load_file(folder / "optimizer.safetensors").items()}


@pytest.fixture(scope="module", params=[pytest.param("ram", marks=pytest.mark.slow), "file"])
def uninterrupted(request, wan_folder, tmp_path_factory):
    """The outcome of six steps without interruption, with banks in RAM and on disk."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    run = tmp_path_factory.mktemp("uninterrupted") / "run"
    assert train_here(config_for(run, wan_folder, request.param)) == 0
    torch.set_num_threads(before)
    expected = outcome(run)
    assert any(expected["errors"].values())
    return request.param, expected


def test_the_kind_of_bank_changes_nothing(wan_folder, tmp_path):
    outcomes = []
    for bank in BANKS:
        run = tmp_path / bank / "run"
        train_here(config_for(run, wan_folder, bank))
        outcomes.append(outcome(run))
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("stop_after", [2, 4])
def test_going_on_from_a_checkpoint_is_bit_identical(uninterrupted, wan_folder, tmp_path, stop_after):
    bank, expected = uninterrupted
    run = tmp_path / "run"
    train_here(config_for(run, wan_folder, bank, loop={"steps": stop_after}))
    train_here(config_for(run, wan_folder, bank), resume=True)
    assert outcome(run) == expected


@pytest.mark.parametrize(
    ("module", "function", "at_call"),
    [("training.run.checkpoint", "write_tensors", call) for call in (1, 2, 3, 5)]
    + [("training.run.checkpoint", function, call) for function in ("write_sealed", "publish_folder") for call in (1, 2)]
    + [("svi_core.files.atomic_file", "sync_folder", call) for call in (2, 5, 6, 7)],
)
def test_kill_9_while_a_checkpoint_is_written(uninterrupted, wan_folder, tmp_path, module, function, at_call):
    bank, expected = uninterrupted
    config = config_for(tmp_path / "run", wan_folder, bank)
    assert train_in_a_fork_that_dies(config, module, function, at_call) == -signal.SIGKILL
    assert train_here(config, resume=True) == 0
    assert outcome(tmp_path / "run") == expected


@pytest.mark.parametrize("at_call", [1, 2, 5, 6])
def test_kill_9_between_a_checkpoint_and_its_lora_files(wan_folder, tmp_path, at_call):
    """If the run is finished by then, resuming has no step to do, and still writes the files of the last step."""

    def begun(name: str):
        return config_for(tmp_path / name / "run", wan_folder, loop={"keep_loras_every": 2})

    def files(name: str) -> dict[str, bytes]:
        run = tmp_path / name / "run"
        return {path.relative_to(run).as_posix(): path.read_bytes() for path in run.rglob("*run*.safetensors")}

    train_here(begun("whole"))
    assert train_in_a_fork_that_dies(begun("killed"), "training.model.lora_file", "write_tensors", at_call) == -signal.SIGKILL
    assert train_here(begun("killed"), resume=True) == 0
    assert sorted(files("whole")) == [*(f"loras/run-step{step:06d}.safetensors" for step in (2, 4, 6)), "run.safetensors"]
    assert files("killed") == files("whole")


@pytest.mark.parametrize("uninterrupted", ["file"], indirect=True)
def test_kill_9_between_steps(uninterrupted, wan_folder, tmp_path, comfyui_path):
    bank, expected = uninterrupted
    run = tmp_path / "run"
    config = config_for(run, wan_folder, bank)
    with start(config, tmp_path, comfyui_path) as process:
        wait_for_steps(run, 3, process)
        process.kill()
    assert train_here(config, resume=True) == 0
    assert outcome(run) == expected


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("uninterrupted", ["ram"], indirect=True)
def test_a_signal_saves_and_ends(uninterrupted, wan_folder, tmp_path, comfyui_path, number):
    bank, expected = uninterrupted
    run = tmp_path / "run"
    config = config_for(run, wan_folder, bank, loop={"steps": 6, "checkpoint_every": 1000})
    with start(config, tmp_path, comfyui_path) as process:
        wait_for_steps(run, 1, process)
        process.send_signal(number)
        assert process.wait(60) == number, process.stderr.read()
    done = int(checkpoints(run)[0].name.removeprefix("step_"))
    assert 1 <= done < 6
    assert not list((run / "checkpoints").glob("*staging*"))
    train_here(config, resume=True)
    assert outcome(run)["losses"] == expected["losses"] and outcome(run)["lora"] == expected["lora"]


def wait_for_steps(run: Path, count: int, process: subprocess.Popen) -> None:
    metrics = run / "metrics.jsonl"
    deadline = time.monotonic() + 120
    while not metrics.exists() or len(metrics.read_text().splitlines()) < count:
        assert process.poll() is None and time.monotonic() < deadline, process.stderr.read()
        time.sleep(0.005)


@pytest.fixture(scope="module")
def finished(wan_folder, tmp_path_factory):
    """The folder of a run of six steps, to be copied, and its outcome."""
    run = tmp_path_factory.mktemp("finished") / "run"
    assert train_here(config_for(run, wan_folder)) == 0
    return run, outcome(run)


@pytest.mark.parametrize("name", ["adapters.safetensors", "optimizer.safetensors", "bank_0.safetensors", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "flip", "gone"])
def test_the_checkpoint_before_is_used_when_the_newest_is_damaged(
    finished, wan_folder, tmp_path, caplog, monkeypatch, name, damage
):
    from training.run import session

    whole, expected = finished
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    lora = run / "run.safetensors"
    path = checkpoints(run)[0] / name
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    else:
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data if damage == "flip" else data[: len(data) // 2])
    written = []
    original = session.complete_lora_files
    monkeypatch.setattr(session, "complete_lora_files", lambda *parts: (original(*parts), written.append(lora.read_bytes())))
    train_here(config_for(run, wan_folder), resume=True)
    assert "step_00000006 cannot be used" in caplog.text and "taking the one before" in caplog.text
    assert outcome(run) == expected
    assert written == [expected["lora"]]  # the LoRA of step 6 was not lost while training went on after step 4


def test_a_damaged_checkpoint_is_set_aside_and_does_not_count_as_kept(wan_folder, tmp_path):
    run = tmp_path / "run"
    train_here(config_for(run, wan_folder, loop={"keep_checkpoints": 2}))
    (checkpoints(run)[0] / "state.json").write_text("{")
    train_here(config_for(run, wan_folder, loop={"steps": 5, "keep_checkpoints": 2}), resume=True)
    assert [folder.name for folder in checkpoints(run)] == ["step_00000005", "step_00000004"]
    assert (run / "checkpoints" / "damaged_step_00000006").is_dir()


def test_a_folder_with_a_run_is_refused_before_data_and_model_are_opened(wan_folder, tmp_path):
    from training.run.session import run_training

    run = tmp_path / "run"
    train_here(config_for(run, wan_folder, loop={"steps": 2}))
    with pytest.raises(ValueError, match="holds a run already"):
        run_training(config_for(run, wan_folder), Group(), lambda *_: pytest.fail("data were opened"))


def test_a_run_that_begins_anew_leaves_no_bank_of_before(wan_folder, tmp_path):
    stale = tmp_path / "run" / "bank" / "process7" / "16x1x2x2"
    stale.mkdir(parents=True)
    train_here(config_for(tmp_path / "run", wan_folder, "file", loop={"steps": 1}))
    assert not stale.exists() and (tmp_path / "run" / "bank" / "process0").is_dir()


@pytest.mark.parametrize(
    ("expert", "file", "message"),
    [("single", "fp32", "is a Wan 2.2 model: use 'high' or 'low'"), ("high", "wan21_i2v", "is a Wan 2.1 model: use 'single'")],
)
def test_an_expert_of_another_wan_is_refused(wan_folder, tmp_path, expert, file, message):
    model = {"expert": expert, "path": str(wan_folder / f"{file}.safetensors")}
    with pytest.raises(ValueError, match=message):
        train_here(settings(tmp_path / "run", model=model))


def test_a_file_named_after_the_other_expert_is_warned_of(wan_folder, tmp_path, caplog):
    path = tmp_path / "wan2.2_i2v_low_noise.safetensors"
    shutil.copy(wan_folder / "fp32.safetensors", path)
    train_here(settings(tmp_path / "run", model={"expert": "high", "path": str(path)}, loop={"steps": 1}))
    assert "is it the other expert?" in caplog.text


def test_no_usable_checkpoint_is_an_error(wan_folder, tmp_path):
    run = tmp_path / "run"
    train_here(config_for(run, wan_folder, loop={"steps": 2}))
    for folder in checkpoints(run):
        (folder / "state.json").write_text("{")
    with pytest.raises(ValueError, match="none of the 1 checkpoints"):
        train_here(config_for(run, wan_folder), resume=True)


def test_only_the_newest_checkpoints_are_kept(wan_folder, tmp_path):
    run = tmp_path / "run"
    train_here(
        config_for(run, wan_folder, loop={"steps": 8, "checkpoint_every": 1, "keep_checkpoints": 2, "keep_loras_every": 3})
    )
    assert [folder.name for folder in checkpoints(run)] == ["step_00000008", "step_00000007"]
    assert [path.name for path in sorted((run / "loras").iterdir())] == [
        "run-step000003.safetensors",
        "run-step000006.safetensors",
    ]


def test_another_base_is_refused_by_name(wan_folder, tmp_path):
    run = tmp_path / "run"
    train_here(config_for(run, wan_folder, loop={"steps": 2}))
    other = config_for(run, wan_folder)
    moved = wan_folder / "moved.safetensors"
    shutil.copy(wan_folder / "fp32.safetensors", moved)
    same = settings(run, model={"expert": "high", "path": str(moved)})
    assert train_here(same, resume=True) == 0  # the same file under another name is the same base
    with pytest.raises(ValueError, match="another training run .*base model"):
        train_here(settings(run, model={"expert": "high", "path": str(wan_folder / "bf16.safetensors")}), resume=True)
    with pytest.raises(ValueError, match=r"another training run \(examples"):
        train_here(other, resume=True, data=FakeDataset(5))


def test_other_settings_are_refused_by_name(wan_folder, tmp_path):
    run = tmp_path / "run"
    train_here(config_for(run, wan_folder, loop={"steps": 2}))
    more = resumed_config(run, (), ["loop.steps=9", "samples.every=5", "memory.checkpointing=false"])
    assert (more.loop.steps, more.samples.every, more.memory.checkpointing) == (9, 5, False)
    with pytest.raises(ValueError, match=r"differ .* optimizer.weight_decay: 0.01 -> 0.02; seed: 0 -> 3"):
        resumed_config(run, (), ["seed=3", "optimizer.weight_decay=0.02"])
    with pytest.raises(ValueError, match="the run has preset '', not 'film'"):
        resumed_config(run, (), ["preset=film"])
    file = tmp_path / "memory.toml"
    file.write_text("[memory]\nswapped_blocks = 2\n")
    assert resumed_config(run, [file]) == replace(
        resumed_config(run), memory=replace(more.memory, checkpointing=True, swapped_blocks=2)
    )
    with pytest.raises(ValueError, match="nowhere holds no run"):
        resumed_config(tmp_path / "nowhere")


@pytest.mark.parametrize("damaged", [b'{"name": "caf\xe9"}', b"{", b'{"name": "edited"}', None])
def test_damaged_settings_are_those_of_the_newest_checkpoint_in_the_report_too(wan_folder, tmp_path, caplog, damaged):
    run, path = tmp_path / "run", tmp_path / "run" / "config.json"
    train_here(config_for(run, wan_folder, loop={"steps": 2}))
    begun, page = resumed_config(run), write_report(run).read_bytes()
    if damaged == b'{"name": "edited"}':  # by hand: its checksum no longer fits
        damaged = path.read_bytes().replace(b'"learning_rate": 0.01', b'"learning_rate": 0.03')
    path.unlink() if damaged is None else path.write_bytes(damaged)
    for read, expected in ((resumed_config, begun), (lambda run: write_report(run).read_bytes(), page)):
        caplog.clear()
        assert read(run) == expected
        assert f"{path} cannot be trusted" in caplog.text and "resume with section.key=value on the command line" in caplog.text
    for folder in checkpoints(run):
        (folder / "state.json").write_text("{")
    reason = "holds no run" if damaged is None else "cannot be read as settings .* bring it back from a backup"
    for read in (resumed_config, write_report):
        with pytest.raises(ValueError, match=reason):
            read(run)


@pytest.mark.parametrize("damage", ["a line is gone", "a line is damaged", "cut within a line", "cut between lines", "deleted"])
def test_damaged_measurements_are_set_aside_once(tmp_path, caplog, damage):
    """Steps that are lost stay lost, so every later resume set the sound file aside again."""
    with closing(RunFolder(tmp_path, Group())) as run:
        for step in range(1, 6):
            run.record("step", step)
        lines = run.metrics.read_bytes().splitlines(keepends=True)
        damaged, lost, num_aside = {
            "a line is gone": ([*lines[:2], *lines[3:]], {3}, 0),
            "a line is damaged": ([*lines[:2], b"\xff" + lines[2], *lines[3:]], {3}, 1),
            "cut within a line": ([*lines[:2], lines[2][:9]], {3, 4, 5}, 1),
            "cut between lines": (lines[:2], {3, 4, 5}, 0),
            "deleted": ([], {1, 2, 3, 4, 5}, 0),
        }[damage]
        run.metrics.write_bytes(b"".join(damaged))
        if damage == "deleted":
            run.metrics.unlink()
        for _ in range(3):
            run.go_back_to(5)
            assert [entry["step"] for entry in run.measurements()] == sorted({1, 2, 3, 4, 5} - lost)
        run.record("step", 6)
        run.go_back_to(5)
        run.record("step", 6)
        with run.metrics.open("a") as file:
            file.write('{"kind": "step", "st')  # cut off by a kill
        run.go_back_to(5)
        assert [entry["step"] for entry in run.measurements()] == sorted({1, 2, 3, 4, 5} - lost)
    kept = [path.read_bytes() for path in tmp_path.rglob("set_aside/*") if path.is_file()]
    assert kept == [b"".join(damaged)] * num_aside
    assert caplog.text.count(f"measurements of {len(lost)} of 5 steps are lost") == num_aside


def test_the_advice_after_a_nan_helps(wan_folder, tmp_path):
    """A learning rate that is too high gives NaN at the same step every time; the message says how to resume."""
    from training.method.erft_step import TrainingStopped

    run = tmp_path / "run"
    train_here(config_for(run, wan_folder, loop={"steps": 2}))
    too_high = resumed_config(run, (), ["optimizer.learning_rate=1e30", "loop.steps=6"])
    with pytest.raises(TrainingStopped) as first:
        train_here(too_high, resume=True)
    with pytest.raises(TrainingStopped) as again:
        train_here(resumed_config(run), resume=True)
    assert str(again.value) == str(first.value)
    advice = re.search(r"--resume (\S+) (optimizer.learning_rate=\S+);", str(first.value))
    assert advice[1] == str(run) and advice[2] == "optimizer.learning_rate=3.3e+29"
    assert train_here(resumed_config(run, (), ["optimizer.learning_rate=1e-3"]), resume=True) == 0
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    changed = [(line["step"], line["settings"]) for line in lines if line["kind"] == "changed"]
    assert changed == [
        (2, ["loop.steps: 2 -> 6", "optimizer.learning_rate: 0.01 -> 1e+30"]),
        (2, ["optimizer.learning_rate: 1e+30 -> 0.001"]),
    ]
    assert [line["learning_rate"] for line in lines if line["kind"] == "step"] == [0.01, 0.01, 1e-3, 1e-3, 1e-3, 1e-3]


def test_a_clip_that_always_gives_nan_can_be_left_out(wan_folder, tmp_path):
    from training.method.erft_step import TrainingStopped

    class OneBadClip(FakeDataset):
        exclude = ()

        def make(self, index, name="clip"):
            example = super().make(index, name)
            bad = index == 6 and example.name not in self.exclude
            return replace(example, latent=torch.full_like(example.latent, math.nan)) if bad else example

    run, data = tmp_path / "run", OneBadClip()
    with pytest.raises(TrainingStopped) as stopped:  # step 3 takes clip (31 * 2) % 8 = 6
        train_here(config_for(run, wan_folder), data=data)
    advice = re.search(r"--resume (\S+) '(data.exclude=\S+)'", str(stopped.value))
    config = resumed_config(Path(advice[1]), (), [advice[2]])
    data.exclude = config.data.exclude
    assert data.exclude == ("clip6.mp4",) and train_here(config, resume=True, data=data) == 0


def test_the_end_of_a_cosine_cannot_be_moved(wan_folder, tmp_path):
    run = tmp_path / "run"
    train_here(config_for(run, wan_folder, loop={"steps": 2}, optimizer={"schedule": "cosine"}))
    with pytest.raises(ValueError, match="loop.steps: 2 -> 9"):
        resumed_config(run, (), ["loop.steps=9"])


def test_a_run_is_not_begun_twice(wan_folder, tmp_path):
    run = tmp_path / "run"
    train_here(config_for(run, wan_folder, loop={"steps": 2}))
    with pytest.raises(ValueError, match="holds a run already: go on with --resume"):
        train_here(config_for(run, wan_folder))
    folder = RunFolder(run, Group())
    with pytest.raises(ValueError, match="in use by another training run"):
        RunFolder(run, Group())
    folder.close()


def test_steps_are_saved_before_anybody_looks_at_them(wan_folder, tmp_path):
    from training.run.session import run_training

    run = tmp_path / "run"

    def fails(should_stop):
        raise RuntimeError("while looking")

    config = config_for(run, wan_folder, samples={"every": 2})
    with pytest.raises(RuntimeError, match="while looking"):
        run_training(config, Group(), lambda *_: FakeDataset(), sampler=lambda *_: fails)
    assert [folder.name for folder in checkpoints(run)] == ["step_00000002"]


def test_a_wish_to_end_reaches_the_sampler_and_the_step_is_saved(wan_folder, tmp_path):
    """The file that asks for the end appears while a sample video is made, two steps before a checkpoint is due."""
    from training.run.session import run_training

    run, told = tmp_path / "run", []

    def asked_while_sampling(should_stop):
        told.append(should_stop())
        (run / "stop").touch()
        told.append(should_stop())

    config = config_for(run, wan_folder, loop={"checkpoint_every": 5}, samples={"every": 3})
    arguments = (Group(), lambda *_: FakeDataset())
    assert run_training(config, *arguments, sampler=lambda *_: asked_while_sampling) == BY_FILE
    assert told == [False, True] and [folder.name for folder in checkpoints(run)] == ["step_00000003"]
    assert run_training(config, *arguments, resume=True) == 0  # the file of the last time is gone
    assert [folder.name for folder in checkpoints(run)][:2] == ["step_00000006", "step_00000005"]


def test_a_full_disk_stops_before_the_checkpoint(wan_folder, tmp_path, monkeypatch):
    run = tmp_path / "run"
    train_here(config_for(run, wan_folder, loop={"steps": 2}))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("training.run.checkpoint.shutil.disk_usage", lambda path: usage._replace(free=1 << 20))
    with pytest.raises(OSError, match=r"a checkpoint takes about 0.06 GiB .* only 0.00 GiB are free"):
        train_here(config_for(run, wan_folder), resume=True)
    monkeypatch.undo()
    assert [folder.name for folder in checkpoints(run)] == ["step_00000002"]
    assert train_here(config_for(run, wan_folder), resume=True) == 0


def test_checkpoints_are_written_on_a_mount_without_fsync_of_folders(wan_folder, tmp_path, monkeypatch):
    """Network and FUSE mounts, as rented machines have them, answer EINVAL."""
    real = os.fsync

    def refusing(handle):
        if stat.S_ISDIR(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(handle)

    monkeypatch.setattr(os, "fsync", refusing)
    assert train_here(config_for(tmp_path / "run", wan_folder, loop={"steps": 2})) == 0
    assert [folder.name for folder in checkpoints(tmp_path / "run")] == ["step_00000002"]


def test_values_too_small_for_the_file_are_saved_in_fp32(wan_folder, tmp_path, caplog):
    """The first step of a warm-up moves the LoRA by less than fp16 can tell from nothing."""
    run = tmp_path / "run"
    slow = {"learning_rate": 1e-6, "warmup_steps": 100}
    train_here(config_for(run, wan_folder, loop={"steps": 1}, optimizer=slow))
    assert "run.safetensors is saved in fp32 this time" in caplog.text
    assert {tensor.dtype for tensor in load_file(run / "run.safetensors").values()} == {torch.float32}


def test_banks_larger_than_the_free_memory_are_refused_at_the_start(wan_folder, tmp_path, monkeypatch):
    import psutil

    run = tmp_path / "run"
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": 1000})())
    with pytest.raises(ValueError, match=r'grow to .* GiB of RAM, but 0.0 GiB are free: use bank.storage = "file"'):
        train_here(config_for(run, wan_folder, "ram"))
    assert train_here(config_for(run, wan_folder, "file", loop={"steps": 1})) == 0
