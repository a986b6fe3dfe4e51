import pytest
import torch

from svi_core.conditioning.images import ResizeMode, SizeRule, resize_images, size_text, video_size


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


@pytest.mark.parametrize(
    ("image", "megapixels", "size"),
    [
        ((1920, 1080), 0.38, (848, 480)),  # 841.7 x 473.4: each to the nearest multiple of 16
        ((832, 480), 0.38, (832, 480)),
        ((1204, 2150), 0.38, (480, 848)),
        ((1000, 1000), 1.0, (1024, 1024)),
        ((640, 360), 0.88, (1280, 720)),  # smaller images are enlarged
    ],
)
def test_megapixels_keep_the_aspect_ratio(image, megapixels, size):
    """The size nearest to the asked one: never off by more than half of 16 pixels a side."""
    width, height = video_size(*image, 512, 512, SizeRule.MEGAPIXELS, megapixels)
    assert (width, height) == size
    scale = (megapixels * 1024 * 1024 / (image[0] * image[1])) ** 0.5
    assert abs(width - image[0] * scale) <= 8 and abs(height - image[1] * scale) <= 8


def test_the_node_s_line_names_both_sizes():
    expected = "848 x 480 pixels (0.39 megapixels), from an image of 1920 x 1080"
    assert size_text(1920, 1080, 848, 480) == expected


def test_sizes_that_wan_cannot_take_are_refused():
    with pytest.raises(ValueError, match="video width is 830"):
        video_size(100, 100, 830, 480, SizeRule.EXACT)


@pytest.mark.parametrize(
    ("image", "rule", "made"),
    [
        ((8000, 100), SizeRule.FIT_WIDTH, "832 x 10"),
        ((100_000, 10), SizeRule.FIT_AREA, "63195 x 6"),
        ((20_000, 20), SizeRule.FIT_AREA, "19984 x 20"),
        ((10, 100_000), SizeRule.FIT_WIDTH, "10 x 100000"),
        ((1, 1), SizeRule.FIT_WIDTH, "1 x 1"),
        ((100_000, 10), SizeRule.MEGAPIXELS, "63124 x 6"),
    ],
)
def test_an_image_whose_shape_no_video_can_have_is_refused_with_both_sizes(image, rule, made):
    message = (
        f"the image has {image[0]} x {image[1]} pixels, which '{rule.value}' makes a video of {made}, .* sides of 16 to 16384"
    )
    with pytest.raises(ValueError, match=message):
        video_size(*image, 832, 480, rule)


@pytest.mark.parametrize("image", [(1, 1), (8000, 100), (100, 8000), (1, 8000), (3, 2)])
@pytest.mark.parametrize("size", [(832, 480), (16, 480), (1024, 16)])
def test_images_of_any_shape_are_brought_to_the_size(image, size):
    columns = torch.linspace(0, 1, image[0])[None, None, :, None].expand(1, image[1], -1, 3)
    resized = resize_images(columns, *size, ResizeMode.CROP)
    assert resized.shape == (1, size[1], size[0], 3) and resized.isfinite().all()
    assert abs(float(resized.mean()) - float(columns.mean())) < 0.3  # the middle, not an edge


def test_a_video_of_an_image_of_8000_x_100_pixels_keeps_its_shape():
    assert video_size(8000, 100, 832, 480, SizeRule.FIT_AREA) == (5648, 64)


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
