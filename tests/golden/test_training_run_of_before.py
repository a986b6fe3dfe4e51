"""Training runs begun by the code of before the move, with the bank in RAM and on disk, resume to the result they had then.

The folders in before_the_move hold four of six steps of tests/training/run/test_resume.py's run; whole.safetensors is the LoRA
of the uninterrupted run.
"""

import json
import shutil
from contextlib import closing
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.training.conftest import one_thread, training_mode, wan_folder  # noqa: F401
from tests.training.run.test_resume import config_for, train_here
from training.method.banks import Banks
from training.run.checkpoint import checkpoints
from training.run.run_folder import begun_config

BEFORE = Path(__file__).parent / "before_the_move"
pytestmark = pytest.mark.usefixtures("training_mode")


def copied(kind: str, tmp_path: Path) -> Path:
    return shutil.copytree(BEFORE / f"training_{kind}", tmp_path / "run")


def losses(path: Path) -> list[float]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "step"]


@pytest.mark.parametrize("kind", ["ram", "file"])
def test_a_training_run_of_before_resumes_to_the_same_lora(kind, wan_folder, tmp_path):  # noqa: F811
    run = copied(kind, tmp_path)
    assert train_here(config_for(run, wan_folder, kind), resume=True) == 0
    assert losses(run / "metrics.jsonl") == pytest.approx(losses(BEFORE / "whole_metrics.jsonl"), rel=1e-5)
    if (run / "run.safetensors").read_bytes() == (BEFORE / "whole.safetensors").read_bytes():
        return  # as on the machine that made them; another may round otherwise
    found, wanted = load_file(run / "run.safetensors"), load_file(BEFORE / "whole.safetensors")
    assert found.keys() == wanted.keys()
    assert all(torch.allclose(found[key].float(), wanted[key].float(), rtol=1e-3, atol=1e-5) for key in wanted)


def test_the_bank_of_before_is_converted_by_the_first_checkpoint(wan_folder, tmp_path):  # noqa: F811
    """Then the journal of before is read no more, and the checkpoints of before can still be used."""
    run = copied("file", tmp_path)
    assert train_here(config_for(run, wan_folder, "file", loop={"steps": 5}), resume=True) == 0
    newest = checkpoints(run)[0]
    assert newest.name == "step_00000005" and "16x3x4x6/places" in load_file(newest / "bank_0.safetensors")
    config = begun_config(run)
    limits = {"num_snapshots": config.loop.keep_checkpoints + 1, "expected_entries": 100}
    with closing(Banks(config.recycling, config.bank, run / "bank" / "process0", **limits)) as banks:
        for path in (run / "bank_of_step_2.safetensors", run / "checkpoints" / "step_00000004" / "bank_0.safetensors"):
            banks.restore(load_file(path))
        assert len(banks) == 3
    (run / "bank" / "process0" / "16x3x4x6" / "journal.bin").unlink()
    assert train_here(config_for(run, wan_folder, "file"), resume=True) == 0
    assert losses(run / "metrics.jsonl") == pytest.approx(losses(BEFORE / "whole_metrics.jsonl"), rel=1e-5)
