"""A training run killed at any moment resumes to the same LoRA; checkpoints that were finished keep their bytes."""

import os
import shutil
from pathlib import Path

import pytest

from svi_core.files.atomic_file import STAGING_MARK
from tests.training.run.test_resume import config_for, outcome, train_here
from training.run.checkpoint import checkpoints

pytestmark = [
    pytest.mark.usefixtures("training_mode", "one_thread"),
    pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes, which this system does not have"),
]
SECONDS, NUM_COMMITS = 1.2, 35  # of an undisturbed training run, about; later tries take less


def finished(run: Path) -> dict[str, bytes]:
    """Return the files of the checkpoints of a run."""
    return {f"{folder.name}/{path.name}": path.read_bytes() for folder in checkpoints(run) for path in folder.iterdir()}


def test_a_training_run_killed_again_and_again_resumes_to_the_same_lora(tmp_path, wan_folder, kills):
    expected: dict[str, dict] = {}

    def check(chance) -> None:
        bank = chance.choice(["ram", "file"])
        if bank not in expected:
            assert train_here(config_for(tmp_path / bank / "run", wan_folder, bank)) == 0
            expected[bank] = outcome(tmp_path / bank / "run")
        run = tmp_path / "killed" / "run"
        shutil.rmtree(run, ignore_errors=True)
        config = config_for(run, wan_folder, bank)

        def go_on() -> None:
            assert train_here(config, resume=(run / "config.json").exists()) == 0

        kept: dict[str, bytes] = {}
        for _ in range(3):
            kills.kill(go_on, chance, SECONDS, NUM_COMMITS)
            found = finished(run)
            assert all(found.get(name, data) == data for name, data in kept.items()), "a finished checkpoint changed"
            kept = found
        go_on()
        assert outcome(run) == expected[bank]
        assert not [path for path in run.rglob("*") if STAGING_MARK in path.name or path.name.startswith("damaged")]

    kills.each_round("training", check)
