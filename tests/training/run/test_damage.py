"""Damage each file of a training run, then resume: the LoRA is bit for bit that of the undamaged run, or a file is named."""

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from svi_core.files.sealed_json import read_sealed
from tests.training.run.test_resume import config_for, outcome, train_here
from training.run.checkpoint import checkpoints
from training.run.report import write_report
from training.run.run_folder import resumed_config

pytestmark = [
    pytest.mark.usefixtures("training_mode"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="shares its runs with test_resume"),
]
FILES = [
    "config.json",
    "metrics.jsonl",
    "run.safetensors",
    *(f"checkpoints/step_0000000{step}/{name}" for step in (2, 4) for name in
      ("state.json", "adapters.safetensors", "optimizer.safetensors", "bank_0.safetensors")),
    "bank/process0/16x3x4x6/bank.json",
    "bank/process0/16x3x4x6/entries.bin",
]  # fmt: skip

REFUSED = {  # every checkpoint needs them
    "entries.bin": "none of the 2 checkpoints .* damaged in {}",
    "bank.json": "{}/.*/bank.json is damaged .*bring it back from a copy",
}


def flipped(data: bytes) -> bytes:
    place = len(data) * 2 // 5 if len(data) < 60_000 else 5  # the places of a bank have 64 KiB, of which little is used
    return data[:place] + bytes([data[place] ^ 4]) + data[place + 1 :]


DAMAGES = {
    "flipped": flipped,
    "truncated": lambda data: data[: len(data) // 2],
    "zeros": lambda data: bytes(len(data)),
    "not UTF-8": lambda data: b"\xff\xfe\xfa" * (len(data) // 3 + 1),
}


def kinds_for(victim: str) -> tuple[str, ...]:
    """Return the damages that differ: in a hashed file all are found in the same way, and old checkpoints are not read."""
    if "step_00000002" in victim:
        return ("zeros",)
    return ("flipped", "truncated", "not UTF-8") if ".json" in victim else ("flipped", "truncated")


def content(run: Path) -> dict[str, bytes]:
    files = [path for path in run.rglob("*") if path.is_file() and path.name != ".lock"]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files}


def set_aside(run: Path) -> list[bytes]:
    """Return the files that were renamed because they cannot be trusted."""
    return [data for name, data in content(run).items() if "set_aside/" in name or "/damaged_" in name]


@pytest.fixture(scope="module")
def stopped(wan_folder, tmp_path_factory):
    """Four of six steps with the bank on disk, in `folder`/run, and the outcome of all six."""
    folder = tmp_path_factory.mktemp("stopped")
    train_here(config_for(folder / "run", wan_folder, "file", loop={"steps": 4}))
    assert set(content(folder / "run")) == set(FILES)
    shutil.copytree(folder / "run", folder / "whole" / "run")
    train_here(config_for(folder / "whole" / "run", wan_folder, "file"), resume=True)
    return folder / "run", outcome(folder / "whole" / "run")


def resume(run: Path, wan_folder: Path) -> None:
    resumed_config(run)  # as the command reads it first
    assert train_here(config_for(run, wan_folder, "file"), resume=True) == 0


@pytest.mark.parametrize("victim", FILES)
def test_resuming_after_any_damage_gives_the_same_lora_or_names_the_file(stopped, wan_folder, tmp_path, caplog, victim):
    source, expected = stopped
    for kind in kinds_for(victim):
        damage, run = DAMAGES[kind], tmp_path / kind / "run"
        shutil.copytree(source, run)
        damaged = damage((run / victim).read_bytes())
        (run / victim).write_bytes(damaged)
        before = content(run)
        caplog.clear()
        if refusal := REFUSED.get(Path(victim).name):
            with pytest.raises(ValueError, match=refusal.format(re.escape(str(run / "bank/process0")))):
                resume(run, wan_folder)
            assert content(run) == before, kind
            continue
        resume(run, wan_folder)
        found = outcome(run)
        if victim == "metrics.jsonl":
            assert set(found["losses"]) < set(expected["losses"]) and found["losses"][-2:] == expected["losses"][-2:]
            found["losses"] = expected["losses"]
        assert found == expected, kind
        if "step_00000002" not in victim:  # an older checkpoint is not read
            assert damaged in set_aside(run) and Path(victim).name in caplog.text, kind


def test_a_changed_step_of_a_checkpoint_is_not_believed(stopped, wan_folder, tmp_path, caplog):
    """`"step": 4` flipped to 0 resumed with another LoRA; also in a checkpoint of before, which has no checksum."""
    source, expected = stopped
    for kind in ("sealed", "before"):
        run = tmp_path / kind / "run"
        shutil.copytree(source, run)
        state = checkpoints(run)[0] / "state.json"
        if kind == "before":
            state.write_text(json.dumps(read_sealed(state), indent=1))
        text = state.read_text()
        assert '"step": 4' in text
        state.write_text(text.replace('"step": 4', '"step": 0'))
        resume(run, wan_folder)
        assert outcome(run) == expected
        assert "step_00000004 cannot be used (state.json is missing or damaged" in caplog.text
        caplog.clear()


def test_a_changed_setting_is_not_believed(stopped, wan_folder, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(stopped[0], run)
    path = run / "config.json"
    begun = resumed_config(run)
    text = path.read_text()
    path.write_text(text.replace('"learning_rate": 0.01', '"learning_rate": 0.03'))
    assert path.read_text() != text and resumed_config(run) == begun


def test_a_damaged_lora_of_a_finished_run_is_written_again(wan_folder, tmp_path, caplog):
    run = tmp_path / "run"
    config = config_for(run, wan_folder, loop={"steps": 2})
    train_here(config)
    lora = run / "run.safetensors"
    data = lora.read_bytes()
    for damaged in (data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], data.replace(b'"svi.step":"2"', b'"svi.step":"3"'), b"x"):
        assert damaged != data
        lora.write_bytes(damaged)
        train_here(config, resume=True)
        assert lora.read_bytes() == data
    assert len(set_aside(run)) == 2  # not the one whose values were right
    lora.unlink()
    save_file({name: tensor + 1 for name, tensor in load_file(checkpoints(run)[0] / "adapters.safetensors").items()}, lora)
    train_here(config, resume=True)
    assert lora.read_bytes() == data and "run.safetensors cannot be trusted" in caplog.text


def test_what_is_set_aside_twice_is_kept_twice(wan_folder, tmp_path):
    run = tmp_path / "run"
    for _ in range(2):
        train_here(config_for(run, wan_folder, loop={"steps": 4}), resume=run.exists())
        (checkpoints(run)[0] / "state.json").write_text("{")
    train_here(config_for(run, wan_folder, loop={"steps": 4}), resume=True)
    names = sorted(path.name for path in (run / "checkpoints").glob("damaged_*"))
    assert names == ["damaged_2_step_00000004", "damaged_step_00000004"]


def test_a_report_leaves_out_damaged_measurements(stopped, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(stopped[0], run)
    metrics = run / "metrics.jsonl"
    first, *lines = metrics.read_bytes().splitlines(keepends=True)
    metrics.write_bytes(b"".join([first, lines[0].replace(b'"loss": ', b'"loss": 9'), b"\xff\xfe\n", *lines[1:]]))
    assert b"3 steps" not in write_report(run).read_bytes() and b"4 steps" in write_report(run).read_bytes()
