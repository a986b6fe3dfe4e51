import pytest

from svi_core.geometry import (
    num_latent_slots,
    num_motion_latents,
    num_pixel_frames,
    require_frame_size,
)


@pytest.mark.parametrize(("frames", "slots"), [(1, 1), (5, 2), (9, 3), (77, 20), (81, 21)])
def test_frames_and_slots_match_the_wan_vae(frames, slots):
    assert num_latent_slots(frames) == slots
    assert num_pixel_frames(slots) == frames


@pytest.mark.parametrize("frames", [0, -3, 2, 4, 80, 82])
def test_frame_count_that_is_not_4n_plus_1_is_refused_with_a_usable_one(frames):
    with pytest.raises(ValueError, match=f"num_frames is {frames}") as error:
        num_latent_slots(frames)
    advised = int(str(error.value).split("use ")[1].split(",")[0])
    assert num_latent_slots(advised) >= 1


@pytest.mark.parametrize(("frames", "slots"), [(4, 1), (8, 2), (12, 3)])
def test_motion_is_counted_in_frames(frames, slots):
    assert num_motion_latents(frames) == slots


@pytest.mark.parametrize("frames", [0, 1, 3, 5, -4])
def test_motion_that_is_not_whole_slots_is_refused(frames):
    with pytest.raises(ValueError, match="4, 8 or 12"):
        num_motion_latents(frames)


def test_frame_size_is_a_multiple_of_16():
    require_frame_size(832, 480)
    with pytest.raises(ValueError, match="width is 850 pixels.*use 848"):
        require_frame_size(850, 480)
    with pytest.raises(ValueError, match="height is 0 pixels.*use 16"):
        require_frame_size(16, 0)
