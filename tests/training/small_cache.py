"""A small cache: three clips of numbered frames, the settings of examples so small that frame numbers stay readable."""

from pathlib import Path

from tests.training.synthetic_clips import write_numbered
from training.data.dataset import CachedDataset, TrainingExample
from training.settings.data import DataConfig

SMALL = {"width": 64, "height": 64, "min_crop": 1.0, "num_frames": 9, "max_held_frames": 1, "held_out": 0.0}


def settings(folder: Path, **more) -> DataConfig:
    """Examples of 9 frames (3 slots) of 64 x 64 pixels, uncropped, so that frame numbers stay readable."""
    return DataConfig(**{"folder": str(folder), "cache": str(folder.parent / "cache"), **SMALL, **more})


def three_clips(folder: Path) -> Path:
    """Write clips of 40, 9 and 60 frames, with captions, into `folder` and return it."""
    for name, count in (("long", 40), ("exact", 9), ("other", 60)):
        write_numbered(folder / f"{name}.mp4", count)
        (folder / f"{name}.txt").write_text(f"A clip of {count} frames")
    return folder


def only_example(config: DataConfig, name: str) -> TrainingExample:
    dataset = CachedDataset(config.cache_folder, config)
    found = [example for example in (dataset.example(0, step) for step in range(len(dataset))) if name in example.name]
    assert len(found) == 1
    return found[0]


def entries(config: DataConfig, kind: str = "windows") -> list[Path]:
    return sorted((config.cache_folder / kind).glob("*.safetensors"))
