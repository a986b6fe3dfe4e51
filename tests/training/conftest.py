"""Tiny random Wan files, loaded by ComfyUI's own code in this process; one thread, so that sums have one order."""

from pathlib import Path

import pytest
import torch

from tests.training import wan_files
from tests.training.small_cache import three_clips


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def training_mode(comfy):
    """Loading a backbone puts ComfyUI into training mode; other tests of this process must not find it there."""
    import comfy.model_management as management

    before = management.in_training
    yield
    management.in_training = before


@pytest.fixture(scope="session")
def wan_folder(comfy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One random model per way of storing weights: see `wan_files.write_all`."""
    folder = tmp_path_factory.mktemp("wan_files")
    wan_files.write_all(folder)
    return folder


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Three clips, of 40, 9 and 60 frames, with captions."""
    return three_clips(tmp_path / "clips")
