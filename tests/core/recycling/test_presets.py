import pytest

from svi_core.recycling.presets import PRESETS, preset
from svi_core.systems.layouts import LAYOUTS, Padding

RELEASED = ("shot", "film", "talk", "dance")


def test_the_systems():
    assert set(PRESETS) == {*RELEASED, "paper-film", "2.0-high", "2.0-low", "pro-high", "pro-low"}
    assert all(each.layout_name in LAYOUTS and each.source for each in PRESETS.values())
    with pytest.raises(ValueError, match="'shot'"):
        preset("movie")


@pytest.mark.parametrize("name", RELEASED)
def test_what_released_scripts_share(name):
    """docs/METHOD.md, 9.8."""
    found = preset(name)
    recycling = found.recycling
    assert (found.learning_rate, found.lora_rank, found.lora_alpha, found.max_gradient_norm) == (1e-4, 128, 128.0, 1.0)
    assert found.lora_targets == ("q", "k", "v", "o", "ffn.0", "ffn.2")
    assert (recycling.noise_prob, recycling.image_prob, recycling.latent_prob) == (0.01, 0.9, 0.9)
    assert (recycling.clean_update_prob, recycling.capacity, recycling.num_grids, recycling.warmup_steps) == (0.1, 500, 50, 50)
    assert (recycling.replacement, recycling.image_error_grids) == ("most_similar", "all")


@pytest.mark.parametrize(
    "name, motion_frames, clean_prob, error_slots, epochs, size, tiled, padding",
    [
        ("shot", 1, 0.2, 3, 10, (832, 480), False, Padding.ANCHOR_FRAMES),
        ("film", 5, 0.5, 3, 10, (832, 480), False, Padding.GREY_FRAMES),
        ("talk", 1, 0.2, 3, 10, (640, 480), True, Padding.ANCHOR_FRAMES),
        ("dance", 1, 0.2, 1, 20, (480, 832), True, Padding.ANCHOR_FRAMES),
        ("paper-film", 5, 0.5, 3, 10, (832, 480), True, Padding.GREY_FRAMES),
    ],
)
def test_what_they_differ_in(name, motion_frames, clean_prob, error_slots, epochs, size, tiled, padding):
    """docs/METHOD.md, 9.8; sizes are width x height."""
    found = preset(name)
    assert (found.layout.num_motion_frames, found.layout.padding) == (motion_frames, padding)
    assert (found.recycling.clean_prob, found.recycling.num_image_error_slots) == (clean_prob, error_slots)
    assert (found.num_epochs, (found.width, found.height), found.vae_tile) == (epochs, size, 272 if tiled else 0)


def test_the_papers_table_9():
    found = preset("paper-film")
    assert (found.learning_rate, found.p_motion, found.recycling.warmup_steps) == (2e-5, 0.95, 20)


@pytest.mark.parametrize(("system", "layout", "slots"), [("pro", "2.0 Pro", 1), ("2.0", "2.0", 3)])
def test_the_two_experts(system, layout, slots):
    """docs/METHOD.md, 9.9."""
    high, low = preset(f"{system}-high"), preset(f"{system}-low")
    assert (high.expert.first_id, high.expert.end_id) == (0, 358) and (low.expert.first_id, low.expert.end_id) == (358, 1000)
    for found in (high, low):
        assert (found.layout_name, found.recycling.num_image_error_slots) == (layout, slots)
