"""Checkpoint folders with a damaged file: training goes on to the same LoRA, or says in a sentence what is wrong."""

import logging
import shutil

import pytest
from hypothesis import strategies as st

from tests.fuzz.campaign import require_sentence
from tests.fuzz.damage import DAMAGES, IN_FOLDERS_OF_OURS, copy_damaged
from tests.training.run.test_resume import config_for, outcome, train_here


@pytest.fixture(scope="module")
def begun(wan_folder, tmp_path_factory):
    """A training run of six steps without interruption: (the folder as of step 4, its files, the outcome of step 6)."""
    folder = tmp_path_factory.mktemp("begun") / "run"
    train_here(config_for(folder, wan_folder, "file", loop={"steps": 4}))
    kept = folder.with_name("kept")
    shutil.copytree(folder, kept)
    assert train_here(config_for(folder, wan_folder, "file"), resume=True) == 0
    names = (path.relative_to(kept).as_posix() for path in kept.rglob("*") if path.is_file() and path.name != ".lock")
    return kept, sorted(names), outcome(folder)


@pytest.mark.usefixtures("training_mode", "one_thread")
def test_checkpoints(campaign, begun, wan_folder, tmp_path, caplog):
    caplog.set_level(logging.CRITICAL)
    kept, files, expected = begun
    examples = st.tuples(st.sampled_from(files), DAMAGES | st.sampled_from(IN_FOLDERS_OF_OURS))

    def check(example: tuple) -> str:
        name, damage = example
        folder = tmp_path / "run"
        copy_damaged(kept, folder, name, damage)
        try:
            assert train_here(config_for(folder, wan_folder, "file"), resume=True) == 0
        except (ValueError, OSError) as error:
            require_sentence(error)
            return "refused"
        found = outcome(folder)
        same = {key for key in expected if found[key] == expected[key]}
        assert same >= expected.keys() - {"losses"}, f"{expected.keys() - same} differ"
        return "resumed"

    assert campaign.run("checkpoints", examples, check, {"resumed"}, batch=20, at_least=6, limit=60, shrinks=False)
