"""Every frame of a stage lands at its moment, whatever the stage makes of a clip and whatever it saw before it."""

import itertools
from pathlib import Path

import pytest

from svi_core.video.stage_frames import ProcessedPart, StageFrames, place_frames


def interpolated(frames, multiple):
    """The moments that frame interpolation gives: `multiple` - 1 new ones between each two frames."""
    return [a + step * (b - a) / multiple for a, b in itertools.pairwise(frames) for step in range(multiple)] + frames[-1:]


def repeated(frames, multiple):
    return [frame for frame in frames for _ in range(multiple)]


def shown(lengths, stage, multiple, num_context, cuts=()):
    """The moments of all clips after the stage, of clips of `lengths` frames that show 0, 1, 2, ..."""
    begin, moments = 0, []
    for index, length in enumerate(lengths):
        context = 0 if index in (0, *cuts) else min(num_context, lengths[index - 1])
        made = stage(list(map(float, range(begin - context, begin + length))), multiple)
        placed = place_frames(len(made), length, context, multiple if moments else None, index in cuts)
        assert placed.multiple == multiple
        moments += made[placed.num_dropped :][:1] * placed.num_repeated + made[placed.num_dropped :]
        begin += length
    return moments


@pytest.mark.parametrize("num_context", [0, 1, 5])
def test_a_stage_that_returns_every_frame_shows_every_moment_once(num_context):
    assert shown([81, 76, 76, 4], repeated, 1, num_context) == list(range(237))


@pytest.mark.parametrize("multiple", [2, 3, 4])
@pytest.mark.parametrize("num_context", [1, 2, 5])
def test_interpolated_frames_lie_between_the_clips_too(multiple, num_context):
    moments = shown([81, 76, 1, 80], interpolated, multiple, num_context)
    assert moments == pytest.approx([step / multiple for step in range(multiple * 237 + 1)])


def test_nothing_is_interpolated_across_a_cut_and_time_goes_on():
    moments = shown([9, 8, 8], interpolated, 2, 1, cuts=(1,))
    assert len(moments) == 2 * 24 + 1 and moments[2 * 8 : 2 * 9 + 1] == [8.0, 9.0, 9.0]
    assert [moments[2 * index] for index in range(25)] == list(range(25))


@pytest.mark.parametrize("num_context", [0, 1, 3])
def test_a_stage_that_repeats_frames_keeps_them_in_place(num_context):
    assert shown([81, 76, 8], repeated, 2, num_context) == [step // 2 for step in range(2 * 165)]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ((40, 81, 0), "images has 40 frames, but the clip has 81: pass on every frame"),
        ((0, 81, 0), "images has 0 frames, but the clip has 81"),
        ((1, 81, 0), "images has 1 frames, but the clip has 81"),
        ((77, 76, 5), "images has 77 frames, but the clip has 76 and 5 before it"),
        ((151, 76, 0), "images has 151 frames for the 76 of the clip: .* SVI Clip Frames, with context_frames 1"),
    ],
)
def test_frames_that_cannot_be_placed_are_refused(numbers, message):
    with pytest.raises(ValueError, match=message):
        place_frames(*numbers, before=1, after_cut=False)


def test_one_frame_with_none_before_it_stays_one():
    assert place_frames(1, 1, 0, before=None, after_cut=False) == StageFrames(1)


def test_parts_of_one_video_have_one_size_and_one_rate():
    part = ProcessedPart(Path("a.mp4"), 18, 2, 64, 32, "h264")
    part.require_joins(ProcessedPart(Path("b.mp4"), 16, 2, 64, 32, "h264"))
    with pytest.raises(ValueError, match="64 x 32 pixels, but the clips before have 32 x 32"):
        part.require_joins(ProcessedPart(Path("b.mp4"), 16, 2, 32, 32, "h264"))
    with pytest.raises(ValueError, match="2 frames for each frame of the clip, but the clips before have 1"):
        part.require_joins(ProcessedPart(Path("b.mp4"), 16, 1, 64, 32, "h264"))
