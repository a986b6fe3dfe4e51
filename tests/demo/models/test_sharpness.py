"""The measure of the sharpness, on true pictures: a moved, faded or missing object is seen, blurred scenery is not one."""

from __future__ import annotations

import pytest
import torch

from demo.models import sharpness
from demo.world.scenes import render_scenery, render_story, sample_story, track_story


@pytest.fixture(scope="module")
def ball():
    story = sample_story(1_000_030, 1)
    assert (story.colour, story.kind, story.background) == ("white", "ball", "desert")
    return render_story(story)[:9], render_scenery(story, track_story(story))[:9]


def test_the_truth_is_sharp(ball):
    truth, scenery = ball
    assert sharpness.compare(truth, truth, scenery) == sharpness.Sharpness(1.0, 0.0)


def test_a_missing_object_has_no_outline_and_the_sceneries_colour(ball):
    truth, scenery = ball
    found = sharpness.compare(scenery, truth, scenery)
    assert found.overlap == 0.0 and found.colour > 0.1


def test_an_object_moved_by_half_its_width_meets_a_third_of_it(ball):
    """Two discs of radius r whose centres are r apart: (2 pi / 3 - sqrt(3) / 2) / (4 pi / 3 + sqrt(3) / 2) = 0.24."""
    _, scenery = ball
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(96.0), indexing="ij")
    first, second = (scenery + (((x - c) ** 2 + (y - 32) ** 2) < 64) * 0.5 for c in (42, 50))
    assert sharpness.compare(second, first, scenery).overlap == pytest.approx(0.24, abs=0.03)


def test_what_is_blurred_elsewhere_is_no_object(ball):
    truth, scenery = ball
    made = truth.clone()
    true = sharpness.outline(truth, scenery)
    far = torch.nn.functional.max_pool2d(true, 2 * sharpness.REACH + 1, stride=1, padding=sharpness.REACH) == 0
    made = torch.where(far, made + 0.5, made)
    assert sharpness.compare(made, truth, scenery) == sharpness.Sharpness(1.0, 0.0)


def test_half_the_colour_is_off_by_half(ball):
    truth, scenery = ball
    true = sharpness.outline(truth, scenery)
    mean = (truth * true).sum((2, 3)) / true.sum((2, 3))
    assert sharpness.compare(truth * 0.5, truth, scenery).colour == pytest.approx(float(0.5 * mean.amax(1).mean()), abs=1e-4)
