"""The cache: the right frames in every layout, nothing lost to a kill, everything unusable named."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from svi_core import atomic_file
from tests.training.fake_encoders import GREY, FakeEncoders
from tests.training.synthetic_clips import picture, write_clip, write_numbered, write_sound
from training import cache as cache_module
from training.cache import build_cache
from training.data_encoding import one_ahead
from training.data_store import CacheFolder
from training.dataset import CachedDataset, DataConfig, TrainingExample

SMALL = {"width": 64, "height": 64, "min_crop": 1.0, "num_frames": 9, "max_held_frames": 1, "held_out": 0.0}


def settings(folder: Path, **more) -> DataConfig:
    """Examples of 9 frames (3 slots) of 64 x 64 pixels, uncropped, so that frame numbers stay readable."""
    return DataConfig(**{"folder": str(folder), "cache": str(folder.parent / "cache"), **SMALL, **more})


@pytest.fixture
def clips(tmp_path) -> Path:
    """Three clips, of 40, 9 and 60 frames, with captions."""
    folder = tmp_path / "clips"
    for name, count in (("long", 40), ("exact", 9), ("other", 60)):
        write_numbered(folder / f"{name}.mp4", count)
        (folder / f"{name}.txt").write_text(f"A clip of {count} frames")
    return folder


def only_example(config: DataConfig, name: str) -> TrainingExample:
    dataset = CachedDataset(config.cache_folder, config)
    found = [example for example in (dataset.example(0, step) for step in range(len(dataset))) if name in example.name]
    assert len(found) == 1
    return found[0]


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
        ({"vae_tile": 32}, {}, 3),
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
        "late.mp4": "gives 6 frames at 16 per second, after a start of 20",
        "empty.mp4": "of another kind|cannot be read",
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
    with pytest.raises(ValueError, match="gives no example: .*mute.mp4.*report.json"):
        build_cache(settings(tmp_path / "clips"), FakeEncoders())
    assert len(json.loads((tmp_path / "cache" / "report.json").read_text())["rejected"]) == 9
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match="gives no example: no clip was found"):
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
        "begins after 1 plain or frozen frames; last frame held 1 times more"
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


def entries(config: DataConfig, kind: str = "windows") -> list[Path]:
    return sorted((config.cache_folder / kind).glob("*.safetensors"))


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-100] ^= 4  # in the tensors, where safetensors notices nothing
    path.write_bytes(data)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def of_another(path: Path) -> None:
    others = [other for other in sorted(path.parent.iterdir()) if other != path]
    shutil.copy(others[0], path)


def pickled(path: Path) -> None:
    torch.save({"latent": torch.zeros(1)}, path)


@pytest.mark.parametrize("damage", [flip_a_bit, cut_short, empty, of_another, pickled])
@pytest.mark.parametrize("kind", ["windows", "texts"])
def test_a_damaged_entry_is_named_refused_and_made_again(clips, damage, kind):
    config = settings(clips)
    build_cache(config, FakeEncoders())
    before = {path: path.read_bytes() for path in entries(config, kind)}
    damage(entries(config, kind)[1])
    dataset = CachedDataset(config.cache_folder, config)
    with pytest.raises(ValueError, match=entries(config, kind)[1].name):
        [dataset.example(0, step) for step in range(3)]
    report = build_cache(config, FakeEncoders())
    assert len(report.repaired) == 1 and entries(config, kind)[1].name in report.repaired[0].reason
    assert report.repaired[0].where in report.summary()
    assert {path: path.read_bytes() for path in entries(config, kind)} == before


def test_a_missing_entry_is_named(clips):
    config = settings(clips)
    build_cache(config, FakeEncoders())
    entries(config)[0].unlink()
    dataset = CachedDataset(config.cache_folder, config)
    with pytest.raises(ValueError, match="is missing: run python -m training.cache"):
        [dataset.example(0, step) for step in range(3)]
    assert build_cache(config, FakeEncoders()).num_encoded == 1


def test_a_damaged_scan_or_index_is_made_again(clips):
    config = settings(clips)
    build_cache(config, FakeEncoders())
    for path in [*config.cache_folder.glob("clips/*.json"), *config.cache_folder.glob("index-*.json")]:
        path.write_text(path.read_text().replace("9", "8"))
    with pytest.raises(ValueError, match="no finished cache"):
        CachedDataset(config.cache_folder, config)
    report = build_cache(config, FakeEncoders())
    assert report.num_reused == 3 and len(CachedDataset(config.cache_folder, config)) == 3


def test_two_processes_cannot_write_one_cache(clips):
    config = settings(clips)
    with CacheFolder(config.cache_folder), pytest.raises(ValueError, match="in use by another process"):
        build_cache(config, FakeEncoders())
    build_cache(config, FakeEncoders())


def test_a_cache_that_cannot_be_written_says_what_to_do(clips, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="set data.cache to a folder that can be written.*file"):
        build_cache(settings(clips, cache=str(tmp_path / "file")), FakeEncoders())


def test_a_disk_that_is_too_small_stops_the_run_before_it_begins(clips, monkeypatch):
    usage = shutil.disk_usage(clips)._replace(free=1_000_000)
    monkeypatch.setattr(cache_module.shutil, "disk_usage", lambda folder: usage)
    encoders = FakeEncoders()
    with pytest.raises(ValueError, match=r"0.0 GB free, 3 more examples need 0.0 GB: free space"):
        build_cache(settings(clips), encoders)
    assert encoders.num_texts == 0


def test_a_disk_that_fills_up_keeps_what_is_finished(clips, monkeypatch):
    config = settings(clips)
    real, calls = Path.write_bytes, []

    def full(path: Path, data: bytes) -> int:
        calls.append(path)
        if sum("windows" in str(call) for call in calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left.*free space.*windows"):
            build_cache(config, FakeEncoders())
    assert len(entries(config)) == 1
    report = build_cache(config, FakeEncoders())
    assert (report.num_reused, report.num_encoded) == (1, 2)


def test_prune_removes_what_no_configuration_uses(clips):
    config = settings(clips)
    build_cache(config, FakeEncoders())
    film = replace(config, layout="Film")
    assert build_cache(film, FakeEncoders()).num_unused == 0  # the first configuration still counts
    report = build_cache(film, FakeEncoders(vae="vae B"))
    assert report.num_unused == 3 and "--prune" in report.summary()
    assert build_cache(film, FakeEncoders(vae="vae B"), prune=True).num_unused == 0
    assert len(entries(config)) == 6
    assert len(CachedDataset(config.cache_folder, config)) == 3


def run_and_die(config: DataConfig, commits: int) -> None:
    """Build the cache, and be killed at the commit number `commits`, before or after the rename in turn."""
    real, seen = os.replace, []

    def replace_or_die(source, destination):
        seen.append(destination)
        if len(seen) == commits // 2 + 1 and commits % 2 == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        real(source, destination)
        if len(seen) == commits // 2 + 1:
            os.kill(os.getpid(), signal.SIGKILL)

    atomic_file.os.replace = replace_or_die
    build_cache(config, FakeEncoders())
    os._exit(0)


def content(folder: Path) -> dict[str, bytes]:
    """Return every file of a cache but the report, whose counts differ, and the lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in ("report.json", ".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_killed_at_every_commit_it_goes_on_to_the_same_files(tmp_path):
    clips = tmp_path / "clips"
    write_numbered(clips / "a.mp4", 12)
    (clips / "a.txt").write_text("A clip")
    whole = settings(clips, cache=str(tmp_path / "whole"), variants=2)
    build_cache(whole, FakeEncoders())
    expected = content(whole.cache_folder)
    fork = multiprocessing.get_context("fork")
    num_commits = len(expected) + 1  # and the report
    for commits in range(2 * num_commits + 1):
        config = settings(clips, cache=str(tmp_path / "killed" / str(commits)), variants=2)
        process = fork.Process(target=run_and_die, args=(config, commits))
        process.start()
        process.join()
        assert process.exitcode == (-signal.SIGKILL if commits < 2 * num_commits else 0)
        finished = sum(atomic_file.STAGING_MARK not in path.name for path in entries(config))
        report = build_cache(config, FakeEncoders())
        assert report.num_reused == finished and not report.repaired
        assert content(config.cache_folder) == expected


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
    with pytest.raises(ValueError, match="data.exclude holds 'lnog.mp4', .*: did you mean 'long.mp4'?"):
        CachedDataset(config.cache_folder, replace(config, exclude=("lnog.mp4",)))
    with pytest.raises(ValueError, match="leaves nothing to learn from"):
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
    assert safetensors.torch.load_file(entries(config)[0])["latent"].dtype == torch.bfloat16
