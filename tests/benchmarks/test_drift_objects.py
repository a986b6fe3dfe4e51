"""What the drift study reads out of a picture about its thing, against things that were painted elsewhere or otherwise."""

import math
from dataclasses import replace

import pytest
import torch

from benchmarks.drift import objects
from benchmarks.drift.objects import read_objects
from benchmarks.drift.world import draw_story
from demo.world.scenes import HELD_OUT_SEED, render_scenery, render_track, track_story
from demo.world.shapes import PALETTE

KIND_SEEDS = {}
for seed in range(HELD_OUT_SEED, HELD_OUT_SEED + 64):
    KIND_SEEDS.setdefault(draw_story(seed, 1).kind, seed)


def painted(story, x=0.0, y=0.0):
    """The story's first frame with its thing moved by (x, y), and without it; [1, 3, H, W] each."""
    track = track_story(story).cut(0, 1)
    moved = replace(track, x=track.x + x, y=track.y + y)
    return render_track(story, moved), render_scenery(story, track), torch.from_numpy(track.x), torch.from_numpy(track.y)


@pytest.mark.parametrize("kind", ["ball", "star", "balloon"])
def test_a_thing_is_found_where_it_is(kind):
    story = draw_story(KIND_SEEDS[kind], 1)
    truth, scenery, x, y = painted(story)
    own = read_objects(truth, truth, scenery, x, y)
    assert float(own.place) == float(own.colour) == float(own.shape) == 0.0
    step = -6.0 if x > 48 else 6.0
    moved = painted(story, step, 0.0 if kind == "ball" else (-8.0 if y > 32 else 8.0))[0]
    there = read_objects(moved, truth, scenery, x, y)
    assert float(there.place) == pytest.approx(6.0 if kind == "ball" else 10.0)
    assert float(there.colour) < 0.05 and float(there.shape) < 0.1  # soft edges show another piece of scenery


def test_another_colour_is_told_from_another_shape():
    story = draw_story(KIND_SEEDS["star"], 1)
    truth, scenery, x, y = painted(story)
    tint = torch.tensor([0.1, -0.05, 0.02]).view(1, 3, 1, 1)
    tinted = read_objects(truth + tint, truth, scenery, x, y)
    assert float(tinted.place) == 0.0
    assert float(tinted.colour) == pytest.approx(float(tint.norm()), abs=1e-4) and float(tinted.shape) < 1e-4
    other = next(name for name in PALETTE if name != story.colour)
    assert float(read_objects(painted(replace(story, colour=other))[0], truth, scenery, x, y).colour) > 0.1
    balloon = read_objects(painted(replace(story, kind="balloon"))[0], truth, scenery, x, y)
    assert float(balloon.place) < 6 and float(balloon.shape) > 0.3


def test_what_is_not_there_has_no_shape():
    story = draw_story(KIND_SEEDS["balloon"], 1)
    truth, scenery, x, y = painted(story)
    gone = read_objects(scenery, truth, scenery, x, y)
    assert bool(gone.lost) and float(gone.place) == pytest.approx(math.hypot(64, 96))
    assert float(gone.shape) == pytest.approx(1.0) and float(gone.colour) > 0.2  # the scenery's colour, where it should be
    for share, lost in ((0.6, False), (0.4, True)):
        faded = read_objects(share * truth + (1 - share) * scenery, truth, scenery, x, y)
        assert bool(faded.lost) is lost and float(faded.shape) == pytest.approx((1 - share) ** 2)
        assert lost or float(faded.place) == 0.0


def test_sums_of_products_are_those_of_a_convolution():
    random = torch.Generator().manual_seed(0)
    size = 2 * objects.REACH + 1
    pictures, patterns = (torch.rand(2, 3, *shape, generator=random) for shape in ((20, 30), (size, size)))
    expected = torch.nn.functional.conv2d(pictures.flatten(0, 1)[None], patterns, padding=objects.REACH, groups=2)[0]
    torch.testing.assert_close(objects._match(pictures, patterns), expected, rtol=1e-5, atol=1e-3)


def test_a_thing_at_the_border_is_found():
    story = draw_story(KIND_SEEDS["star"], 1)
    truth, scenery, x, y = painted(story)
    for to_x, to_y in ((8.0, 10.0), (88.0, 54.0)):
        step = round(to_x - float(x)), round(to_y - float(y))
        moved = painted(story, *map(float, step))[0]
        assert float(read_objects(moved, truth, scenery, x, y).place) == pytest.approx(math.hypot(*step))


def test_every_scene_is_read_by_itself():
    stories = [draw_story(seed, 1) for seed in KIND_SEEDS.values()]
    truth, scenery, x, y = (torch.cat(parts) for parts in zip(*map(painted, stories), strict=True))
    moved = truth.clone()
    moved[1] = painted(stories[1], 5.0 if x[1] < 48 else -5.0)[0][0]
    own = read_objects(moved, truth, scenery, x, y)
    assert own.place[0] == own.place[2] == 0.0 and float(own.place[1]) == pytest.approx(5.0)
