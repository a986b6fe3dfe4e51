"""VBench in a process of its own, by a stand-in for its package: results, failures, and a death for want of memory."""

import json
import os
from pathlib import Path

import pytest

from batch.scoring.vbench_process import evaluate

PACKAGE = """
import json, os, pathlib, signal

class VBench:
    def __init__(self, device, information, output):
        assert json.loads(pathlib.Path(information).read_text()) == []
        self.output = output

    def evaluate(self, videos_path, name, dimension_list, local, mode):
        assert (dimension_list, local, mode) == ([name], True, "custom_input")
        if name == "too_large":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "failing":
            raise RuntimeError("no such weights")
        found = sorted(os.listdir(videos_path))
        pathlib.Path(self.output, f"{name}_eval_results.json").write_text(json.dumps({name: [0.5, found]}))
"""


@pytest.fixture
def videos(tmp_path: Path, monkeypatch) -> Path:
    (tmp_path / "packages" / "vbench").mkdir(parents=True)
    (tmp_path / "packages" / "vbench" / "__init__.py").write_text(PACKAGE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "00000.mp4").touch()
    return tmp_path / "videos"


def test_results_come_from_the_process(videos: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert evaluate("aesthetic_quality", Path("videos"), Path()) == {"aesthetic_quality": [0.5, ["00000.mp4"]]}
    assert json.loads((tmp_path / "aesthetic_quality_eval_results.json").read_text())


def test_a_failure_costs_its_own_dimension_only(videos: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="VBench failed: RuntimeError: no such weights"):
        evaluate("failing", videos, tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_want_of_memory_is_said(videos: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="VBench was killed by signal 9, perhaps for want of memory: it holds a whole video"):
        evaluate("too_large", videos, tmp_path)
