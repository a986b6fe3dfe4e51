"""A training run killed at any moment resumes to the same LoRA; checkpoints that were finished keep their bytes."""

import os
import shutil
from pathlib import Path

import pytest

from svi_core.files.atomic_file import STAGING_MARK
from tests.kill.campaign import measure
from tests.training.run.test_resume import BANKS, config_for, outcome, train_here
from training.run.checkpoint import checkpoints

pytestmark = [
    pytest.mark.usefixtures("training_mode", "one_thread"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes, which this system does not have"),
]


def finished(run: Path) -> dict[str, dict[str, bytes]]:
    """Return the files of each checkpoint of a run, by its name, which holds the step."""
    return {folder.name: {path.name: path.read_bytes() for path in folder.iterdir()} for folder in checkpoints(run)}


def require_kept(kept: dict[str, dict], found: dict[str, dict], num_kept: int) -> None:
    """Check that no checkpoint of `kept` changed in `found`, and that none vanished but those that newer ones replace."""
    assert max(found, default="") >= max(kept, default=""), "the newest checkpoint vanished"
    due = sorted(kept.keys() | found.keys())[-num_kept:]
    for name, files in kept.items():
        if name in due:
            assert found.get(name) == files, f"{name} vanished or changed"
        else:
            assert all(files[file] == data for file, data in found.get(name, {}).items()), f"{name} changed"


@pytest.mark.parametrize("bank", BANKS)
def test_a_training_run_killed_again_and_again_resumes_to_the_same_lora(tmp_path, wan_folder, kills, bank):
    whole = config_for(tmp_path / "whole" / "run", wan_folder, bank)
    cost = measure(lambda: train_here(whole))
    expected = outcome(tmp_path / "whole" / "run")

    def check(chance) -> None:
        run = tmp_path / "killed" / "run"
        shutil.rmtree(run, ignore_errors=True)
        config = config_for(run, wan_folder, bank)

        def go_on() -> None:
            assert train_here(config, resume=(run / "config.json").exists()) == 0

        kept: dict[str, dict] = {}
        left = 1.0
        for _ in range(3):
            left = kills.kill(go_on, chance, cost, left)
            found = finished(run)
            require_kept(kept, found, config.loop.keep_checkpoints)
            kept = found
        go_on()
        require_kept(kept, finished(run), config.loop.keep_checkpoints)
        assert outcome(run) == expected
        assert not [path for path in run.rglob("*") if STAGING_MARK in path.name or path.name.startswith("damaged")]

    kills.each_round("training", check, at_least=2)


def test_a_lost_checkpoint_is_noticed():
    two, four, six = ({"state.json": bytes([step])} for step in (2, 4, 6))
    kept = {"step_2": two, "step_4": four}
    require_kept(kept, {**kept, "step_6": six}, 2)
    require_kept(kept, {"step_4": four, "step_6": six}, 2)
    require_kept({}, {}, 2)
    for found in ({}, {"step_2": two}, {"step_4": four}, {"step_4": two, "step_6": six}, {"step_2": six, "step_4": four}):
        with pytest.raises(AssertionError, match="vanished|changed"):
            require_kept(kept, found, 2)
