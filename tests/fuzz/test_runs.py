"""Run folders with a damaged file: the run goes on to the same video, or says in a sentence what is wrong."""

import logging

import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from tests.core.clips.test_growing_video import moments, run
from tests.fuzz.campaign import require_sentence
from tests.fuzz.damage import DAMAGES, IN_FOLDERS_OF_OURS, copy_damaged


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A finished run of three clips: (folder, its files, last latent, moments of the video)."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    path, latent, _ = run(folder)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return folder, files, latent, moments(path)


def test_runs(campaign, whole, tmp_path, caplog):
    caplog.set_level(logging.CRITICAL)
    original, files, latent, shown = whole
    examples = st.tuples(st.sampled_from(files), DAMAGES | st.sampled_from(IN_FOLDERS_OF_OURS))

    def check(example: tuple) -> str:
        name, damage = example
        folder = tmp_path / "run"
        copy_damaged(original, folder, name, damage)
        try:
            path, found, maker = run(folder)
        except (ValueError, OSError) as error:
            require_sentence(error, str(folder))
            return "refused"
        assert torch.equal(found, latent) and np.array_equal(moments(path), shown)
        path, found, again = run(folder)
        assert not again.sampled and torch.equal(found, latent), "what was mended stays mended"
        return "made again" if maker.sampled else "reused"

    assert campaign.run("runs", examples, check, {"made again", "reused"}, batch=40, at_least=8, limit=60, shrinks=False)
