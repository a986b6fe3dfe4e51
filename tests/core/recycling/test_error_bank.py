import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from svi_core.flow.flow_matching import EXPERT_RANGES, training_sigmas
from svi_core.recycling.error_bank import ErrorBank, Replacement, TimestepGrid, Window, bank_bytes

SHAPE = (2, 5, 2, 3)
GRID = TimestepGrid(num_grids=4)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def residual(seed, shape=SHAPE):
    return torch.randn(shape, generator=generator(seed))


def make_bank(**settings):
    return ErrorBank(SHAPE, **{"grid": GRID, "capacity": 3, "dtype": torch.float32, **settings})


class TestTimestepGrid:
    def test_50_steps_at_shift_5(self):
        """docs/METHOD.md, 9.7."""
        values = [round(1000 * sigma, 1) for sigma in TimestepGrid().sigmas]
        assert values[:3] == [1000.0, 995.9, 991.7] and values[-4:] == [303.0, 241.9, 172.4, 92.6] and len(values) == 50

    def test_ids_for_each_grid_value(self):
        """docs/METHOD.md, 9.7: about 20 of the 1000 ids for each of 50 values, 11 for the first, 29 for the last."""
        grid = TimestepGrid()
        counts = [0] * 50
        for sigma in training_sigmas().tolist():
            counts[grid.index(sigma)] += 1
        assert counts[0] == 11 and counts[-1] == 29 and set(counts[1:-1]) <= {19, 20, 21} and sum(counts) == 1000

    @given(sigma=st.floats(0, 1), num_grids=st.integers(1, 60), shift=st.floats(0.5, 12))
    def test_index_is_the_nearest(self, sigma, num_grids, shift):
        grid = TimestepGrid(num_grids, shift)
        distances = [abs(value - sigma) for value in grid.sigmas]
        assert distances[grid.index(sigma)] == min(distances)

    def test_values_fall_and_index_falls_with_them(self):
        grid = TimestepGrid()
        assert all(after < before for before, after in pairwise(grid.sigmas))
        assert [grid.index(sigma) for sigma in grid.sigmas] == list(range(50))

    @pytest.mark.parametrize("sigma", [-0.1, 1.1, 900.0, math.nan])
    def test_sigma_outside_0_and_1_is_refused(self, sigma):
        with pytest.raises(ValueError, match="sigma is"):
            TimestepGrid().index(sigma)


@pytest.mark.parametrize("num_slots, capacity, gibibytes", [(21, 500, 97.6), (21, 100, 19.5), (3, 500, 13.9), (1, 500, 4.65)])
def test_memory_of_a_full_bank(num_slots, capacity, gibibytes):
    """docs/METHOD.md, 11.3."""
    assert bank_bytes((16, num_slots, 60, 104), capacity) / 2**30 == pytest.approx(gibibytes, abs=0.05)


@pytest.mark.parametrize("sigma", [0.0, 0.2, 0.7, 1.0])
def test_one_residual_gives_both_errors(sigma):
    bank = make_bank()
    bank.add(residual(1), sigma, generator())
    assert torch.allclose(bank.sample_noise_error(sigma, generator()), (1 - sigma) * residual(1))
    assert torch.allclose(bank.sample_latent_error(sigma, generator()), -sigma * residual(1))


def test_errors_keep_the_sigma_they_were_measured_at():
    bank = make_bank()
    measured, drawn = GRID.sigmas[2], GRID.sigmas[2] - 0.01
    bank.add(residual(1), measured, generator())
    assert torch.allclose(bank.sample_latent_error(drawn, generator()), -measured * residual(1))


def test_an_empty_cell_gives_none():
    bank = make_bank()
    assert bank.sample_image_error(1, generator()) is None
    bank.add(residual(1), 1.0, generator())
    assert bank.sample_noise_error(0.1, generator()) is None and bank.sample_latent_error(0.1, generator()) is None
    assert bank.sample_image_error(1, generator(), grids=[1, 2, 3]) is None
    assert bank.sample_image_error(1, generator(), grids=[0]) is not None


def test_values_are_stored_in_bf16_by_default():
    bank = ErrorBank(SHAPE)
    bank.add(residual(3), 1.0, generator())
    assert torch.equal(bank.sample_latent_error(1.0, generator()), -residual(3).bfloat16().float())
    assert [values.dtype for _, values in bank.contents(0)] == [torch.bfloat16]


def test_the_bank_keeps_a_copy():
    bank, values = make_bank(), residual(1)
    bank.add(values, 1.0, generator())
    values.zero_()
    bank.sample_latent_error(1.0, generator()).zero_()
    assert torch.equal(bank.sample_latent_error(1.0, generator()), -residual(1))


class SlowBank:
    """The released trainer's two banks (docs/METHOD.md, 9.1, 9.5 and 9.7), written without regard to speed or memory."""

    def __init__(self, capacity, replacement):
        self.capacity, self.replacement = capacity, replacement
        self.noise_errors, self.latent_errors, self.residuals = ([[] for _ in GRID.sigmas] for _ in range(3))

    def add(self, values, sigma, random):
        distances = [abs(sigma - value) for value in GRID.sigmas]
        cell = distances.index(min(distances))
        draw = float(torch.rand((), generator=random, dtype=torch.float64))
        lists = (self.noise_errors[cell], self.latent_errors[cell], self.residuals[cell])
        new = ((1 - sigma) * values, -sigma * values, values)
        if len(lists[0]) < self.capacity:
            for entries, item in zip(lists, new, strict=True):
                entries.append(item)
            return
        if self.replacement == "most_similar":
            stacked = torch.stack(lists[1]).double()
            position = int((stacked - new[1].double()).flatten(1).norm(dim=1).argmin())
        else:
            position = int(draw * self.capacity)
        for entries, item in zip(lists, new, strict=True):
            if self.replacement == "fifo":
                entries.pop(0)
                entries.append(item)
            else:
                entries[position] = item


@pytest.mark.parametrize("replacement", Replacement)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_replacement_agrees_with_a_slow_bank(replacement, dtype):
    bank, slow = make_bank(replacement=replacement, capacity=5, dtype=dtype), SlowBank(5, replacement.value)
    numbers, fast_random, slow_random = generator(7), generator(8), generator(8)
    for _ in range(120):
        sigma = float(training_sigmas()[EXPERT_RANGES["single"].draw_id(numbers)])
        scale = 0.1 + 3 * float(torch.rand((), generator=numbers))
        values = (scale * torch.randn(SHAPE, generator=numbers)).to(dtype).float()
        bank.add(values, sigma, fast_random)
        slow.add(values, sigma, slow_random)
    assert [cell.fill for cell in bank.statistics()] == [len(cell) for cell in slow.residuals] == [5, 5, 5, 5]
    for grid, cell in enumerate(slow.residuals):
        for (sigma, stored), wanted, noise, latent in zip(
            bank.contents(grid), cell, slow.noise_errors[grid], slow.latent_errors[grid], strict=True
        ):
            assert torch.equal(stored.float(), wanted)
            assert torch.allclose((1 - sigma) * stored.float(), noise) and torch.allclose(-sigma * stored.float(), latent)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), spread=st.sampled_from([1e-7, 1e-4, 1.0]))
def test_most_similar_is_exact_among_near_ties(seed, spread):
    """Entries that differ in the last bits only: the expanded distance in fp32 cannot tell them apart, fp64 can."""
    numbers = generator(seed)
    base = torch.randn(SHAPE, generator=numbers)
    entries = [base + spread * torch.randn(SHAPE, generator=numbers) for _ in range(6)]
    new, sigma = base + spread * torch.randn(SHAPE, generator=numbers), GRID.sigmas[1]
    bank = make_bank(capacity=6)
    for values in entries:
        bank.add(values, sigma, generator())
    distances = [float((new.double() - values.double()).norm()) for values in entries]
    bank.add(new, sigma, generator())
    stored = [values for _, values in bank.contents(1)]
    assert torch.equal(stored[distances.index(min(distances))], new)
    assert sum(torch.equal(a, b) for a, b in zip(stored, entries, strict=True)) == 5


def test_similarity_is_that_of_latent_errors():
    """At sigma 1.0 and 0.97, both of cell 0: the residual 1.0 is nearer to 0.99, its latent error to that of 1.02."""
    assert GRID.index(0.97) == 0
    ones = torch.ones(SHAPE)
    bank = make_bank(capacity=2)
    bank.add(0.99 * ones, 0.97, generator())  # latent error -0.9603
    bank.add(1.02 * ones, 0.97, generator())  # latent error -0.9894
    bank.add(ones, 1.0, generator())  # latent error -1
    assert [round(float(values.mean()), 4) for _, values in bank.contents(0)] == [0.99, 1.0]


@pytest.mark.parametrize("replacement", Replacement)
def test_random_numbers_used_do_not_depend_on_the_bank(replacement):
    after_add, after_sample = set(), set()
    for fill in (0, 2, 3):
        bank = make_bank(replacement=replacement)
        for seed in range(fill):
            bank.add(residual(seed), 1.0, generator())
        numbers = generator(1)
        bank.add(residual(9), 1.0, numbers)
        after_add.add(float(torch.rand((), generator=numbers)))
        bank.sample_noise_error(0.0, numbers)
        bank.sample_latent_error(1.0, numbers)
        bank.sample_image_error(2, numbers)
        bank.sample_image_error(2, numbers, [3], Window.LAST)
        after_sample.add(float(torch.rand((), generator=numbers)))
    assert len(after_add) == len(after_sample) == 1


def test_every_entry_of_a_cell_is_equally_likely():
    bank, numbers = make_bank(capacity=4), generator(3)
    for value in range(4):
        bank.add(torch.full(SHAPE, value + 1.0), 1.0, generator())
    drawn = torch.tensor([-bank.sample_latent_error(1.0, numbers)[0, 0, 0, 0] for _ in range(4000)])
    assert all(abs(count - 1000) < 130 for count in torch.bincount(drawn.long())[1:].tolist())


def test_image_errors_come_from_all_entries_alike():
    """Not from all *cells* alike: three entries in one cell and one in another are drawn a quarter each."""
    bank, numbers = make_bank(), generator(4)
    for value, sigma in ((1.0, 1.0), (2.0, 1.0), (3.0, 1.0), (4.0, GRID.sigmas[3])):
        bank.add(torch.full(SHAPE, value) / sigma, sigma, generator())
    drawn = torch.tensor([-bank.sample_image_error(1, numbers)[0, 0, 0, 0] for _ in range(4000)]).round().long()
    assert all(abs(count - 1000) < 130 for count in torch.bincount(drawn)[1:].tolist())
    assert {int(-bank.sample_image_error(1, numbers, range(1, 4))[0, 0, 0, 0].round()) for _ in range(30)} == {4}


def slots_in_order():
    """A residual whose slot k is -k everywhere, so that its latent error at sigma 1 is k."""
    return -torch.arange(SHAPE[1]).reshape(1, -1, 1, 1).expand(SHAPE).float()


def test_windows_are_whole_random_and_uniform():
    bank, numbers = make_bank(), generator(5)
    bank.add(slots_in_order(), 1.0, generator())
    starts = []
    for _ in range(3000):
        window = bank.sample_image_error(3, numbers)
        assert window.shape == (2, 3, 2, 3)
        start = int(window[0, 0, 0, 0])
        assert torch.equal(window, torch.arange(start, start + 3.0).reshape(1, 3, 1, 1).expand_as(window))
        starts.append(start)
    counts = torch.bincount(torch.tensor(starts)).tolist()
    assert len(counts) == 3 and all(abs(count - 1000) < 120 for count in counts)


@pytest.mark.parametrize("num_slots, first", [(1, 4), (3, 2), (5, 0)])
def test_the_last_window(num_slots, first):
    bank = make_bank()
    bank.add(slots_in_order(), 1.0, generator())
    window = bank.sample_image_error(num_slots, generator(), window=Window.LAST)
    assert window[0, :, 0, 0].tolist() == list(range(first, 5))


def test_statistics_by_hand():
    bank, sigma = make_bank(), 0.97
    assert GRID.index(sigma) == 0
    bank.add(torch.full(SHAPE, 3.0), sigma, generator())
    bank.add(torch.full(SHAPE, 4.0), 1.0, generator())
    first, *others = bank.statistics()
    assert (first.sigma, first.fill) == (1.0, 2)
    assert first.latent_error_rms == pytest.approx(math.sqrt(((3 * 0.97) ** 2 + 16) / 2))
    assert all((cell.fill, cell.latent_error_rms) == (0, 0.0) for cell in others) and len(bank) == 2


def same_contents(one, other):
    for grid in range(GRID.num_grids):
        for (sigma, values), (other_sigma, other_values) in zip(one.contents(grid), other.contents(grid), strict=True):
            assert sigma == other_sigma and torch.equal(values, other_values)


def test_a_snapshot_brings_back_contents_and_order():
    bank, numbers = make_bank(), generator(6)
    for seed in range(20):
        bank.add(residual(seed), float(torch.rand((), generator=numbers)), numbers)
    snapshot = {name: values.clone() for name, values in bank.snapshot().items()}
    wanted = [list(bank.contents(grid)) for grid in range(4)]
    random_state = numbers.get_state()

    def go_on(bank, numbers):
        for seed in range(20, 40):
            bank.add(residual(seed), float(torch.rand((), generator=numbers)), numbers)

    go_on(bank, numbers)
    resumed, resumed_numbers = make_bank(), generator()
    resumed.restore(snapshot)
    for grid, cell in enumerate(wanted):
        assert all(a[0] == b[0] and torch.equal(a[1], b[1]) for a, b in zip(resumed.contents(grid), cell, strict=True))
    resumed_numbers.set_state(random_state)
    go_on(resumed, resumed_numbers)
    same_contents(bank, resumed)
    assert bank.statistics() == resumed.statistics()


def test_snapshot_of_another_bank_is_refused():
    bank = make_bank()
    bank.add(residual(0), 0.0, generator())
    with pytest.raises(ValueError, match="resume with the settings"):
        ErrorBank((2, 4, 2, 3), grid=GRID, dtype=torch.float32).restore(bank.snapshot())
    with pytest.raises(ValueError, match="resume with the settings"):
        make_bank(grid=TimestepGrid(2)).restore(bank.snapshot())
    with pytest.raises(ValueError, match="on disk"):
        bank.restore({"journal": torch.zeros(2, dtype=torch.int64)})
    assert len(bank) == 1


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda bank: bank.add(residual(0)[None], 0.5, generator()), "one example at a time"),
        (lambda bank: bank.add(residual(0, (2, 4, 2, 3)), 0.5, generator()), "a bank for each size"),
        (lambda bank: bank.add(residual(0) * math.nan, 0.5, generator()), "NaN"),
        (lambda bank: bank.add(residual(0) * math.inf, 0.5, generator()), "infinite"),
        (lambda bank: bank.add(residual(0), 500.0, generator()), "sigma is 500"),
        (lambda bank: bank.sample_image_error(0, generator()), "num_slots is 0"),
        (lambda bank: bank.sample_image_error(6, generator()), "num_slots is 6"),
        (lambda bank: bank.sample_image_error(1, generator(), [4]), "cells 0 .. 3"),
        (lambda bank: ErrorBank((16, 60, 104)), "entry_shape is"),
        (lambda bank: ErrorBank(SHAPE, capacity=0), "capacity is 0"),
        (lambda bank: ErrorBank(SHAPE, dtype=torch.int8), "dtype is"),
        (lambda bank: ErrorBank(SHAPE, replacement="l2"), "l2"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(call, message):
    bank = make_bank()
    with pytest.raises(ValueError, match=message):
        call(bank)
    assert len(bank) == 0


def test_a_cleared_bank_is_empty():
    bank = make_bank()
    bank.add(residual(0), 0.0, generator())
    bank.clear()
    assert len(bank) == 0 and bank.sample_latent_error(0.0, generator()) is None
    bank.add(residual(1), 0.0, generator())
    assert [cell.fill for cell in bank.statistics()] == [0, 0, 0, 1]
