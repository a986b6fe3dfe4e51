import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from svi_core.flow.flow_matching import make_flow_sample
from svi_core.flow.timestep_grid import TimestepGrid
from svi_core.recycling.config import ErrorRecyclingConfig, ImageErrorGrids, Objective, StoredSlots
from svi_core.recycling.error_bank import ErrorBank, Window
from svi_core.recycling.error_recycling import (
    ErrorInjection,
    InjectedInputs,
    draw_injection,
    entry_shape,
    inject,
    is_shared,
    make_bank,
    residual,
    should_store,
    store,
    target_velocity,
)

SHAPE = (2, 5, 2, 3)
SLOTS = range(SHAPE[1])
NO_ERRORS = ErrorInjection(None, None, None, is_clean=False)
SIGMA = 0.8


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def config(**settings):
    always = {"noise_prob": 1.0, "latent_prob": 1.0, "image_prob": 1.0, "clean_prob": 0.0, "num_image_error_slots": 3}
    return ErrorRecyclingConfig(**{**always, **settings})


def to_latent(noisy_latent, velocity, sigma):
    """Return where one step along `velocity` from `noisy_latent` ends."""
    return noisy_latent - sigma * velocity


def randoms(count, seed=0, shape=SHAPE):
    numbers = generator(seed)
    return [torch.randn(shape, generator=numbers, dtype=torch.float64) for _ in range(count)]


def full_bank(value=1.0, shape=SHAPE):
    """One residual of `value` in every grid cell, so that an error tells its cell."""
    bank = ErrorBank(shape, capacity=2, dtype=torch.float32)
    for sigma in bank.grid.sigmas:
        bank.add(torch.full(shape, value), sigma, generator())
    return bank


class TestInject:
    def test_without_errors_the_same_tensors_pass_through(self):
        latent, noise, y_latent = randoms(3)
        injected = inject(latent, noise, y_latent, NO_ERRORS, SLOTS)
        assert injected.latent is latent and injected.noise is noise and injected.y_latent is y_latent

    def test_errors_are_added_where_they_belong(self):
        """docs/METHOD.md, 9.5: the first n of the slots that may get an error, nothing else of the conditioning."""
        latent, noise, y_latent, noise_error, latent_error = randoms(5)
        (image_error,) = randoms(1, 9, (2, 2, 2, 3))
        originals = [tensor.clone() for tensor in (latent, noise, y_latent)]
        injection = ErrorInjection(noise_error, latent_error, image_error, is_clean=False)
        injected = inject(latent, noise, y_latent, injection, range(1, 4))
        assert torch.equal(injected.latent, latent + latent_error) and torch.equal(injected.noise, noise + noise_error)
        assert torch.equal(injected.y_latent[:, 1:3], y_latent[:, 1:3] + image_error)
        assert torch.equal(injected.y_latent[:, [0, 3, 4]], y_latent[:, [0, 3, 4]])
        assert all(torch.equal(a, b) for a, b in zip((latent, noise, y_latent), originals, strict=True))

    def test_inputs_keep_their_dtype(self):
        latent, noise, y_latent = (tensor.bfloat16() for tensor in randoms(3))
        errors = [tensor.float() for tensor in randoms(3, 4)]
        injected = inject(latent, noise, y_latent, ErrorInjection(*errors, is_clean=False), SLOTS)
        assert {injected.latent.dtype, injected.noise.dtype, injected.y_latent.dtype} == {torch.bfloat16}

    @pytest.mark.parametrize("slots", [range(0), range(1, 2), range(3, 6)])
    def test_an_image_error_that_does_not_fit_is_refused(self, slots):
        (image_error,) = randoms(1, 9, (2, 2, 2, 3))
        with pytest.raises(ValueError, match="the image error has 2 slots"):
            inject(*randoms(3), ErrorInjection(None, None, image_error, is_clean=False), slots)


class TestTarget:
    @pytest.mark.parametrize("objective", Objective)
    def test_without_errors_it_is_the_plain_velocity_bit_for_bit(self, objective):
        latent, noise, y_latent = (tensor.float() for tensor in randoms(3))
        injected = inject(latent, noise, y_latent, NO_ERRORS, SLOTS)
        plain = make_flow_sample(latent, noise, 0.3).velocity
        assert torch.equal(target_velocity(latent, injected, 0.3, objective), plain)

    def test_the_released_form(self):
        """docs/METHOD.md, 9.1: noise with its error, minus the clean latent."""
        latent, noise, y_latent, noise_error, latent_error = randoms(5)
        injected = inject(latent, noise, y_latent, ErrorInjection(noise_error, latent_error, None, False), SLOTS)
        assert torch.equal(target_velocity(latent, injected, 0.3), noise + noise_error - latent)

    @given(sigma=st.floats(0.005, 1.0), seed=st.integers(0, 2**32), has_noise_error=st.booleans())
    def test_one_step_of_the_papers_form_reaches_the_clean_latent(self, sigma, seed, has_noise_error):
        latent, noise, noise_error, latent_error = randoms(4, seed)
        injection = ErrorInjection(noise_error if has_noise_error else None, latent_error, None, is_clean=False)
        injected = inject(latent, noise, latent, injection, SLOTS)
        noisy = make_flow_sample(injected.latent, injected.noise, sigma).noisy_latent
        target = target_velocity(latent, injected, sigma, Objective.PAPER)
        assert torch.allclose(to_latent(noisy, target, sigma), latent, atol=1e-9)
        assert torch.allclose(target, (noisy - latent) / sigma, atol=1e-7 / sigma)

    @given(sigma=st.floats(0.005, 1.0), seed=st.integers(0, 2**32))
    def test_one_step_of_the_released_form_keeps_part_of_the_latents_error(self, sigma, seed):
        """docs/METHOD.md, 9.2: it arrives at the latent + (1 - sigma) * its error."""
        latent, noise, noise_error, latent_error = randoms(4, seed)
        injected = inject(latent, noise, latent, ErrorInjection(noise_error, latent_error, None, False), SLOTS)
        noisy = make_flow_sample(injected.latent, injected.noise, sigma).noisy_latent
        target = target_velocity(latent, injected, sigma)
        assert torch.allclose(to_latent(noisy, target, sigma), latent + (1 - sigma) * latent_error, atol=1e-9)
        assert torch.allclose(to_latent(noisy, target, sigma) + target, injected.noise + (1 - sigma) * latent_error, atol=1e-9)

    def test_no_step_from_sigma_0(self):
        latent, noise, latent_error = randoms(3)
        injected = InjectedInputs(latent + latent_error, noise, latent)
        with pytest.raises(ValueError, match="sigma is 0"):
            target_velocity(latent, injected, 0.0, Objective.PAPER)


@pytest.mark.parametrize("objective", Objective)
@given(seed=st.integers(0, 2**32), cell=st.integers(0, 49))
def test_what_the_bank_gives_is_prediction_minus_target_at_either_end(objective, seed, cell):
    """docs/METHOD.md, 9.1, step by step: integrate the predicted and the target velocity to both ends and subtract."""
    latent, noise, noise_error, latent_error, predicted = randoms(5, seed)
    sigma = TimestepGrid().sigmas[cell]
    injected = inject(latent, noise, latent, ErrorInjection(noise_error, latent_error, None, False), SLOTS)
    noisy = make_flow_sample(injected.latent, injected.noise, sigma).noisy_latent
    target = target_velocity(latent, injected, sigma, objective)
    bank = ErrorBank(SHAPE, dtype=torch.float32)
    bank.add(residual(predicted, target), sigma, generator())
    at_latent = to_latent(noisy, predicted, sigma) - to_latent(noisy, target, sigma)
    at_noise = to_latent(noisy, predicted, sigma) + predicted - (to_latent(noisy, target, sigma) + target)
    size = float((predicted - target).abs().max())
    assert torch.allclose(bank.sample_latent_error(sigma, generator()).double(), at_latent, atol=1e-5 * size)
    assert torch.allclose(bank.sample_noise_error(sigma, generator()).double(), at_noise, atol=1e-5 * size)


def test_the_residual_is_fp32_without_gradient():
    predicted = torch.randn(3, requires_grad=True, dtype=torch.bfloat16)
    found = residual(predicted, torch.zeros(3, dtype=torch.bfloat16))
    assert found.dtype == torch.float32 and not found.requires_grad
    assert torch.equal(found, predicted.detach().float())


class TestDraw:
    def frequencies(self, settings, draws=4000):
        bank, numbers = full_bank(), generator(11)
        injections = [draw_injection(bank, SIGMA, settings, numbers, SLOTS) for _ in range(draws)]
        return [
            sum(getattr(injection, name) is not None for injection in injections) / draws
            for name in ("noise_error", "latent_error", "image_error")
        ] + [sum(injection.is_clean for injection in injections) / draws]

    def test_effective_rates_of_film(self):
        """docs/METHOD.md, 9.5: 0.005 noise, 0.45 latent and image; half of the examples clean."""
        found = self.frequencies(ErrorRecyclingConfig())
        for rate, wanted in zip(found, (0.005, 0.45, 0.45, 0.5), strict=True):
            assert abs(rate - wanted) < 4.5 * math.sqrt(wanted * (1 - wanted) / 4000)

    def test_effective_rates_of_shot(self):
        found = self.frequencies(ErrorRecyclingConfig(clean_prob=0.2))
        for rate, wanted in zip(found, (0.008, 0.72, 0.72, 0.2), strict=True):
            assert abs(rate - wanted) < 4.5 * math.sqrt(wanted * (1 - wanted) / 4000)

    def test_the_three_are_independent(self):
        bank, numbers = full_bank(), generator(12)
        half = config(noise_prob=0.5, latent_prob=0.5, image_prob=0.5)
        counts = dict.fromkeys(range(8), 0)
        for _ in range(4000):
            drawn = draw_injection(bank, SIGMA, half, numbers, SLOTS)
            errors = (drawn.noise_error, drawn.latent_error, drawn.image_error)
            counts[sum((error is not None) << bit for bit, error in enumerate(errors))] += 1
        assert all(abs(count - 500) < 95 for count in counts.values())

    def test_clean_overrides(self):
        drawn = draw_injection(full_bank(), SIGMA, config(clean_prob=1.0), generator(), SLOTS)
        assert drawn == ErrorInjection(None, None, None, is_clean=True)

    def test_all_probabilities_zero_give_nothing(self):
        settings, numbers = config(noise_prob=0.0, latent_prob=0.0, image_prob=0.0, clean_prob=0.0), generator(3)
        assert not settings.injects and config(clean_prob=0.999).injects and not config(clean_prob=1.0).injects
        assert all(draw_injection(full_bank(), SIGMA, settings, numbers, SLOTS) == NO_ERRORS for _ in range(50))

    def test_probability_1_with_an_empty_bank_gives_nothing(self):
        drawn = draw_injection(ErrorBank(SHAPE), SIGMA, config(), generator(), SLOTS)
        assert drawn == NO_ERRORS

    def test_noise_and_latent_errors_are_those_of_the_examples_noise_level(self):
        bank = full_bank()
        level = bank.grid.sigmas[bank.grid.index(SIGMA)]
        drawn = draw_injection(bank, SIGMA, config(), generator(), SLOTS)
        assert torch.allclose(drawn.noise_error, torch.full(SHAPE, 1 - level))
        assert torch.allclose(drawn.latent_error, torch.full(SHAPE, -level))

    @pytest.mark.parametrize("grids, allowed", [("all", range(50)), ("current", range(29, 30)), ("range", range(10, 13))])
    def test_image_errors_come_from_the_cells_asked_for(self, grids, allowed):
        bank, numbers = full_bank(), generator(1)
        assert bank.grid.index(0.78) == 29
        settings = config(image_error_grids=grids, image_error_range=(10, 13))
        drawn = [draw_injection(bank, 0.78, settings, numbers, SLOTS).image_error for _ in range(400)]
        cells = {bank.grid.index(-float(error[0, 0, 0, 0])) for error in drawn}
        assert cells <= set(allowed) and len(cells) >= min(len(allowed), 40)

    @pytest.mark.parametrize("slots, covered", [(range(5), 3), (range(1, 2), 1), (range(1, 3), 2), (range(0), 0)])
    def test_the_image_error_fits_the_slots_that_may_get_one(self, slots, covered):
        error = draw_injection(full_bank(), SIGMA, config(), generator(), slots).image_error
        assert (0 if error is None else error.shape[1]) == covered
        inject(*randoms(3), ErrorInjection(None, None, error, is_clean=False), slots)

    def test_modulation_is_uniform_around_1(self):
        bank, numbers = full_bank(), generator(2)
        level = bank.grid.sigmas[bank.grid.index(SIGMA)]
        settings = config(modulation=0.5)
        factors = torch.tensor(
            [-draw_injection(bank, SIGMA, settings, numbers, SLOTS).latent_error[0, 0, 0, 0] / level for _ in range(4000)]
        )
        assert factors.min() >= 0.5 and factors.max() <= 1.5
        assert abs(float(factors.mean()) - 1) < 0.02 and abs(float(factors.std()) - 1 / math.sqrt(12)) < 0.02

    def test_random_numbers_used_do_not_depend_on_what_is_drawn(self):
        settings = [config(), config(clean_prob=1.0), config(noise_prob=0.0, image_prob=0.0), config(modulation=0.5)]
        states = {
            bytes(after.get_state().numpy())
            for bank in (full_bank(), ErrorBank(SHAPE))
            for each in settings
            for slots in (SLOTS, range(0))
            for after in [generator(5)]
            if draw_injection(bank, SIGMA, each, after, slots)
        }
        assert len(states) == 1

    def test_equal_generators_draw_equal_injections(self):
        bank = full_bank()
        for seed in range(30):
            bank.add(torch.randn(SHAPE, generator=generator(seed)), SIGMA, generator())
        one, other = ([draw_injection(bank, SIGMA, config(), g, SLOTS) for _ in range(9)] for g in (generator(1), generator(1)))
        for a, b in zip(one, other, strict=True):
            assert torch.equal(a.latent_error, b.latent_error) and torch.equal(a.image_error, b.image_error)


class TestStoring:
    def test_clean_examples_are_stored_rarely_others_always(self):
        numbers, settings = generator(8), ErrorRecyclingConfig(clean_update_prob=0.1)
        clean = ErrorInjection(None, None, None, is_clean=True)
        assert all(should_store(NO_ERRORS, settings, numbers) for _ in range(200))
        stored = sum(should_store(clean, settings, numbers) for _ in range(4000))
        assert abs(stored - 400) < 4.5 * math.sqrt(4000 * 0.1 * 0.9)
        for prob in (0.0, 1.0):
            rule = ErrorRecyclingConfig(clean_update_prob=prob)
            assert {should_store(clean, rule, numbers) for _ in range(100)} == {bool(prob)}

    def test_processes_share_errors_in_the_warm_up(self):
        """docs/METHOD.md, 9.6: iterations 1 .. 50."""
        shared = [step for step in range(1, 100) if is_shared(step, ErrorRecyclingConfig())]
        assert shared == list(range(1, 51))
        assert not is_shared(1, ErrorRecyclingConfig(warmup_steps=0))

    def test_a_whole_residual_is_stored(self):
        bank = make_bank(SHAPE, ErrorRecyclingConfig())
        (values,) = randoms(1)
        store(bank, values, SIGMA, ErrorRecyclingConfig(), generator())
        ((sigma, stored),) = bank.contents(bank.grid.index(SIGMA))
        assert sigma == SIGMA and torch.equal(stored, values.bfloat16())

    @pytest.mark.parametrize("window, starts", [(Window.RANDOM, {0, 1, 2}), (Window.LAST, {2})])
    def test_for_image_errors_only_a_window_is_enough(self, window, starts):
        settings = config(noise_prob=0, latent_prob=0, stored_slots="image_window", image_error_window=window)
        assert settings.stored_slots is StoredSlots.IMAGE_WINDOW and entry_shape(SHAPE, settings) == (2, 3, 2, 3)
        bank, numbers = make_bank(SHAPE, settings), generator(4)
        in_order = -torch.arange(5.0).reshape(1, 5, 1, 1).expand(SHAPE)
        for _ in range(40):
            store(bank, in_order, 1.0, settings, numbers)
        found = set()
        for _ in range(200):
            error = draw_injection(bank, 1.0, settings, numbers, SLOTS).image_error
            found.add(int(error[0, 0, 0, 0]))
            assert torch.equal(error[0, :, 0, 0], torch.arange(3.0) + error[0, 0, 0, 0])
        assert found == starts

    def test_storing_uses_the_same_random_numbers_whatever_is_kept(self):
        states = set()
        for settings in (config(), config(noise_prob=0, latent_prob=0, stored_slots="image_window")):
            numbers = generator(4)
            store(make_bank(SHAPE, settings), torch.ones(SHAPE), 1.0, settings, numbers)
            states.add(bytes(numbers.get_state().numpy()))
        assert len(states) == 1

    def test_a_bank_on_disk(self, tmp_path):
        settings = ErrorRecyclingConfig(capacity=2, num_grids=3)
        bank = make_bank(SHAPE, settings, tmp_path, expected_entries=4)
        store(bank, torch.ones(SHAPE), 1.0, settings, generator())
        snapshot = bank.snapshot()
        bank.close()
        bank = make_bank(SHAPE, settings, tmp_path)
        bank.restore(snapshot)
        assert len(bank) == 1 and bank.capacity == 2 and bank.grid == TimestepGrid(3)
        bank.close()


class TestConfig:
    def test_defaults_are_those_of_film(self):
        """docs/METHOD.md, 9.8, column Film."""
        found = dataclasses.asdict(ErrorRecyclingConfig())
        assert found == {
            "noise_prob": 0.01,
            "latent_prob": 0.9,
            "image_prob": 0.9,
            "clean_prob": 0.5,
            "clean_update_prob": 0.1,
            "warmup_steps": 50,
            "modulation": 0.0,
            "num_image_error_slots": 3,
            "image_error_grids": "all",
            "image_error_range": (0, 50),
            "image_error_window": "random",
            "stored_slots": "all",
            "objective": "released",
            "capacity": 500,
            "num_grids": 50,
            "grid_shift": 5.0,
            "replacement": "most_similar",
        }

    def test_texts_become_choices(self):
        settings = ErrorRecyclingConfig(image_error_grids="range", image_error_range=[3, 5], objective="paper")
        assert settings.image_error_grids is ImageErrorGrids.RANGE and settings.objective is Objective.PAPER
        assert settings.image_error_range == (3, 5)

    @pytest.mark.parametrize(
        "settings, message",
        [
            ({"noise_prob": 1.1}, "noise_prob is 1.1"),
            ({"latent_prob": -0.1}, "latent_prob"),
            ({"image_prob": math.nan}, "image_prob"),
            ({"clean_prob": 2}, "clean_prob"),
            ({"clean_update_prob": -1}, "clean_update_prob"),
            ({"modulation": 1.5}, "modulation"),
            ({"warmup_steps": -1}, "warmup_steps"),
            ({"num_image_error_slots": 0}, "num_image_error_slots"),
            ({"capacity": 0}, "capacity"),
            ({"num_grids": 0}, "num_grids"),
            ({"grid_shift": 0}, "grid_shift"),
            ({"replacement": "l2_batch"}, "'most_similar', 'random', 'fifo'"),
            ({"objective": "both"}, "'released', 'paper'"),
            ({"image_error_grids": "range", "image_error_range": (5, 5)}, "image_error_range"),
            ({"image_error_grids": "range", "image_error_range": (0, 51)}, "image_error_range"),
            ({"image_error_grids": "range", "image_error_range": (1, 2, 3)}, "image_error_range"),
            ({"stored_slots": "image_window"}, "keeps too little"),
        ],
    )
    def test_bad_settings_are_named(self, settings, message):
        with pytest.raises(ValueError, match=message):
            ErrorRecyclingConfig(**settings)
