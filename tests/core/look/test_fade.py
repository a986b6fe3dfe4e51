"""How clips look and what is left of it, against values worked out by hand."""

import pytest
import torch

from svi_core.look.fade import ClipLook, fade, joined, look_at


def checkerboard(square: int, low: float, high: float, num_frames: int = 2, moving: bool = False) -> torch.Tensor:
    """Return a grey clip [1, T, 3, 32, 48] of squares that are `square` pixels wide; moving: they swap at each frame."""
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(48), indexing="ij")
    frames = [
        low + (high - low) * ((rows // square + columns // square + moving * index) % 2).float() for index in range(num_frames)
    ]
    return torch.stack(frames)[None, :, None].expand(1, num_frames, 3, 32, 48)


def test_contrast_is_the_deviation_of_luma():
    look = look_at(torch.cat([checkerboard(4, 0.25, 0.75), checkerboard(4, 0.4, 0.6)]))
    torch.testing.assert_close(look.contrast, torch.tensor([0.25, 0.1]))


def test_motion_is_the_mean_change_of_pixels():
    look = look_at(torch.cat([checkerboard(4, 0.25, 0.75, 3, moving=True), checkerboard(4, 0.25, 0.75, 3)]))
    torch.testing.assert_close(look.motion, torch.tensor([0.5, 0.0]))


@pytest.mark.parametrize(("square", "share"), [(1, 1.0), (2, 1.0), (4, 0.0), (8, 0.0)])
def test_squares_below_four_pixels_are_fine_detail(square, share):
    assert float(look_at(checkerboard(square, 0.25, 0.75)).spectrum) == pytest.approx(share, abs=1e-3)


def test_the_spectrum_is_the_root_of_the_share_of_energy_and_does_not_see_contrast():
    both = 0.5 + (checkerboard(1, -0.1, 0.1) + checkerboard(8, -0.2, 0.2))  # energies 0.01 and 0.04
    faint = 0.5 + 0.3 * (both - 0.5)
    torch.testing.assert_close(look_at(torch.cat([both, faint])).spectrum, torch.tensor([0.2, 0.2]).sqrt(), rtol=1e-4, atol=0)


def test_a_natural_spectrum_has_as_much_energy_in_each_octave():
    frequency = (torch.fft.fftfreq(256)[:, None] ** 2 + torch.fft.fftfreq(256)[None] ** 2).sqrt()
    frequency[0, 0] = torch.inf
    noise = torch.randn(1, 2, 1, 256, 256, generator=torch.Generator().manual_seed(0))
    picture = torch.fft.ifft2(torch.fft.fft2(noise) / frequency).real
    look = look_at((0.5 + 0.1 * picture / picture.std()).expand(1, 2, 3, 256, 256))
    assert 0.6 < float(look.spectrum) < 0.8


def test_colours_are_means_over_pixels_and_frames():
    frames = torch.tensor([0.9, 0.5, 0.1])[None, None, :, None, None].expand(1, 2, 3, 16, 16)
    look = look_at(frames)
    torch.testing.assert_close(look.colour, torch.tensor([[0.9, 0.5, 0.1]]))
    torch.testing.assert_close(look.saturation, torch.tensor([0.8]))


def test_looks_are_joined_in_order():
    clips = torch.cat([checkerboard(4, 0.25, 0.75), checkerboard(1, 0.4, 0.6), checkerboard(2, 0.1, 0.2)])
    together, parts = look_at(clips), joined([look_at(clips[:2]), look_at(clips[2:])])
    for name in ("contrast", "spectrum", "motion", "saturation", "colour"):
        torch.testing.assert_close(getattr(parts, name), getattr(together, name))


@pytest.mark.parametrize("shape", [(1, 1, 3, 32, 32), (1, 5, 3, 32, 8)])
def test_one_frame_or_a_few_pixels_are_refused(shape):
    with pytest.raises(ValueError, match=rf"{shape[1]} frames of {shape[4]}x32 pixels: .* 2 frames of 16 pixels"):
        look_at(torch.zeros(shape))


def looks(contrast: list[float], motion: list[float], red: list[float]) -> ClipLook:
    """Return looks that differ in some measures; every other one is 0.5."""
    rest = torch.full((len(contrast),), 0.5)
    colour = torch.stack([torch.tensor(red), rest, rest], 1)
    return ClipLook(torch.tensor(contrast), rest, torch.tensor(motion), rest, colour)


def test_fade_is_the_clips_share_of_the_mean_true_clip():
    truth = looks([0.1, 0.3], [0.02, 0.06], [0.4, 0.6])
    left = fade(looks([0.2, 0.1, 0.05], [0.04, 0.02, 0.0], [0.5, 0.6, 0.8]), truth)
    torch.testing.assert_close(left.contrast, torch.tensor([1.0, 0.5, 0.25]))
    torch.testing.assert_close(left.motion, torch.tensor([1.0, 0.5, 0.0]))
    torch.testing.assert_close(left.spectrum, torch.ones(3))
    torch.testing.assert_close(left.saturation, torch.ones(3))
    torch.testing.assert_close(left.colour, torch.tensor([0.0, 1.0, 3.0]))  # true clips lie 0.1 from their mean


def test_truth_without_motion_leaves_no_share_of_it():
    left = fade(looks([0.2], [0.1], [0.5]), looks([0.2, 0.2], [0.0, 0.0], [0.4, 0.6]))
    assert left.motion.isnan().all() and not left.contrast.isnan().any()


def test_one_true_clip_is_refused():
    with pytest.raises(ValueError, match="there is 1 true clip"):
        fade(looks([0.2], [0.1], [0.5]), looks([0.2], [0.1], [0.5]))
