"""VBench judges only where its models are, each video once; what is missing is named."""

from pathlib import Path

import pytest

from batch.scoring import vbench_dimensions
from batch.scoring.sample import Sample
from batch.scoring.vbench_dimensions import DIMENSIONS, judge, missing_for


@pytest.fixture
def samples(tmp_path, monkeypatch):
    monkeypatch.setenv("VBENCH_CACHE_DIR", str(tmp_path / "models"))
    found = []
    for name in ("one", "two"):
        (tmp_path / f"{name}.webm").write_text(name)
        found.append(Sample(name, tmp_path / f"{name}.webm", f"sha of {name}", (), (1,)))
    return found


def have_models(monkeypatch, tmp_path: Path, *dimensions: str) -> None:
    monkeypatch.setattr(vbench_dimensions.importlib.util, "find_spec", lambda name: object())
    for name in (name for dimension in dimensions for name in DIMENSIONS[dimension]):
        (tmp_path / "models" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "models" / name).touch()


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_what_is_missing_is_named(samples, tmp_path, monkeypatch, dimension):
    def never(*_):
        raise AssertionError("it would download")

    assert judge(dimension, samples, tmp_path, never) == "the package vbench is not installed"
    have_models(monkeypatch, tmp_path)
    assert judge(dimension, samples, tmp_path, never) == f"{', '.join(DIMENSIONS[dimension])} not in {tmp_path / 'models'}"


def test_weights_that_torch_hub_would_download_must_be_there(samples, tmp_path, monkeypatch):
    have_models(monkeypatch, tmp_path, "subject_consistency")
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path / "hub"))
    path = tmp_path / "hub" / "checkpoints" / "dino_vitbase16_pretrain.pth"
    assert missing_for("subject_consistency") == f"{path} is not there"
    path.parent.mkdir(parents=True)
    path.touch()
    assert missing_for("subject_consistency") is None


def test_values_belong_to_their_videos_and_are_kept(samples, tmp_path, monkeypatch):
    have_models(monkeypatch, tmp_path, "imaging_quality", "dynamic_degree")
    seen = []

    def evaluate(dimension, videos, output):
        files = sorted(videos.iterdir(), reverse=True)
        seen.append([(file.suffix, file.read_text()) for file in files])
        values = {"one": 25.0, "two": 75.0} if dimension == "imaging_quality" else {"one": True, "two": False}
        return {dimension: [0.0, [{"video_path": str(f), "video_results": values[f.read_text()]} for f in files]]}

    assert judge("imaging_quality", samples[:1], tmp_path, evaluate) == {"one": 0.25}
    assert judge("imaging_quality", samples, tmp_path, evaluate) == {"one": 0.25, "two": 0.75}
    assert judge("imaging_quality", samples, tmp_path, evaluate) == {"one": 0.25, "two": 0.75}
    assert seen == [[(".mp4", "one")], [(".mp4", "two")]]  # VBench takes no other suffix
    assert judge("dynamic_degree", samples, tmp_path, evaluate) == {"one": 1.0, "two": 0.0}
