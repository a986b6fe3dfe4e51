import pytest
import torch

from svi_core.conditioning.images import ResizeMode, SizeRule, resize_images, video_size


@pytest.mark.parametrize(
    ("image", "asked", "rule", "size"),
    [
        ((1000, 700), (832, 480), SizeRule.EXACT, (832, 480)),
        ((640, 360), (832, 480), SizeRule.FIT_WIDTH, (640, 352)),  # narrower than the limit: kept, floored to 16
        ((1204, 2150), (832, 480), SizeRule.FIT_WIDTH, (832, 1472)),  # the FAQ's portrait: docs/METHOD.md, 4.6
        ((1204, 2150), (832, 480), SizeRule.FIT_AREA, (464, 832)),
        ((832, 480), (832, 480), SizeRule.FIT_AREA, (832, 480)),
    ],
)
def test_size_rules(image, asked, rule, size):
    assert video_size(*image, *asked, rule) == size


def test_sizes_that_wan_cannot_take_are_refused():
    with pytest.raises(ValueError, match="video width is 830"):
        video_size(100, 100, 830, 480, SizeRule.EXACT)
    with pytest.raises(ValueError, match="fitted video"):
        video_size(2000, 20, 832, 480, SizeRule.FIT_WIDTH)


def test_right_size_passes_bit_for_bit():
    image = torch.rand(2, 32, 48, 3)
    assert torch.equal(resize_images(image, 48, 32, ResizeMode.CROP), image)


def test_crop_keeps_the_middle_and_stretch_keeps_the_edges():
    image = torch.zeros(1, 32, 96, 3)
    image[:, :, :32, 0] = 1.0  # a red left third
    cropped = resize_images(image, 32, 32, ResizeMode.CROP)
    assert cropped.abs().max() == 0
    stretched = resize_images(image, 48, 32, ResizeMode.STRETCH)
    assert stretched[0, 16, 4, 0] == 1.0 and stretched[0, 16, 40, 0] == 0.0


def test_result_stays_in_range():
    edge = torch.zeros(1, 64, 64, 3)
    edge[:, :, 32:] = 1.0
    resized = resize_images(edge, 32, 48, ResizeMode.STRETCH)
    assert 0.0 <= resized.min() and resized.max() <= 1.0
