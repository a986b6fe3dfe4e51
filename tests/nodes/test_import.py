"""What importing the pack costs ComfyUI's start: its own modules and one small package, and nothing is registered or started.

Half of the import's time once went into one operator for the compiler, which most users never need.
"""

import pytest

from benchmarks.startup.importing import imported_pack


@pytest.fixture(scope="module")
def imported(environment, tmp_path_factory) -> dict:
    """What the import of the pack adds to a process that has ComfyUI's core."""
    return imported_pack(environment, tmp_path_factory.mktemp("import"))


def test_no_operator_is_registered_and_no_thread_started(imported):
    assert imported["operators"] == [] and imported["threads"] == 0


def test_no_package_is_imported_but_the_small_ones_that_are_needed_at_once(imported):
    """Not training's, not the plots', and no part of PyTorch that ComfyUI's core leaves alone, such as its compiler."""
    ours = [name for name in imported["modules"] if name.split(".")[0] == "a_pack"]
    packages = {name.split(".")[0] for name in imported["modules"]} - {"a_pack"}
    assert "a_pack.nodes.generate" in ours and "a_pack.training" not in ours
    assert packages <= {"imageio_ffmpeg", "comfy", "comfy_api", "av"}, imported["modules"]
