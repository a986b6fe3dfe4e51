"""The measures of a diagnosis on toy models of known behaviour, and the verdicts that follow: they fade, restore, or wander."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch

from svi_core.flow.timestep_grid import TimestepGrid
from svi_core.look.fade import look_at
from svi_core.recycling.config import ErrorRecyclingConfig
from svi_core.recycling.error_recycling import make_bank
from training.method.diagnosis import common_share, fill_bank, gain, injected_rms, rms, take_measures
from training.method.verdict import Answer, Measures, judge

NUM_SCENES, NUM_FRAMES, SIDE = 8, 3, 16
RECYCLING = ErrorRecyclingConfig(num_grids=4, capacity=50, num_image_error_slots=1)
LEVELS = TimestepGrid(4).sigmas


def random(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pictures(seed: int, size: float = 0.1) -> torch.Tensor:
    """Return a picture [N, 3, 1, H, W] for each scene; its pixels deviate from mid-grey by `size`."""
    return 0.5 + size * torch.randn(NUM_SCENES, 3, 1, SIDE, SIDE, generator=random(seed))


@dataclass
class Toy:
    """A model whose "latents" are the frames: the scene moves a pixel each frame, and `step` spoils it once a clip."""

    step: Callable[[torch.Tensor, int], torch.Tensor]  # (known slots, number of the clip) -> what the model makes of them

    def clip(self, known: torch.Tensor, number: int) -> torch.Tensor:
        """Return clip `number` [N, 3, T, H, W]."""
        shown = self.step(known, number)
        return torch.cat([shown.roll(frame, -1) for frame in range(NUM_FRAMES)], 2)

    def diagnose(self, num_clips: int = 12, error_size: float = 0.02) -> Measures:
        known, looks, errors = place(0), [], None
        for number in range(num_clips):
            clip = self.clip(known, number)
            looks.append(look_at(clip.transpose(1, 2)))
            known = clip[:, :, -1:]
            errors = known - place(number + 1) if errors is None else errors
        true_clip = Toy(lambda known, _: known).clip(place(0), 0)
        signal = rms(true_clip - 0.5)

        def one_step(_, noisy: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            level = sigma.view(-1, 1, 1, 1, 1)  # the latents are 0, so noisy = sigma * noise
            return (noisy + error_size * torch.randn(noisy.shape, generator=random(3))) / level

        bank = make_bank(true_clip.shape[1:], RECYCLING)
        fill_bank(bank, one_step, torch.zeros_like(true_clip), LEVELS, RECYCLING, random(1))
        return take_measures(
            chain=looks,
            truth=look_at(true_clip.transpose(1, 2)),
            gains=gain(lambda known: self.clip(known, 0)[:, :, -1:], place(0), errors, signal),
            errors=errors,
            bank=bank,
            injected=injected_rms(bank, LEVELS, RECYCLING, range(1), random(2)),
            signal=signal,
            has_anchor=False,
        )


def place(number: int) -> torch.Tensor:
    """Return the true picture at the beginning of clip `number`."""
    return pictures(0).roll(number * (NUM_FRAMES - 1), -1)


def fades(known: torch.Tensor, _: int) -> torch.Tensor:
    return 0.5 + 0.9 * (known - 0.5)


def restores(known: torch.Tensor, number: int) -> torch.Tensor:
    return place(number) + 0.5 * (known - place(number)) + 0.02 * torch.randn(known.shape, generator=random(number))


def wanders(known: torch.Tensor, number: int) -> torch.Tensor:
    """The picture turns into another one of the same size, by 0.2 of it in each clip."""
    other = 0.1 * torch.randn(known.shape, generator=random(100 + number))
    return 0.5 + math.sqrt(1 - 0.2**2) * (known - 0.5) + 0.2 * other


def test_a_chain_that_fades_by_a_known_factor():
    measures = Toy(fades).diagnose()
    contrast = [clip.value for clip in measures.contrast]
    assert contrast == pytest.approx([0.9**clip for clip in range(1, 13)], rel=1e-3)
    assert [clip.value for clip in measures.motion] == pytest.approx(contrast, rel=1e-3)
    assert [clip.value for clip in measures.spectrum] == pytest.approx([1.0] * 12, rel=1e-3)
    assert measures.gain.value == pytest.approx(0.9, rel=1e-3) and measures.gain.error < 1e-5
    assert measures.handed_over == pytest.approx(0.1, rel=0.02)  # of the signal
    verdict = judge(measures)
    assert verdict.answer is Answer.LIKELY and "contrast 0.28 ± 0.00" in verdict.reason


def test_a_chain_that_restores():
    measures = Toy(restores).diagnose()
    assert measures.gain.value == pytest.approx(0.5, abs=0.01)
    verdict = judge(measures)
    assert verdict.answer is Answer.UNLIKELY and "restores by itself" in verdict.reason


def test_a_chain_that_wanders():
    measures = Toy(wanders).diagnose()
    assert measures.contrast[-1].value == pytest.approx(1.0, abs=0.05)
    verdict = judge(measures)
    assert verdict.answer is Answer.UNLIKELY and "do not fade" in verdict.reason


def test_errors_as_large_as_the_picture():
    measures = Toy(fades).diagnose(error_size=0.08)
    assert measures.injected == pytest.approx(0.8, rel=0.05)
    assert dict(measures.error_to_signal) == pytest.approx(dict.fromkeys(LEVELS, 0.8), rel=0.05)
    verdict = judge(measures)
    assert verdict.answer is Answer.UNLIKELY and "0.80 of the latents' size" in verdict.reason


def test_the_gain_is_the_share_of_the_error_that_arrives():
    known, errors = pictures(0), pictures(1) - 0.5
    shares = torch.linspace(0, 1, NUM_SCENES)
    found = gain(lambda slots: known + shares.view(-1, 1, 1, 1, 1) * (slots - known), known, errors, 0.1)
    torch.testing.assert_close(found, shares, atol=1e-4, rtol=0)
    moved = gain(lambda slots: 0.5 * slots.roll((3, -2), (-2, -1)), known, errors, 0.1)  # with the camera
    torch.testing.assert_close(moved, torch.full((NUM_SCENES,), 0.5), atol=1e-4, rtol=0)
    apart = lambda slots: torch.cat([band.roll(step, -1) for band, step in zip(slots.chunk(2, -2), (3, -2), strict=True)], -2)  # noqa: E731
    together, own = (gain(apart, known, errors, 0.1, num_bands=bands) for bands in (1, 2))
    torch.testing.assert_close(own, torch.ones(NUM_SCENES), atol=1e-4, rtol=0)
    assert together.max() < 0.8
    turned = gain(lambda slots: slots.flip(-1), known, errors, 0.1)  # arrives as something else
    assert turned.max() < 0.3


def test_the_error_added_for_the_gain_is_small_and_another_scenes():
    added = []

    def note(slots: torch.Tensor) -> torch.Tensor:
        added.append(slots)
        return slots

    errors = 7 * (pictures(1) - 0.5)
    gain(note, pictures(0), errors, 0.1)
    small = added[0] - added[1]
    sizes = errors.roll(1, 0).square().flatten(1).mean(1).sqrt().view(-1, 1, 1, 1, 1)
    torch.testing.assert_close(small, 0.02 * errors.roll(1, 0) / sizes, rtol=0, atol=1e-6)
    assert small.square().flatten(1).mean(1).sqrt().tolist() == pytest.approx([0.02] * NUM_SCENES, rel=1e-3)


def test_common_share():
    own, shared = torch.randn(64, 3, 32, 32, generator=random(0)), torch.randn(3, 32, 32, generator=random(1))
    assert common_share(own) == pytest.approx(0.0, abs=0.01)
    assert common_share(shared.expand(64, -1, -1, -1)) == pytest.approx(1.0)
    assert common_share(own + shared) == pytest.approx(0.5, abs=0.02)
    assert common_share(torch.zeros(4, 3)) == 0.0


@pytest.mark.parametrize("measure", [common_share, lambda known: gain(lambda slots: slots, known, known, 1.0)])
def test_one_scene_is_refused(measure):
    with pytest.raises(ValueError, match="there is 1 scene"):
        measure(torch.ones(1, 3, 1, 4, 4))


def test_the_bank_holds_one_step_errors_of_clean_inputs_and_the_scenes_take_turns():
    latents, seen = torch.randn(3, 2, 1, 4, 4, generator=random(0)), []

    def predict(scenes, noisy, sigma):
        seen.append(list(scenes))
        level = sigma.view(-1, 1, 1, 1, 1)
        velocity = (noisy - latents[scenes]) / level  # (1 - s) x + s n - x = s (n - x)
        return velocity + 0.5

    bank = make_bank((2, 1, 4, 4), RECYCLING)
    fill_bank(bank, predict, latents, LEVELS, RECYCLING, random(1))
    assert seen == [[0, 1], [2, 0], [1, 2], [0, 1]]
    stored = [(sigma, float(error.float().mean())) for grid in range(4) for sigma, error in bank.contents(grid)]
    assert stored == [(level, pytest.approx(0.5, abs=1e-2)) for level in LEVELS for _ in range(2)]


def test_injected_errors_are_those_of_the_settings():
    bank = make_bank((2, 3, 4, 4), RECYCLING)

    def predict(scenes, noisy, sigma):
        return noisy - 0.3  # latents are 0, and sigma is 1

    fill_bank(bank, predict, torch.zeros(2, 2, 3, 4, 4), [1.0], RECYCLING, random(1))
    assert injected_rms(bank, [1.0], RECYCLING, range(3), random(2)) == pytest.approx(0.3, rel=1e-2)
    assert injected_rms(bank, [1.0], RECYCLING, range(0), random(2)) is None
    without = ErrorRecyclingConfig(num_grids=4, image_prob=0.0)
    assert injected_rms(bank, [1.0], without, range(3), random(2)) is None
