"""What importing the pack costs ComfyUI's start: its own modules and one small package, and nothing is registered or started.

Half of the import's time once went into one operator for the compiler, which most users never need.
"""

import pytest

from benchmarks.startup.importing import imported_pack


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("import")


@pytest.fixture(scope="module")
def imported(environment, folder) -> dict:
    """What the import of the pack adds to a process that has ComfyUI's core."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONDONTWRITEBYTECODE", "1")  # as some machines have it
        return imported_pack(environment, folder)


def test_the_next_start_reads_bytecode_files_as_comfyuis_does(imported, folder):
    """Their time is what users wait: where they are missing, most of it is compiling."""
    written = {path.name.split(".")[0] for path in folder.rglob("*.pyc")}
    assert {"generate", "clip_sampler", "growing_video"} <= written


def test_no_operator_is_registered_and_no_thread_started(imported):
    assert imported["operators"] == [] and imported["threads"] == 0


def test_no_package_is_imported_but_the_small_ones_that_are_needed_at_once(imported):
    """Not training's, not the plots', and no part of PyTorch that ComfyUI's core leaves alone, such as its compiler."""
    ours = [name for name in imported["modules"] if name.split(".")[0] == "a_pack"]
    packages = {name.split(".")[0] for name in imported["modules"]} - {"a_pack"}
    assert "a_pack.nodes.generate" in ours and "a_pack.training" not in ours
    assert packages <= {"imageio_ffmpeg", "comfy", "comfy_api", "av"}, imported["modules"]
