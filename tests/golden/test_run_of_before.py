"""A run folder made before the code moved into rooms goes on: every clip is found under its key, and nothing is made again.

The folder was written by commit dece52e on Python 3.11 with ComfyUI 0.30.0, from the graph beside it and the tiny random models
of tests/e2e/tiny_models.py, on an AMD EPYC. Keys hash functions of ComfyUI by their bytecode, so another Python has other keys,
and what networks made of picture and prompt, so a processor that rounds otherwise has other keys, too.
"""

import json
import shutil
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from svi_core.store.records import read_last_video, read_manifest, read_records

BEFORE = Path(__file__).with_name("before_the_move")
pytestmark = pytest.mark.e2e


def test_its_records_and_its_video_are_read():
    records = read_records(BEFORE / "run")
    assert [record.prompt for record in records] == ["a cat walks", "it sits down", "it sleeps"]
    assert [record.seed for record in records] == [5, 9, 89]
    video = read_last_video(BEFORE / "run")
    assert video is not None and [clip.key for clip in read_manifest(video)] == [record.key for record in records]


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="the keys of the kept run are those of Python 3.11")
def test_every_clip_of_it_is_reused(comfy_server, reference_image):
    folder = comfy_server.output_directory / "svi" / "kept"
    shutil.copytree(BEFORE / "run", folder)
    before = clip_files(folder)
    assert len(before) == 6
    graph = json.loads((BEFORE / "run_graph.json").read_text())
    graph["image"]["inputs"]["image"] = comfy_server.add_input(reference_image)
    comfy_server.run(graph)
    after = clip_files(folder)
    if after.keys() != before.keys() and rounds_otherwise(folder):
        pytest.skip("this processor rounds otherwise than the one that made the run, and keys hash what networks gave")
    assert after.keys() == before.keys(), "other keys: the clips of runs that users have would all be made again"
    assert after == before


def rounds_otherwise(folder: Path) -> bool:
    """Whether clips that were made again have the latents of before but for their last bits."""
    old = {record.index: record.key for record in read_records(BEFORE / "run")}
    new = {record.index: record.key for record in read_records(folder) if record.key not in old.values()}
    differences = []
    for index, key in new.items():
        before = load_file(BEFORE / "run" / "clips" / f"{old[index]}.safetensors")["latent"]
        differences.append(float((load_file(folder / "clips" / f"{key}.safetensors")["latent"] - before).abs().max()))
    return len(new) == len(old) and 0.0 < max(differences) < 1e-3


def clip_files(folder: Path) -> dict[str, bytes]:
    """Return latents and segments by name. Records are left out: they note when the model files were changed last."""
    return {path.name: path.read_bytes() for path in (folder / "clips").iterdir() if path.suffix != ".json"}
