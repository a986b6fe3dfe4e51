"""The settings of the data, and reading examples back from the cache in a repeatable order."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from tests.training.fake_encoders import FakeEncoders
from tests.training.small_cache import entries, only_example, settings
from tests.training.synthetic_clips import write_numbered
from training.data.build_cache import build_cache
from training.data.dataset import CachedDataset
from training.settings.data import DataConfig


@pytest.mark.parametrize(
    ("values", "named"),
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
def test_a_bad_setting_is_refused_by_name(values, named):
    with pytest.raises(ValueError, match=named.replace("*", r"\*")):
        DataConfig(**values)


def test_sizes_come_largest_first():
    config = DataConfig(width=832, height=480, more_sizes=("480x832", "1280x720", "832X480"))
    assert config.sizes == ((1280, 720), (480, 832), (832, 480))


def test_settings_of_the_cache_leave_out_what_changes_no_value():
    assert DataConfig(folder="a", held_out=0.5).cached_settings() == DataConfig(folder="b", strict=True).cached_settings()
    assert DataConfig(variants=2).cached_settings() != DataConfig().cached_settings()
    assert DataConfig(layout="Film").cached_settings()["num_motion_frames"] == 5


def test_tiles_of_the_vae_are_no_other_cache_but_blended_ones_of_older_versions_were(clips, monkeypatch):
    config = settings(clips, vae_tile=64)
    of_before = {**settings(clips).cached_settings(), "vae_tile": 64}
    with monkeypatch.context() as patched:
        patched.setattr(DataConfig, "cached_settings", lambda _: of_before)
        build_cache(config, FakeEncoders())
    with pytest.raises(ValueError, match="it holds one with vae_tile 64, not 0"):
        CachedDataset(config.cache_folder, config)
    build_cache(settings(clips), FakeEncoders())
    assert len(CachedDataset(config.cache_folder, config)) == len(CachedDataset(config.cache_folder, settings(clips)))


def test_a_cache_of_other_settings_is_refused_with_the_difference(clips):
    config = settings(clips)
    with pytest.raises(ValueError, match="holds no finished cache of this configuration: run python -m training.cache"):
        CachedDataset(config.cache_folder, config)
    build_cache(config, FakeEncoders())
    with pytest.raises(ValueError, match=r"it holds one with layout '2.0 Pro', not 'Film'; num_motion_frames 4, not 5\)"):
        CachedDataset(config.cache_folder, replace(config, layout="Film"))


def test_sizes_are_buckets_and_the_largest_comes_first(tmp_path):
    folder = tmp_path / "clips"
    for name, width, height in (("wide", 128, 64), ("tall", 64, 128), ("square", 64, 64)):
        write_numbered(folder / f"{name}.mp4", 12, width=width, height=height)
        (folder / f"{name}.txt").write_text(name)
    config = settings(folder, width=32, height=32, more_sizes=("64x32", "32x64"))
    build_cache(config, FakeEncoders())
    dataset = CachedDataset(config.cache_folder, config, slots_per_step=2)
    assert dataset.sizes == ((32, 64), (64, 32), (32, 32))
    assert "tall" in dataset.example(5, 0, 0).name and dataset.example(5, 0, 0).latent.shape == (16, 3, 8, 4)
    for step in range(6):
        assert dataset.example(5, step, 0).latent.shape == dataset.example(5, step, 1).latent.shape


def test_held_out_clips_are_never_learned_from(clips):
    config = settings(clips, variants=3, held_out=1)
    build_cache(config, FakeEncoders())
    dataset = CachedDataset(config.cache_folder, config)
    held_out = {example.name.split()[0] for example in dataset.validation()}
    learned = {dataset.example(0, step).name.split()[0] for step in range(len(dataset))}
    assert len(held_out) == 1 and len(learned) == 2 and not held_out & learned
    assert (dataset.num_held_out, len(dataset)) == (3, 6)
    assert [item.name for item in dataset.validation()] == [item.name for item in dataset.validation()]
    assert dataset.content_hash != CachedDataset(config.cache_folder, replace(config, held_out=0.0)).content_hash


def test_excluded_clips_and_examples_are_not_used_and_do_not_make_it_other_data(clips):
    config = settings(clips, variants=2, held_out=0.0)
    build_cache(config, FakeEncoders())
    whole = CachedDataset(config.cache_folder, config)
    excluded = ("long.mp4", "other.mp4 window 0 variant 1")
    dataset = CachedDataset(config.cache_folder, replace(config, exclude=excluded))
    names = {dataset.example(0, step).name for step in range(len(dataset))}
    assert names == {"exact.mp4 window 0 variant 0", "exact.mp4 window 0 variant 1", "other.mp4 window 0 variant 0"}
    assert len(whole) == 6 and dataset.content_hash == whole.content_hash
    with pytest.raises(ValueError, match="data.exclude names 'lnog.mp4', .*: did you mean 'long.mp4'?"):
        CachedDataset(config.cache_folder, replace(config, exclude=("lnog.mp4",)))
    with pytest.raises(ValueError, match="leaves no examples to train on"):
        CachedDataset(config.cache_folder, replace(config, exclude=("long.mp4", "exact.mp4", "other.mp4")))


def test_another_caption_and_another_text_encoder_are_other_data(clips):
    config = settings(clips)
    build_cache(config, FakeEncoders())
    before = CachedDataset(config.cache_folder, config).content_hash
    assert CachedDataset(config.cache_folder, config).content_hash == before
    (clips / "long.txt").write_text("Another caption")
    build_cache(config, FakeEncoders())
    captions = CachedDataset(config.cache_folder, config).content_hash
    build_cache(config, FakeEncoders(text_encoder="text B"))
    assert len({before, captions, CachedDataset(config.cache_folder, config).content_hash}) == 3


def test_an_example_is_a_function_of_its_arguments(clips):
    config = settings(clips, variants=3)
    build_cache(config, FakeEncoders())
    first, second = (CachedDataset(config.cache_folder, config) for _ in range(2))
    first.example(1, 17)
    for step in (5, 0, 29):
        a, b = first.example(1, step), second.example(1, step)
        assert a.name == b.name and torch.equal(a.latent, b.latent) and torch.equal(a.y_latent, b.y_latent)


def test_half_the_storage_comes_back_as_fp32(clips):
    config = settings(clips, storage="bfloat16")
    build_cache(config, FakeEncoders())
    example = only_example(config, "long")
    assert example.latent.dtype == example.y_latent.dtype == example.text.dtype == torch.float32
    assert load_file(entries(config)[0])["latent"].dtype == torch.bfloat16
