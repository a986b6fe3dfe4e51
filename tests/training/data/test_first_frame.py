"""The frames that a later clip continues from are augmented before the VAE, anchor and target never."""

from dataclasses import replace

import pytest
import torch

from svi_core.recycling.presets import PRESETS
from tests.training.fake_encoders import FakeEncoders
from tests.training.small_cache import entries, only_example, settings
from training.data.build_cache import build_cache
from training.data.dataset import CachedDataset
from training.data.first_frame import Augmentation, augmentation_of, augmented, choose_draw, draw_keys
from training.settings.data import DataConfig
from training.settings.reader import load_config

KEYS = [f"key {number}" for number in range(400)]


def some_frames() -> torch.Tensor:
    """Return 3 frames [3, 12, 16, 3] that differ, in the middle of the range."""
    return 0.3 + 0.4 * torch.rand(3, 12, 16, 3, generator=torch.Generator().manual_seed(2))


def test_no_change_leaves_the_frames():
    torch.testing.assert_close(augmented(some_frames(), Augmentation()), some_frames())


@pytest.mark.parametrize("key", KEYS[:40])
def test_every_draw_changes_all_frames_alike(key):
    """A chain's drift is the same in the frames of one clip, so frame 1 alone is changed as among others."""
    frames = some_frames()[:1].expand(3, -1, -1, -1)
    change = augmentation_of(key, 1.0)
    result = augmented(frames, change)
    assert 0 <= float(result.min()) and float(result.max()) <= 1 and float((result - frames).abs().max()) > 1e-3
    torch.testing.assert_close(result, augmented(frames[:1], change).expand_as(result))
    assert change == augmentation_of(key, 1.0) != augmentation_of(key + "'", 1.0)


def test_draws_have_the_released_probabilities_and_ranges():
    """0.7, 0.5 and 0.5, given that at least one is drawn (0.925), brightness within 30 %, hue within 0.1, blur up to 2."""
    changes = [augmentation_of(key, 1.0) for key in KEYS]
    for name, default, share in (("brightness", 1.0, 0.7), ("blur", 0.0, 0.5), ("sharpness", 0.0, 0.5)):
        found = sum(getattr(change, name) != default for change in changes) / len(changes)
        assert found == pytest.approx(share / 0.925, abs=0.06), name
    for name, middle, reach in (("brightness", 1, 0.3), ("contrast", 1, 0.3), ("saturation", 1, 0.3), ("hue", 0, 0.1)):
        distances = [abs(getattr(change, name) - middle) for change in changes]
        assert 0.95 * reach < max(distances) <= reach, name
    assert 1.9 < max(change.blur for change in changes) <= 2.0
    assert max(augmentation_of(key, 0.5).blur for key in KEYS) <= 1.0


def test_each_change_does_what_its_name_says():
    frames = some_frames()
    assert torch.allclose(augmented(frames, Augmentation(brightness=1.2)), 1.2 * frames)
    flat = augmented(frames, Augmentation(contrast=0.5))
    assert float(flat.std()) == pytest.approx(0.5 * float(frames.std()), rel=1e-2)
    grey = augmented(frames, Augmentation(saturation=0.0))
    assert float((grey - grey[..., :1]).abs().max()) < 1e-6
    torch.testing.assert_close(augmented(grey, Augmentation(hue=0.1)), grey, atol=2e-3, rtol=0)  # grey has no hue
    turned = augmented(frames, Augmentation(hue=1.0))
    torch.testing.assert_close(turned, frames, atol=1e-4, rtol=0)  # all the way round
    red = torch.tensor([0.6, 0.3, 0.3]).expand(1, 4, 4, 3)
    assert augmented(red, Augmentation(hue=1 / 3))[0, 0, 0].argmax() != 0
    blurred, sharp = (augmented(frames, Augmentation(**{name: 1.0})) for name in ("blur", "sharpness"))
    assert float(blurred.std()) < 0.5 * float(frames.std()) < float(frames.std()) < float(sharp.std())
    step = torch.zeros(1, 12, 16, 3)
    step[:, :, 8:] = 1.0
    blurred = augmented(step, Augmentation(blur=1.0))
    torch.testing.assert_close(blurred[:, :, 12:], step[:, :, 12:])  # along the picture's sides too
    assert 0.2 < float(blurred[0, 0, 7, 0]) < 0.4


def test_only_the_motion_of_a_later_clip_is_augmented(clips):
    config = settings(clips, p_motion=1.0, first_frame_draws=1, first_frame_prob=1.0)
    assert build_cache(config, FakeEncoders()).num_augmented == 3
    drawn, plain = (only_example(replace(config, first_frame_prob=prob), "long") for prob in (1.0, 0.0))
    assert torch.equal(drawn.latent, plain.latent) and torch.equal(drawn.mask, plain.mask)
    assert torch.equal(drawn.y_latent[:, 0], plain.y_latent[:, 0]) and not drawn.y_latent[:, 2].any()
    assert float((drawn.y_latent[0, 1] - plain.y_latent[0, 1]).abs().min()) > 0.1
    assert torch.equal(drawn.y_latent[1], plain.y_latent[1])  # from as many frames


def test_pixel_space_layouts_keep_their_anchor_and_clip_vision(clips):
    config = settings(clips, layout="2.0", p_motion=1.0, first_frame_draws=1, first_frame_prob=1.0)
    build_cache(config, FakeEncoders(clip_vision="vision A"))
    drawn, plain = (only_example(replace(config, first_frame_prob=prob), "long") for prob in (1.0, 0.0))
    assert float((drawn.y_latent[0, 0] - plain.y_latent[0, 0]).abs().min()) > 0.1
    assert torch.equal(drawn.y_latent[:, 1:], plain.y_latent[:, 1:]) and torch.equal(drawn.clip_vision, plain.clip_vision)


def test_first_clips_keep_the_users_picture(clips):
    config = settings(clips, p_motion=0.0, first_frame_draws=2)
    assert build_cache(config, FakeEncoders()).num_augmented == 0
    assert draw_keys("a", False, config) == () and len(draw_keys("a", True, config)) == 2


def test_a_cache_of_before_stays_and_only_draws_are_added(clips):
    before = settings(clips, p_motion=1.0)
    assert not any("first_frame" in name for name in before.cached_settings())
    build_cache(before, FakeEncoders())
    entries_before = {path.name: path.read_bytes() for path in entries(before)}
    content = CachedDataset(before.cache_folder, before).content_hash
    with_draws = replace(before, first_frame_draws=2)
    with pytest.raises(ValueError, match="first_frame_draws unset, not 2; first_frame_strength unset, not 1.0"):
        CachedDataset(before.cache_folder, with_draws)
    report = build_cache(with_draws, FakeEncoders())
    assert (report.num_encoded, report.num_reused, report.num_augmented) == (0, 3, 6)
    assert {path.name: path.read_bytes() for path in entries(before) if path.name in entries_before} == entries_before
    assert CachedDataset(before.cache_folder, before).content_hash == content
    assert CachedDataset(before.cache_folder, with_draws).content_hash != content
    again = FakeEncoders()
    assert build_cache(with_draws, again, prune=True).num_augmented == 0 and again.num_videos == 0
    assert len(entries(before)) == 9
    strong = build_cache(replace(with_draws, first_frame_strength=2.0), FakeEncoders())
    assert (strong.num_encoded, strong.num_augmented) == (0, 6)


def test_a_damaged_draw_is_encoded_again(clips):
    config = settings(clips, p_motion=1.0, first_frame_draws=1)
    build_cache(config, FakeEncoders())
    whole = {path: path.read_bytes() for path in entries(config)}
    path = min(whole, key=lambda path: len(whole[path]))  # a draw is smaller than an example
    path.write_bytes(whole[path][:-4] + b"\x00\x01\x02\x03")
    report = build_cache(config, FakeEncoders())
    assert (report.num_augmented, report.num_encoded, len(report.repaired)) == (1, 0, 1)
    assert path.read_bytes() == whole[path]


def test_a_visit_is_a_function_of_its_place_and_takes_each_draw(clips):
    """So a resumed run sees what an uninterrupted one does."""
    config = settings(clips, p_motion=1.0, first_frame_draws=2, first_frame_prob=0.75)
    chosen = [choose_draw(("a", "b"), config, 3, step, 0) for step in range(400)]
    assert chosen == [choose_draw(("a", "b"), config, 3, step, 0) for step in range(400)]
    assert chosen.count(None) / 400 == pytest.approx(0.25, abs=0.06) and chosen.count("a") == pytest.approx(150, abs=30)
    assert chosen != [choose_draw(("a", "b"), config, 3, step, 1) for step in range(400)]
    build_cache(config, FakeEncoders())
    datasets = [CachedDataset(config.cache_folder, config) for _ in range(2)]
    seen = [[dataset.example(1, step).y_latent for step in range(12)] for dataset in datasets]
    assert all(map(torch.equal, *seen))


def test_held_out_examples_are_as_they_are(clips):
    config = settings(clips, p_motion=1.0, first_frame_draws=1, first_frame_prob=1.0, held_out=1)
    build_cache(config, FakeEncoders())
    held_out = next(iter(CachedDataset(config.cache_folder, config).validation()))
    plain = next(iter(CachedDataset(config.cache_folder, replace(config, first_frame_prob=0.0)).validation()))
    assert torch.equal(held_out.y_latent, plain.y_latent)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"first_frame_draws": -1}, "first_frame_draws is -1: use 0"),
        ({"first_frame_draws": 1, "layout": "Film"}, "first_frame_draws is 1: use 0 with Film, which has no anchor"),
        ({"first_frame_strength": 0.0}, "first_frame_strength is 0.0: use a factor"),
        ({"first_frame_prob": 1.5}, "first_frame_prob is 1.5: use a probability"),
    ],
)
def test_bad_settings_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**values)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_with_an_anchor_outside_the_clip_augment(name):
    """docs/METHOD.md, 9.9: the authors trained both systems of version 2 so."""
    assert (PRESETS[name].first_frame_draws > 0) == PRESETS[name].layout_name.startswith("2.0")


@pytest.mark.parametrize(("layout", "draws"), [("2.0 Pro", 2), ("2.0", 2), ("Film", 0), ("Shot", 0)])
def test_a_preset_augments_only_the_systems_that_were_trained_so(layout, draws):
    """A run of another layout with a preset of version 2, which worked before, goes on to work as before."""
    assert load_config([], ["preset=pro-high", f'data.layout="{layout}"']).data.first_frame_draws == draws
    assert load_config([], ["preset=pro-high"]).data.first_frame_draws == 2


def test_a_cache_with_draws_only_says_so_where_none_are_wanted(clips):
    config = settings(clips, p_motion=1.0)
    build_cache(replace(config, first_frame_draws=2), FakeEncoders())
    with pytest.raises(ValueError, match="first_frame_draws 2, not unset"):
        CachedDataset(config.cache_folder, config)
