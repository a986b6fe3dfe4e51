"""One bank for each size, together in one snapshot."""

import pytest
import torch

from svi_core.recycling.error_recycling import ErrorRecyclingConfig
from training.method.banks import Banks, error_to_signal
from training.method.distributed import Group
from training.method.streams import stream
from training.settings.sections import BankConfig, BankStorageKind

SHAPES = ((16, 3, 4, 6), (16, 3, 6, 4))


def make(tmp_path, kind: str = "ram", capacity: int = 2):
    recycling = ErrorRecyclingConfig(capacity=capacity, num_grids=4)
    return Banks(recycling, BankConfig(storage=BankStorageKind(kind)), tmp_path, num_snapshots=3, expected_entries=5)


def fill(banks, count: int, seed: int = 0):
    for index in range(count):
        shape = SHAPES[index % 2]
        residual = torch.randn(shape, generator=torch.Generator().manual_seed(seed + index))
        banks.of(shape).add(residual, 0.3 + 0.1 * (index % 5), stream(0, index, 0, "bank"))


def drawn(banks):
    return [banks.of(shape).sample_image_error(2, stream(1, 1, 0, "draw")) for shape in SHAPES]


@pytest.mark.parametrize("kind", ["ram", "file"])
def test_snapshots_bring_all_sizes_back(tmp_path, kind):
    banks = make(tmp_path / "a", kind)
    fill(banks, 12)
    before, snapshot = drawn(banks), banks.snapshots()
    assert all(key.startswith(("16x3x4x6/", "16x3x6x4/")) for key in snapshot)
    fill(banks, 12, seed=100)
    assert not torch.equal(drawn(banks)[0], before[0])
    banks.close()
    again = make(tmp_path / "a", kind)
    again.restore(snapshot)
    assert all(torch.equal(a, b) for a, b in zip(drawn(again), before, strict=True))
    again.close()


def test_what_came_after_the_checkpoint_is_forgotten(tmp_path):
    """Also by the bank of a size first seen after it; else a resumed training would differ from one that never stopped."""
    banks = make(tmp_path, "file")
    banks.of(SHAPES[0]).add(torch.ones(SHAPES[0]), 0.4, stream(0, 0, 0, "bank"))
    snapshot = banks.snapshots()
    fill(banks, 6)
    banks.close()
    again = make(tmp_path, "file")
    again.restore(snapshot)
    assert [len(again.of(shape)) for shape in SHAPES] == [1, 0]
    fill(again, 4)
    again.restore(snapshot)
    assert [len(again.of(shape)) for shape in SHAPES] == [1, 0]
    again.close()


def test_the_estimate_is_bounded_by_what_training_adds(tmp_path):
    shape = (16, 21, 60, 104)
    assert make(tmp_path).memory_bytes(shape) == 5 * 16 * 21 * 60 * 104 * 2
    assert make(tmp_path, capacity=1).memory_bytes(shape) == 4 * 16 * 21 * 60 * 104 * 2


def test_error_to_signal_of_a_known_residual(tmp_path):
    banks = make(tmp_path)
    banks.of(SHAPES[0]).add(torch.full(SHAPES[0], 0.5), 0.4, stream(0, 0, 0, "bank"))
    ratios = error_to_signal(banks.statistics()[SHAPES[0]], signal_rms=2.0)
    assert [ratio for ratio in ratios if ratio is not None] == [pytest.approx(0.4 * 0.5 / 2.0, rel=1e-3)]


def test_streams_differ_in_everything_they_are_named_by():
    def first(*place):
        return float(torch.rand((), generator=stream(*place)))

    places = [(0, 1, 2, "a"), (1, 1, 2, "a"), (0, 2, 2, "a"), (0, 1, 3, "a"), (0, 1, 2, "b")]
    assert len({first(*place) for place in places}) == 5
    assert first(0, 1, 2, "a") == first(0, 1, 2, "a")


@pytest.mark.usefixtures("training_mode")
def test_a_checkpoint_is_as_large_as_the_banks_of_all_processes(wan_folder):
    from tests.training.fakes import SHAPE, make_trainer
    from training.run.checkpoint import checkpoint_bytes

    class Eight(Group):
        def total(self, *values):
            return [8 * value for value in values]

    trainer = make_trainer(wan_folder)
    empty = checkpoint_bytes(trainer)
    trainer.banks.of(SHAPE).add(torch.randn(SHAPE), 0.9, torch.Generator().manual_seed(0))
    entry = 2 * 16 * 3 * 4 * 6  # bf16
    assert checkpoint_bytes(trainer) - empty == entry
    trainer.group = Eight()
    assert checkpoint_bytes(trainer) - empty == 8 * entry
