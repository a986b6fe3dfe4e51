"""The tiny world: repeatable, predictable, chainable."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from demo.world import scenes as world

SEEDS = range(world.HELD_OUT_SEED, world.HELD_OUT_SEED + 60)


def test_same_seed_gives_same_frames():
    story = world.sample_story(5, 2)
    assert story == world.sample_story(5, 2)
    assert torch.equal(world.render_clip(story, 1), world.render_clip(story, 1))


def test_longer_story_continues_the_shorter_one():
    short, long = world.sample_story(11, 2), world.sample_story(11, 4)
    assert long.captions[:2] == short.captions
    assert long.start == short.start


def test_frames_have_the_promised_shape_and_range():
    frames = world.render_clip(world.sample_story(3, 1), 0)
    assert frames.shape == (81, 3, 64, 96)
    assert frames.dtype == torch.float32
    assert 0.0 <= float(frames.min()) and float(frames.max()) <= 1.0


@pytest.mark.parametrize("seed", SEEDS)
def test_object_stays_in_the_picture(seed):
    track = world.track_story(world.sample_story(seed, 6))
    assert track.x.min() >= 5.0 and track.x.max() <= 91.0
    assert track.y.min() >= 8.0 and track.y.max() <= 56.0
    assert track.light.min() >= 0.0 and track.light.max() <= 1.0


@pytest.mark.parametrize("seed", SEEDS)
def test_caption_agrees_with_what_happens(seed):
    story = world.sample_story(seed, 3)
    track = world.track_story(story)
    for index, caption in enumerate(story.captions):
        clip = track.cut(76 * index, 76 * index + 81)
        step_x, step_y = clip.x[-1] - clip.x[0], clip.y[-1] - clip.y[0]
        assert f"{story.colour} {story.kind}" in caption
        assert ("to the left" in caption) == (step_x < -20.0)
        assert ("to the right" in caption) == (step_x > 20.0)
        assert ("rises" in caption) == (step_y < -10.0)
        assert ("sinks" in caption) == (step_y > 10.0)
        assert ("night falls" in caption) == (clip.light[-1] < clip.light[0])
        assert ("day breaks" in caption) == (clip.light[-1] > clip.light[0])
        assert ("pans right" in caption) == (clip.camera_offset[-1] > clip.camera_offset[0])


def test_windows_overlap_and_rest_where_they_do():
    story = world.sample_story(21, 3)
    track = world.track_story(story)
    assert len(track.x) == story.num_frames == 3 * 76 + 5
    for start in (0, 76, 152):
        for values in (track.x, track.y, track.light, track.camera_offset):
            assert np.allclose(values[start : start + 5], values[start])
    assert torch.equal(world.render_clip(story, 0)[76:], world.render_clip(story, 1)[:5])


def test_camera_that_goes_round_comes_back():
    story = world.sample_story(30, 1)
    track = world.track_story(story).cut(0, 2)
    there = world.Track(track.x, track.y, track.light, track.camera_offset + np.array([0.0, 96.0]), track.spin)
    frames = world.render_track(story, there)
    assert torch.allclose(frames[0], frames[1], atol=1e-3)


def test_unknown_background_is_refused():
    with pytest.raises(ValueError, match="choose one of"):
        world.paint_scenery("moon", 0)
