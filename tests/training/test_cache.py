"""The cache: the right frames in every layout, what is reused, everything unusable named."""

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from svi_core.video.colour_tags import Colours
from tests.core.video.test_colour_tags import HDR_HLG, retag
from tests.training.fake_encoders import GREY, FakeEncoders
from tests.training.small_cache import only_example, settings
from tests.training.synthetic_clips import picture, write_clip, write_numbered, write_sound
from training.data.build_cache import build_cache
from training.data.dataset import CachedDataset
from training.data.encoding import one_ahead


def slots(latent: torch.Tensor) -> list[float]:
    """Return what each slot holds, see fake_encoders."""
    assert latent.shape[0] == 16 and latent.shape[2:] == (8, 8) and latent.dtype == torch.float32
    return [round(float(value), 2) for value in latent[0, :, 0, 0]]


def from_frame(first: int) -> list[float]:
    """Return the slots of 9 frames that begin with frame `first`."""
    return [first, first + 2.5, first + 6.5]


def test_2_0_pro_has_anchor_motion_and_zeros(clips):
    config = settings(clips, p_motion=1.0)
    assert build_cache(config, FakeEncoders()).num_encoded == 3
    example = only_example(config, "long")
    start = slots(example.latent)[0]
    assert slots(example.latent) == from_frame(start)
    anchor, motion, zero = slots(example.y_latent)
    assert zero == 0.0
    assert motion == start + 2.5  # the four frames after the first of the clip, from the end of the window before
    assert anchor < start + 5 - 9  # before the motion window of 9 frames
    assert [float(value) for value in example.y_latent[1, :, 0, 0]] == [1.0, 9.0, 0.0]  # frames encoded together
    assert example.mask.shape == (1, 3, 8, 8) and example.mask.sum(dim=(0, 2, 3)).tolist() == [64, 0, 0]
    assert example.error_slots == range(1, 2)
    assert example.caption == "A clip of 40 frames" and example.clip_vision is None and example.extras == {}


def test_2_0_pro_from_a_source_of_one_clip_length(clips):
    config = settings(clips, p_motion=1.0)
    build_cache(config, FakeEncoders())
    example = only_example(config, "exact")
    assert slots(example.latent) == from_frame(0)
    anchor, motion, _ = slots(example.y_latent)
    assert motion == 2.5 and 0 <= anchor <= 8
    assert float(example.y_latent[1, 1, 0, 0]) == 5.0  # a motion window of the clip's own first five frames


def test_2_0_pro_first_clip_knows_its_own_first_frame(clips):
    config = settings(clips, p_motion=0.0)
    build_cache(config, FakeEncoders())
    example = only_example(config, "long")
    assert slots(example.y_latent) == [slots(example.latent)[0], 0.0, 0.0]
    assert len(example.error_slots) == 0


def test_a_dataset_of_pictures_is_refused_with_the_reason(clips):
    folder = clips / "pictures"
    (folder / "one").mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(folder / "one" / "0001.png")
    with pytest.raises(ValueError, match="gives no examples: one: holds pictures .1. and no video, .*ffmpeg -framerate 16"):
        build_cache(settings(folder), FakeEncoders())


def test_pictures_beside_clips_are_in_the_report_and_stop_no_strict_run(clips):
    (clips / "pictures").mkdir()
    Image.new("RGB", (64, 64)).save(clips / "pictures" / "0001.png")
    report = build_cache(settings(clips, strict=True), FakeEncoders())
    assert "not used: pictures: holds pictures (1) and no video" in report.summary() and not report.rejected


@pytest.mark.parametrize("layout", ["Shot", "2.0"])
def test_shot_knows_one_frame_and_repeats_an_anchor_from_outside(clips, layout):
    config = settings(clips, layout=layout, p_motion=1.0)
    build_cache(config, FakeEncoders(clip_vision="vision A"))
    example = only_example(config, "long")
    start = slots(example.latent)[0]
    known, padding, again = slots(example.y_latent)
    assert known == start and padding == again and not start <= padding <= start + 8
    assert example.error_slots == range(3)
    assert example.clip_vision.shape == (257, 1280) and round(float(example.clip_vision[0, 0])) == start


def test_film_knows_five_frames_before_grey_ones(clips):
    config = settings(clips, layout="Film", p_motion=1.0)
    build_cache(config, FakeEncoders())
    example = only_example(config, "long")
    start = slots(example.latent)[0]
    assert slots(example.y_latent) == [start, start + 2.5, GREY]
    config = replace(config, p_motion=0.0)
    build_cache(config, FakeEncoders())
    example = only_example(config, "long")
    assert slots(example.y_latent) == [slots(example.latent)[0], GREY, GREY]


def test_texts_come_back_with_their_zeros(clips):
    config = settings(clips)
    encoders = FakeEncoders()
    build_cache(config, encoders)
    example = only_example(config, "long")
    assert torch.equal(example.text, encoders.text("A clip of 40 frames"))


def test_a_second_run_encodes_nothing(clips):
    config = settings(clips, variants=2)
    first = build_cache(config, FakeEncoders())
    again = FakeEncoders()
    report = build_cache(config, again)
    assert first.num_encoded == 6 and (report.num_encoded, report.num_reused) == (0, 6)
    assert again.num_videos == 0 and again.num_texts == 0


@pytest.mark.parametrize(
    ("settings_changed", "models", "num_encoded"),
    [
        ({"variants": 2}, {}, 3),  # what is there stays
        ({"held_out": 1}, {}, 0),
        ({"layout": "Film"}, {}, 3),
        ({"storage": "bfloat16"}, {}, 3),
        ({"vae_tile": 32}, {}, 0),  # tiles give the same latents
        ({"seed": 1}, {}, 2),  # the clip of 9 frames has one window
        ({}, {"vae": "vae B"}, 3),
        ({}, {"clip_vision": "vision B"}, 3),
        ({}, {"text_encoder": "text B"}, 0),
    ],
)
def test_a_changed_setting_or_model_never_meets_old_values(clips, settings_changed, models, num_encoded):
    config = settings(clips, layout="2.0 Pro", p_motion=0.0)
    build_cache(config, FakeEncoders())
    report = build_cache(replace(config, **settings_changed), FakeEncoders(**models))
    assert report.num_encoded == num_encoded
    dataset = CachedDataset(config.cache_folder, replace(config, **settings_changed))
    assert dataset.models == FakeEncoders(**models).fingerprints


def write_bad_clips(folder: Path) -> None:
    """Add one of each kind of clip that cannot be used."""
    folder.mkdir(parents=True, exist_ok=True)
    write_sound(folder / "sound.mp4")
    Image.fromarray(picture(7)).save(folder / "picture.mp4", format="PNG")
    write_numbered(folder / "short.mp4", 7)
    write_clip(folder / "black.mp4", [np.zeros((64, 64, 3), np.uint8)] * 20)
    write_clip(folder / "still.mp4", [picture(1)] * 20)
    write_clip(folder / "late.mp4", [np.zeros((64, 64, 3), np.uint8)] * 20 + [picture(n) for n in range(6)])
    shutil.copy(Path(__file__).parents[1] / "late_timestamp.mp4", folder / "future.mp4")
    (folder / "empty.mp4").touch()
    whole = write_numbered(folder / "cut.mp4", 30)
    whole.write_bytes(whole.read_bytes()[:-900])
    for clip in list(folder.glob("*.mp4")):
        clip.with_suffix(".txt").write_text("A caption")
    write_numbered(folder / "mute.mp4", 20)


def test_every_bad_clip_is_named_with_its_reason_and_skipped(clips):
    write_bad_clips(clips)
    shutil.copy(clips / "long.mp4", clips / "twin of long.mp4")
    (clips / "twin of long.txt").write_text("The same again")
    config = settings(clips)
    report = build_cache(config, FakeEncoders())
    reasons = {item.where: item.reason for item in report.rejected}
    expected = {
        "sound.mp4": "only audio",
        "picture.mp4": "single picture",
        "short.mp4": "gives 7 frames",
        "black.mp4": "plain frames",
        "still.mp4": "does not move",
        "late.mp4": "gives 6 frames at 16 per second, after 20 plain or frozen ones",
        "future.mp4": "damaged time stamps: nothing changes from 0.00 s to 131072.00 s",
        "empty.mp4": "another kind|cannot be read",
        "cut.mp4": "cut off",
        "mute.mp4": "has no caption",
        "twin of long.mp4": "same video as long.mp4",
    }
    assert reasons.keys() == expected.keys()
    for name, words in expected.items():
        assert any(part in reasons[name] for part in words.split("|")), reasons[name]
    assert [clip.name for clip in report.used] == ["exact.mp4", "long.mp4", "other.mp4"]
    stored = json.loads((config.cache_folder / "report.json").read_text())
    assert {item["where"] for item in stored["rejected"]} == expected.keys()
    assert all(name in report.summary() for name in expected)
    assert len(CachedDataset(config.cache_folder, config)) == 3


def test_nothing_usable_is_an_error_that_says_why(tmp_path):
    write_bad_clips(tmp_path / "clips")
    with pytest.raises(ValueError, match="gives no examples: .*mute.mp4.*report.json"):
        build_cache(settings(tmp_path / "clips"), FakeEncoders())
    assert len(json.loads((tmp_path / "cache" / "report.json").read_text())["rejected"]) == 10
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="gives no examples: no clip was found"):
        build_cache(settings(tmp_path / "none"), FakeEncoders())


def test_strict_stops_before_anything_is_encoded(clips):
    (clips / "exact.txt").unlink()
    encoders = FakeEncoders()
    with pytest.raises(ValueError, match="1 clips or rows cannot be used.*exact.mp4"):
        build_cache(settings(clips, strict=True), encoders)
    assert encoders.num_videos == encoders.num_texts == 0


def test_a_black_start_is_reported_and_not_used(tmp_path):
    folder = tmp_path / "clips"
    write_clip(folder / "a.mp4", [np.zeros((64, 64, 3), np.uint8)] + [picture(number) for number in range(1, 9)])
    (folder / "a.txt").write_text("A cat")
    config = settings(folder, p_motion=0.0)
    report = build_cache(config, FakeEncoders())
    assert (
        "begins after 1 plain or frozen frames; last frame repeated 1 times"
        in report.used[0].notes[0] + "; " + report.used[0].notes[1]
    )
    example = only_example(config, "a.mp4")
    assert slots(example.latent) == [1, 3.5, (6 + 7 + 8 + 8) / 4]
    assert slots(example.y_latent)[0] == 1


def test_what_is_true_of_anchors_is_told(clips):
    report = build_cache(settings(clips, p_motion=1.0, variants=2), FakeEncoders())
    notes = {clip.name: "; ".join(clip.notes) for clip in report.used}
    assert notes == {"long.mp4": "", "other.mp4": "", "exact.mp4": notes["exact.mp4"]}
    assert "2 of 2 anchors from inside the clip" in notes["exact.mp4"] and "motion windows of 5 frames" in notes["exact.mp4"]


def test_the_report_says_which_colours_were_converted_and_which_refused(tmp_path):
    """A cache of before holds examples of such clips in wrong colours: converted ones have keys of their own."""
    folder, kinds = tmp_path / "clips", {"wide.mp4": Colours(9, 9, 14), "plain.mp4": Colours(), "hdr.mp4": HDR_HLG}
    folder.mkdir()
    for seed, (name, colours) in enumerate(kinds.items()):
        retag(write_numbered(tmp_path / f"{seed}.mp4", 9 + seed), folder / name, colours)
        (folder / name).with_suffix(".txt").write_text("A number")
    report = build_cache(settings(folder), FakeEncoders())
    notes = {clip.name: [note for note in clip.notes if "colours" in note] for clip in report.used}
    assert notes == {"plain.mp4": [], "wide.mp4": ["colours converted from BT.2020 to BT.709"]}
    assert [item.where for item in report.rejected] == ["hdr.mp4"] and "has HDR (HLG) colours" in report.rejected[0].reason


def test_a_clip_that_vanishes_while_it_is_encoded_is_named_and_skipped(clips):
    class Vanishing(FakeEncoders):
        def text(self, prompt):
            (clips / "long.mp4").unlink(missing_ok=True)
            return super().text(prompt)

    config = settings(clips)
    report = build_cache(config, Vanishing())
    assert [item.where for item in report.rejected] == ["long.mp4 window 0 variant 0"]
    assert "No such file" in report.rejected[0].reason
    assert report.num_encoded == len(CachedDataset(config.cache_folder, config)) == 2


def test_the_next_job_is_worked_on_meanwhile():
    started = {number: threading.Event() for number in range(4)}

    def work(number: int) -> int:
        started[number].set()
        if number == 2:
            raise ValueError("job 2")
        return number * 10

    results = []
    for (number,), future in one_ahead(work, [(number,) for number in range(4)]):
        if number < 3:
            assert started[number + 1].wait(10)
        assert number + 2 > 3 or not started[number + 2].is_set()  # and none beyond it
        results.append(str(future.exception()) if number == 2 else future.result())
    assert results == [0, 10, "job 2", 30]
