"""Measures of single frames, against values worked out by hand and a slow reading of their definition."""

import numpy as np
import pytest

from svi_core.look.frame_measures import measure_frames, measure_pixels


def octaves(luma):
    """Return the octaves [T, 4] of grey frames [T, H, W]."""
    return measure_pixels(luma[..., None].repeat(3, axis=3)).rows[:, 6:]


@pytest.mark.parametrize(("period", "octave"), [(2, 0), (4, 1), (8, 2), (16, 3)])
def test_a_checkerboard_has_its_energy_in_the_octave_of_its_squares(period, octave):
    """Squares of n pixels are gone after averaging over 2 n, and whole before: all energy, 0.25 x 0.25, is in one octave."""
    half = period // 2
    rows, columns = np.mgrid[0:32, 0:48]
    luma = (0.5 + 0.25 * (-1.0) ** (rows // half + columns // half))[None].astype(np.float32)
    bands = octaves(luma)[0].tolist()
    assert bands[octave] == pytest.approx(np.log10(0.0625), abs=1e-4)
    assert all(band == pytest.approx(-10) for index, band in enumerate(bands) if index != octave)


def test_blur_lowers_fine_octaves_first():
    noise = np.random.default_rng(0).uniform(0, 255, (1, 64, 64, 3)).astype(np.uint8)
    blurred = ((noise + np.roll(noise.astype(float), 1, 1) + np.roll(noise.astype(float), 1, 2)) / 3).astype(np.uint8)
    sharp, soft = measure_frames(noise).rows[0, 6:], measure_frames(blurred).rows[0, 6:]
    assert sharp[0] - soft[0] > 0.2 and abs(sharp[3] - soft[3]) < 0.1


def test_a_chunk_gives_what_its_frames_give_one_by_one():
    frames = np.random.default_rng(1).integers(0, 256, (5, 40, 56, 3), np.uint8)
    together = measure_frames(frames)
    for index in range(5):
        alone = measure_frames(frames[index : index + 1])
        np.testing.assert_allclose(together.rows[index], alone.rows[0], rtol=1e-5)
        np.testing.assert_allclose(together.thumbnails[index], alone.thumbnails[0], rtol=1e-5)


def test_a_box_is_the_mean_of_its_pixels_where_sides_do_not_divide():
    pixels = np.random.default_rng(2).uniform(0, 1, (1, 37, 50, 3)).astype(np.float32)
    boxes = measure_pixels(pixels).thumbnails[0]
    rows, columns = np.linspace(0, 37, 17).astype(int), np.linspace(0, 50, 17).astype(int)
    expected = pixels[0, rows[3] : rows[4], columns[15] : columns[16]].mean((0, 1))
    np.testing.assert_allclose(boxes[3, 15], expected, rtol=1e-5)


def test_a_picture_smaller_than_an_octave_has_none_of_it():
    bands = octaves(np.random.default_rng(3).uniform(0, 1, (2, 8, 8)).astype(np.float32))
    assert all(band == pytest.approx(-10) for band in bands.ravel())


@pytest.mark.parametrize("size", [(64, 96), (37, 50)])
@pytest.mark.parametrize("kind", ["noise", "one colour"])
def test_measures_are_those_of_their_definitions_in_double_precision(size, kind):
    """Also of one colour, where sums in single precision lose the difference of two means."""
    frames = np.random.default_rng(4).integers(0, 256, (2, *size, 3), np.uint8)
    if kind == "one colour":
        frames[:] = (201, 77, 35)
    pixels = frames.astype(np.float64) / 255
    luma, mean = pixels @ np.array([0.2126, 0.7152, 0.0722]), pixels.mean(axis=(1, 2))
    brightness, inner = luma.mean(axis=(1, 2)), luma[:, 1:-1, 1:-1]
    laplacian = 4 * inner - luma[:, :-2, 1:-1] - luma[:, 2:, 1:-1] - luma[:, 1:-1, :-2] - luma[:, 1:-1, 2:]
    expected = [brightness, luma.std(axis=(1, 2)), (pixels.max(3) - pixels.min(3)).mean(axis=(1, 2)), log(laplacian)]
    expected += [mean[:, 0] - brightness, mean[:, 2] - brightness]
    level = luma[:, : size[0] // 16 * 16, : size[1] // 16 * 16]
    for _ in range(4):
        coarse = (level[:, ::2, ::2] + level[:, 1::2, ::2] + level[:, ::2, 1::2] + level[:, 1::2, 1::2]) / 4
        expected.append(log(level - coarse.repeat(2, axis=1).repeat(2, axis=2)))
        level = coarse
    np.testing.assert_allclose(measure_frames(frames).rows, np.stack(expected, axis=1), atol=1e-4)
    np.testing.assert_allclose(measure_pixels(pixels.astype(np.float32)).rows, np.stack(expected, axis=1), atol=1e-4)


def log(values):
    return np.log10((values**2).mean(axis=(1, 2)) + 1e-10)


def test_no_frames_have_no_measures():
    measured = measure_frames(np.empty((0, 32, 32, 3), np.uint8))
    assert measured.rows.shape == (0, 10) and measured.thumbnails.shape == (0, 16, 16, 3)
