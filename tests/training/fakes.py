"""Random examples, and a trainer on a tiny random model."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from training.data.dataset import TrainingExample
from training.method.distributed import Group
from training.settings.reader import config_from

SHAPE = (16, 3, 4, 6)


class FakeDataset:
    """`num` random clips; every fourth example has the other orientation where `mixed` is set."""

    def __init__(self, num: int = 8, num_held_out: int = 2, mixed: bool = False):
        self.num, self.num_held_out, self.mixed = num, num_held_out, mixed

    def __len__(self) -> int:
        return self.num

    def make(self, index: int, name: str = "clip") -> TrainingExample:
        generator = torch.Generator().manual_seed(1000 + index)
        shape = (16, 3, 6, 4) if self.mixed and index % 4 == 3 else SHAPE
        latent, y_latent = (torch.randn(shape, generator=generator) for _ in range(2))
        mask = torch.zeros(1, *shape[1:])
        mask[:, 0] = 1.0
        text = torch.randn(5 + index % 3, 32, generator=generator)
        return TrainingExample(f"{name}{index}.mp4", latent, y_latent, mask, range(1, 2), text, None, {})

    def example(self, seed: int, step: int, slot: int) -> TrainingExample:
        return self.make((seed + 31 * step + slot) % self.num)

    @property
    def content_hash(self) -> str:
        return f"{self.num} {self.num_held_out} {self.mixed}"

    @property
    def latent_shapes(self) -> set[tuple[int, ...]]:
        return {tuple(self.make(index).latent.shape) for index in range(self.num)}

    def validation(self) -> list[TrainingExample]:
        return [self.make(500 + index, "held_out") for index in range(self.num_held_out)]


class SlowDataset(FakeDataset):
    """The same clips, each a second late from the third step on, so that a test can interrupt the run."""

    def example(self, seed: int, step: int, slot: int) -> TrainingExample:
        if step >= 2:
            time.sleep(1)
        return super().example(seed, step, slot)


def settings(run: Path | str = "", **sections):
    """Return settings for the tiny random model: probabilities high, everything else small."""
    table = {
        "run": str(run),
        "model": {"expert": "high"},
        "lora": {"rank": 4, "alpha": 4.0},
        "recycling": {
            "noise_prob": 0.5, "latent_prob": 0.9, "image_prob": 0.9, "clean_prob": 0.2, "num_image_error_slots": 1,
            "capacity": 3, "num_grids": 4, "warmup_steps": 2,
        },
        "bank": {"storage": "ram"},
        "optimizer": {"learning_rate": 1e-2},
        "loop": {"steps": 6, "checkpoint_every": 2},
        "validation": {"every": 0},
    }  # fmt: skip
    for name, values in sections.items():
        table[name] = {**table.get(name, {}), **values} if isinstance(values, dict) else values
    return config_from(table)


def make_trainer(wan_folder: Path, config=None, *, data=None, group: Group | None = None, storage: str = "fp32", folder=None):
    """Return a trainer on the tiny random model of `wan_folder`."""
    from training.model.loading import load_backbone
    from training.run.assembly import assemble

    config = config or settings()
    backbone = load_backbone(wan_folder / f"{storage}.safetensors")
    return assemble(config, backbone, data or FakeDataset(), group or Group(), folder or Path(config.run or wan_folder / "run"))


@contextmanager
def without_lora(lora) -> Iterator[None]:
    """Let the transformer run as it was before training."""
    scales = {pair: pair.scale for pair in lora.pairs.values()}
    for pair in scales:
        pair.scale = 0.0
    try:
        yield
    finally:
        for pair, scale in scales.items():
            pair.scale = scale
