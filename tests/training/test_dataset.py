"""The settings of the data, and reading examples back from the cache in a repeatable order."""

import pytest

from training.dataset import DataConfig


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"layout": "Tom"}, "'Tom'"),
        ({"num_frames": 80}, "num_frames is 80"),
        ({"width": 100}, "width is 100"),
        ({"more_sizes": ("480*832",)}, "480*832"),
        ({"p_motion": 1.5}, "p_motion is 1.5"),
        ({"p_motion": float("nan")}, "p_motion is nan"),
        ({"min_crop": 0.0}, "min_crop is 0.0"),
        ({"variants": 0}, "variants is 0"),
        ({"windows": 0}, "windows is 0"),
        ({"held_out": -1.0}, "held_out is -1.0"),
        ({"max_held_frames": 81}, "max_held_frames is 81"),
        ({"storage": "float16"}, "storage is 'float16'"),
        ({"vae_tile": 100}, "vae_tile is 100"),
        ({"layout": "2.0 Pro", "num_motion_frames": 5}, "num_motion_frames is 5"),
    ],
)
def test_a_bad_setting_is_refused_by_name(settings, named):
    with pytest.raises(ValueError, match=named.replace("*", r"\*")):
        DataConfig(**settings)


def test_sizes_come_largest_first():
    config = DataConfig(width=832, height=480, more_sizes=("480x832", "1280x720", "832X480"))
    assert config.sizes == ((1280, 720), (480, 832), (832, 480))


def test_settings_of_the_cache_leave_out_what_changes_no_value():
    assert DataConfig(folder="a", held_out=0.5).cached_settings() == DataConfig(folder="b", strict=True).cached_settings()
    assert DataConfig(variants=2).cached_settings() != DataConfig().cached_settings()
    assert DataConfig(layout="Film").cached_settings()["num_motion_frames"] == 5
