"""A run killed at any moment goes on to the same video: clips that were finished keep their bytes, and none is made again."""

import os
import shutil

import pytest
import torch
from filelock import FileLock

from tests.core.clips.test_faults import sound_files
from tests.core.clips.test_growing_video import run
from tests.kill.campaign import measure

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes, which this system does not have")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run of three clips: (bytes of the video, last latent, what it takes)."""
    folder = tmp_path_factory.mktemp("whole")
    cost = measure(lambda: run(folder))
    path, latent, _ = run(folder)
    return path.read_bytes(), latent, cost


def clips_of(files: dict[str, bytes]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name.endswith(".safetensors")}


def test_a_run_killed_again_and_again_goes_on_to_the_same_video(tmp_path, whole, kills):
    def check(chance) -> None:
        folder, kept, left = tmp_path / "run", {}, 1.0
        shutil.rmtree(folder, ignore_errors=True)
        for _ in range(3):
            left = kills.kill(lambda: run(folder), chance, whole[2], left)
            folder.mkdir(exist_ok=True)
            with FileLock(folder / ".lock", timeout=30):  # a child on its way to become ffmpeg holds it a moment longer
                pass
            found = clips_of(sound_files(folder))
            assert kept.items() <= found.items(), "a finished clip changed"
            kept = found
        path, latent, maker = run(folder)
        assert maker.sampled == list(range(len(kept), 3)), "a finished clip was made again"
        assert kept.items() <= clips_of(sound_files(folder)).items(), "a finished clip changed"
        assert torch.equal(latent, whole[1]) and path.read_bytes() == whole[0]

    kills.each_round("run", check, at_least=2)
