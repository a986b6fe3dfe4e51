"""Several processes are one: two at batch 1 train as one at batch 2, errors reach everybody, one process writes."""

import json
import os
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.fakes import SHAPE, FakeDataset, settings
from training.method.distributed import Group, MeasuredError, join_group
from training.run.checkpoint import checkpoints
from training.run.stop_signal import BY_FILE
from training.settings.reader import config_table

pytestmark = [
    pytest.mark.usefixtures("training_mode"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forks processes, which this system cannot"),
]
ROOT = Path(__file__).resolve().parents[3]


def launch(config, num_processes: int, resume: bool = False) -> None:
    """Train to the end in forked processes that find each other as torchrun's do."""
    assert statuses(start(config, num_processes, resume)) == [0] * num_processes


def statuses(children: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def start(config, num_processes: int, resume: bool = False) -> list[int]:
    """Begin to train in forked processes and return their ids."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(num_processes):
        child = os.fork()
        if child == 0:
            os.environ.update(
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
                WORLD_SIZE=str(num_processes),
                RANK=str(rank),
                LOCAL_RANK=str(rank),
            )
            os._exit(work(config, resume))
        children.append(child)
    return children


def work(config, resume: bool) -> int:
    """Be one process of a training run; return its exit status."""
    from training.run.session import run_training

    try:
        group = join_group()
        status = run_training(config, group, lambda *_: FakeDataset(), resume=resume)
        group.close()
        return status
    except BaseException:
        traceback.print_exc()
        return 99


def outcome(run: Path) -> tuple[list[dict], dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    newest = checkpoints(run)[0]
    steps = [line for line in lines if line["kind"] == "step"]
    return steps, load_file(newest / "adapters.safetensors"), load_file(newest / "bank_0.safetensors")


@pytest.fixture(autouse=True)
def small_messages(monkeypatch):
    monkeypatch.setattr("training.method.distributed.MESSAGE_NUMBERS", 1000)  # so that forked processes send many


@pytest.fixture(scope="module")
def make_config(wan_folder):
    def make(run: Path, batch_size: int, **recycling):
        return settings(
            run,
            model={"expert": "high", "path": str(wan_folder / "fp32.safetensors")},
            recycling=recycling,
            bank={"share": True},
            loop={"steps": 4, "batch_size": batch_size},
            validation={"every": 4, "max_examples": 2, "quantiles": 2},
        )

    return make


def test_two_processes_at_batch_1_are_one_at_batch_2(make_config, tmp_path):
    launch(make_config(tmp_path / "two", 1), 2)
    launch(make_config(tmp_path / "one", 2), 1)
    (two, two_lora, two_bank), (one, one_lora, one_bank) = outcome(tmp_path / "two"), outcome(tmp_path / "one")
    for ours, theirs in zip(two, one, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-3)
        assert {key: ours[key] for key in ours if "injected" in key} == {
            key: theirs[key] for key in theirs if "injected" in key
        }
        assert ours["bank_entries"] == theirs["bank_entries"]
    for key, value in one_lora.items():
        assert torch.allclose(two_lora[key], value, atol=2e-4), key  # Adam turns tiny differences of sums into small ones
    assert two_bank.keys() == one_bank.keys()
    for key, value in one_bank.items():
        assert torch.allclose(two_bank[key].float(), value.float(), atol=0.05, rtol=0.02), key
    ours, theirs = validations(tmp_path / "two"), validations(tmp_path / "one")
    assert len(ours) == 2 and ours == pytest.approx(theirs, rel=1e-3)


def validations(run: Path) -> dict[str, float]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    found = next(line for line in lines if line["kind"] == "validation")
    return {key: value for key, value in found.items() if key not in ("kind", "step", "checksum")}


def test_a_split_training_goes_on(make_config, tmp_path):
    """Each process has a checkpoint of its own bank, which after the warm-up holds its own errors only."""
    config = make_config(tmp_path / "run", 1)
    short = settings_with(config, steps=2, share=False)
    launch(short, 2)
    launch(settings_with(config, steps=4, share=False), 2, resume=True)
    launch(settings_with(make_config(tmp_path / "whole", 1), steps=4, share=False), 2)
    names = sorted(path.name for path in checkpoints(tmp_path / "run")[0].iterdir())
    assert names == ["adapters.safetensors", "bank_0.safetensors", "bank_1.safetensors", "optimizer.safetensors", "state.json"]
    banks = [load_file(checkpoints(tmp_path / "run")[0] / f"bank_{rank}.safetensors") for rank in range(2)]
    assert any(key not in banks[1] or not torch.equal(banks[1][key], value) for key, value in banks[0].items())
    for name in names[:-1]:
        ours, theirs = (load_file(checkpoints(tmp_path / run)[0] / name) for run in ("run", "whole"))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs), name


def test_a_stop_file_ends_all_processes_after_one_step_and_a_checkpoint(make_config, tmp_path):
    run = tmp_path / "run"
    children = start(settings_with(make_config(run, 1), steps=100_000, share=True), 2)
    deadline = time.monotonic() + 120
    while not ((run / "metrics.jsonl").exists() and '"kind": "step"' in (run / "metrics.jsonl").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (run / "stop").touch()
    assert statuses(children) == [BY_FILE % 256] * 2
    steps, *_ = outcome(run)
    newest = checkpoints(run)[0]
    assert newest.name == f"step_{len(steps):08d}" and (newest / "bank_1.safetensors").exists() and len(steps) < 100_000


@pytest.mark.slow
def test_torchrun_starts_it(make_config, tmp_path, comfyui_path):
    """The real launcher; only the first process writes measurements."""
    run = tmp_path / "run"
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(config_table(settings_with(make_config(run, 1), steps=3, share=True))))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    command += ["tests.training.train_fake", str(path)]
    environment = {**os.environ, "COMFYUI_PATH": str(comfyui_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    assert [line["step"] for line in outcome(run)[0]] == [1, 2, 3]


def settings_with(config, *, steps: int, share: bool):
    from training.settings.reader import config_from

    table = config_table(config)
    table["loop"]["steps"], table["bank"]["share"] = steps, share
    return config_from(table)


def test_messages_hold_every_gradient_once(monkeypatch):
    from training.method import distributed as module

    monkeypatch.setattr(module, "MESSAGE_NUMBERS", 10)
    gradients = [torch.zeros(size) for size in (3, 4, 5, 20, 1)]
    messages = list(module._messages(gradients))
    assert [[gradient.numel() for gradient in message] for message in messages] == [[3, 4, 5], [20], [1]]


def test_each_process_takes_its_gpu_before_comfyui_is_imported(monkeypatch):
    import training.run
    from training import erft

    happened = []

    class Session:
        def __getattr__(self, name):
            happened.append("session")
            return lambda *arguments, **options: 0

    monkeypatch.setenv("LOCAL_RANK", "3")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", happened.append)
    monkeypatch.setitem(sys.modules, "training.run.session", Session())
    monkeypatch.setattr(training.run, "session", sys.modules["training.run.session"], raising=False)
    assert erft.main(["--config", "any.toml"]) == 0
    assert happened == [3, "session"]


def test_alone_everything_is_what_it_was():
    group = Group()
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.tensor([1.0, 2.0, 3.0])
    group.sum_gradients([parameter])
    assert parameter.grad.tolist() == [1.0, 2.0, 3.0]
    assert group.largest(1.0, 2.0) == [1.0, 2.0] and group.total(3.0) == [3.0]
    errors = [MeasuredError(slot, torch.zeros(SHAPE), 0.5, True) for slot in (2, 0, 1)]
    assert [error.slot for error in group.gather_errors(errors)] == [0, 1, 2]
