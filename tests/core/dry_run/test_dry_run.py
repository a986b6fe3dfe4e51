import os
from collections import namedtuple
from dataclasses import replace

import numpy as np
import pytest

from svi_core.clips.clip_plan import ClipPlan, SeedMode
from svi_core.dry_run import disk_need as disk_module
from svi_core.dry_run.picture import _EDGE, _FILL, STORED, WIDTH, draw_estimate, draw_message
from svi_core.dry_run.requested_run import ExpertModel, LoraUse, ModelFile, RequestedRun
from svi_core.dry_run.run_estimate import estimate_run
from svi_core.dry_run.text import estimate_text, size
from svi_core.dry_run.warnings import listed
from svi_core.schedule.text import parse_schedule
from svi_core.store.clip_times import ClipTime, ClipWork, duration
from svi_core.store.records import read_records
from svi_core.store.run_store import RunStore
from svi_core.systems.layouts import LAYOUTS, make_layout
from svi_core.systems.lora_variant import variant_of_lora
from svi_core.systems.merged_files import Merged
from svi_core.video.video_file import VideoCoding
from tests.core.fakes import FakeMaker, generate_clips

PRO, TEXT = LAYOUTS["2.0 Pro"], "one\n\ntwo\n\nthree"


def svi_lora(name, named_for=None, **facts):
    return LoraUse(name, 1.0, named_for, variant_of_lora(name, {}), **facts)


SVI = svi_lora("svi_v2_pro.safetensors")
LOST = replace(SVI, is_checked=False, changes_nothing=True)
SVI_21 = svi_lora("svi_wan2.1_v2.safetensors")
HIGH = ExpertModel("high", "wan2.2_i2v_high_noise_14B.safetensors", (SVI,))
LOW = ExpertModel("low", "wan2.2_i2v_low_noise_14B.safetensors", (SVI,))
MODELS = (HIGH.file, LOW.file)
SHOT = svi_lora("svi-shot.safetensors")
DISTILLED = LoraUse("lightx2v_HIGH.safetensors", 0.5, "high")


def run_of(text=TEXT, num_clips=None, layout=PRO, plan=None, **facts):
    """A run that gives no reason for a warning: trained size and length, both experts, cfg 4."""
    schedule = parse_schedule(text)
    num_clips = len(schedule) if num_clips is None else num_clips
    clip_plan = ClipPlan(num_clips, schedule, layout, graph_hash="graph", **(plan or {}))
    known = {"cfg": 4.0, "num_steps": 4, "size": (832, 480), "experts": (HIGH, LOW)}
    return RequestedRun(plan=clip_plan, num_listed=len(schedule), **(known | facts))


def stored_run(folder, text=TEXT, **rest):
    """Make the clips of `text` in `folder` with the fake model, and return the run of that run."""
    run = run_of(text, folder=folder, **rest)
    with RunStore(folder) as store:
        list(generate_clips(run.plan, FakeMaker(PRO), store))
    return run


def snapshot(folder):
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("variant", "text", "expected"),
    [
        ("2.0 Pro", TEXT, 81 + 76 + 76),
        ("2.0", TEXT, 81 + 80 + 80),
        ("Shot", TEXT, 80 + 80 + 81),
        ("Film", TEXT, 76 + 76 + 81),
        ("2.0 Pro", "one\n\n[cut, hold 16]\ntwo\n\n[frames 41]\nthree", 81 + 81 + 16 + 36),
        ("2.0 Pro", "one\n\n[seam linear]\ntwo", 81 - 4 + 80),  # frame 0 replays the anchor: 4 of 5 shared frames blend
        ("2.0 Pro", "[x3]\none", 81 + 76 + 76),
    ],
)
def test_frames_are_those_of_the_video(variant, text, expected):
    estimate = estimate_run(run_of(text, layout=make_layout(variant)))
    assert estimate.num_frames == expected and estimate.seconds == pytest.approx(expected / 16)
    assert [clip.first_frame for clip in estimate.clips] == [
        sum(clip.num_frames for clip in estimate.clips[:index]) for index in range(len(estimate.clips))
    ]


def test_the_final_length_cuts_and_leaves_clips_out():
    estimate = estimate_run(run_of(max_frames=100))
    assert [clip.num_frames for clip in estimate.clips] == [81, 19]


def test_a_continued_video_comes_first():
    estimate = estimate_run(run_of(plan={"continues": "k"}, num_start_frames=50, start_seconds=2.0))
    assert [clip.first_frame for clip in estimate.clips] == [50, 126, 202] and estimate.num_frames == 50 + 3 * 76
    assert [clip.begin for clip in estimate.clips] == [2.0, 2.0 + 76 / 16, 2.0 + 152 / 16]


def test_what_is_stored_is_found_without_a_trace(tmp_path):
    run = stored_run(tmp_path / "run")
    before = snapshot(tmp_path)
    runs = {
        "same": run,
        "second prompt": run_of("one\n\nother\n\nthree", folder=run.folder),
        "a hold": run_of("one\n\n[hold 5]\ntwo\n\nthree", folder=run.folder),
        "a fourth": run_of(TEXT, 4, folder=run.folder),
        "other seed": run_of(folder=run.folder, plan={"seed": 1}),
        "elsewhere": run_of(folder=tmp_path / "nothing here"),
    }
    stored = {name: [clip.is_stored for clip in estimate_run(run).clips] for name, run in runs.items()}
    assert stored == {
        "same": [True] * 3,
        "second prompt": [True, False, False],
        "a hold": [True] * 3,
        "a fourth": [True] * 3 + [False],
        "other seed": [False] * 3,
        "elsewhere": [False] * 3,
    }
    other_graph = replace(run, plan=replace(run.plan, graph_hash="other"))
    assert estimate_run(other_graph).num_stored == 0
    assert snapshot(tmp_path) == before


def test_clips_after_a_cut_stay_stored(tmp_path):
    run = stored_run(tmp_path, "one\n\ntwo\n\n[cut]\nthree")
    changed = run_of("one\n\nother\n\n[cut]\nthree", folder=run.folder)
    assert [clip.is_stored for clip in estimate_run(changed).clips] == [True, False, True]


def test_a_clip_whose_latent_is_gone_is_to_be_made(tmp_path):
    run = stored_run(tmp_path)
    os.remove(next((tmp_path / "clips").glob("*.safetensors")))
    assert estimate_run(run).num_stored == 2


@pytest.mark.parametrize("unknown", [{"folder": None}, {"is_seed_known": False}, {"is_start_known": False}])
def test_what_cannot_be_told_is_not_guessed(tmp_path, unknown):
    run = stored_run(tmp_path)
    estimate = estimate_run(replace(run, **unknown))
    assert estimate.num_stored is None and len(estimate.new_clips) == 3
    assert "unknown, because" in estimate_text(estimate) and "3 to make" in estimate_text(estimate)


def test_time_comes_from_measures_and_only_for_new_clips(tmp_path):
    run = stored_run(tmp_path)
    with RunStore(tmp_path) as store:
        for record, seconds in zip(read_records(tmp_path), (50.0, 9.0, 10.0), strict=True):
            store.add_measure(record.key, "sample_seconds", seconds)  # of 2 x 2 latents, as the fake model makes
            store.add_measure(record.key, "decode_seconds", 1.0)
    changed = run_of("one\n\ntwo\n\nother", folder=tmp_path, size=(16, 16))
    estimate = estimate_run(changed)
    assert estimate.work_seconds == pytest.approx(11.0) and [clip.seconds for clip in estimate.clips][:2] == [0.0, 0.0]
    assert estimate.time.source == "median of 3 clips of this run"
    cheaper = estimate_run(run_of("one\n\ntwo\n\n[cfg 1]\nother", folder=tmp_path, size=(16, 16)))
    assert cheaper.work_seconds == pytest.approx(5.5)  # one pass a step instead of two
    assert estimate_run(replace(run, size=(16, 16))).work_seconds == 0.0


def test_time_of_earlier_runs_counts_for_the_same_models_only():
    earlier = ClipTime(30.0, ClipWork(4, 2, 21, 60, 104), MODELS, peak_bytes=40_000_000_000)
    estimate = estimate_run(run_of(), [earlier])
    assert estimate.work_seconds == pytest.approx(90.0) and "measured peak on the GPU 40 GB" in estimate_text(estimate)
    assert estimate_run(run_of(), [replace(earlier, models=("other", "low"))]).work_seconds is None
    assert estimate_run(run_of(experts=(HIGH, ExpertModel("low", None))), [earlier]).work_seconds is None
    assert estimate_run(run_of(num_steps=None), [earlier]).work_seconds is None
    assert "not measured yet" in estimate_text(estimate_run(run_of()))


def test_latents_are_counted_to_the_byte(tmp_path):
    disk = estimate_run(run_of()).disk
    assert disk.latent_bytes == 3 * 16 * 21 * 60 * 104 * 4 and disk.free_bytes is None and not disk.is_measured
    run = stored_run(tmp_path)
    stored = sum(path.stat().st_size for path in (tmp_path / "clips").glob("*.safetensors"))
    fresh = estimate_run(run_of(folder=tmp_path / "fresh", size=(16, 16))).disk.latent_bytes
    assert 0 < stored - fresh < 3 * 1000  # each file has a header
    assert estimate_run(replace(run, size=(16, 16))).disk.latent_bytes == 0


def test_video_size_is_measured_where_there_are_segments(tmp_path):
    run = stored_run(tmp_path)
    coding = VideoCoding()
    with RunStore(tmp_path) as store:
        key = read_records(tmp_path)[0].key
        name = f"0-81-0-{coding.tag}"
        store.segment_path(key, name).write_bytes(b"x" * 8100)
        store.add_segment(key, name, 81, "", {})
    disk = estimate_run(run).disk
    assert disk.is_measured and disk.video_bytes == 100 * (81 + 76 + 76)  # only the join: all clips are there
    assert not estimate_run(replace(run, coding=VideoCoding(crf=30))).disk.is_measured


def test_a_disk_that_is_too_small_is_the_first_warning(tmp_path, monkeypatch):
    usage = namedtuple("usage", "free")
    run = run_of(folder=tmp_path / "not" / "there", size=(64, 64))
    for free, is_short in ((10**9, False), (10**5, True)):
        monkeypatch.setattr(disk_module.shutil, "disk_usage", lambda folder, free=free: usage(free))
        estimate = estimate_run(run)
        assert bool(estimate.disk.warnings) is is_short and estimate.warnings[0].startswith("the disk is too small") is is_short


def test_clips_that_cannot_follow_one_another_are_refused():
    with pytest.raises(ValueError, match="clip 2 of the schedule shares 9 frames"):
        estimate_run(run_of("[frames 9]\na\n\n[motion 8]\nb"))


def test_a_run_as_trained_gives_no_warning():
    assert estimate_run(run_of()).warnings == ()


@pytest.mark.parametrize(
    ("text", "facts", "words"),
    [
        ("a\n\n[frames 121]\nb", {}, "121 frames in clip 2: SVI is trained on clips of 81 frames only"),
        ("a\n\n[motion 12]\nb", {}, "12 motion frames: 2.0 Pro is trained with 4"),
        (TEXT, {"size": (480, 832)}, "480 x 832 pixels: SVI is trained at 832 x 480; portrait"),
        (TEXT, {"size": (1280, 720)}, "1280 x 720 pixels"),
        (TEXT, {"plan": {"seed_mode": SeedMode.FIXED}}, "seed_mode is fixed"),
        ("[seed 42]\na\n\n[seed 42]\nb", {}, "seed 42 in clip 1 to 2"),
        ("[seed 42]\na\n\nb", {}, "seed 42 in clip 1 to 2"),  # 0 + 42 * 1
        (TEXT, {"num_clips": 2}, "describes 3 clips, but num_clips is 2"),
        (TEXT, {"num_clips": 5}, "describes 3 of 5 clips: its last prompt holds for clips 4 to 5"),
        (TEXT, {"until_stopped": True}, "until_stopped"),
        (TEXT, {"experts": (ExpertModel("model", HIGH.file),)}, "high-noise expert of Wan 2.2, but the low-noise one is not"),
        (TEXT, {"experts": (replace(HIGH, file=LOW.file), replace(LOW, file=HIGH.file))}, "used as the high-noise one"),
        (TEXT, {"experts": (HIGH, replace(LOW, file=HIGH.file))}, "are the same file"),
        (TEXT, {"experts": (ExpertModel("model", "mix.safetensors", merged=Merged(True)),)}, "it cannot be told whether"),
        (TEXT, {"experts": (replace(HIGH, loras=(LoraUse("svi_LOW", 1.0, "low"),)), LOW)}, "is applied to the high-noise"),
        (TEXT, {"experts": (replace(HIGH, loras=(SVI, DISTILLED)), LOW)}, "cfg is above 1 in clip 1 to 3, but lightx2v_HIGH"),
        (TEXT, {"experts": (replace(HIGH, loras=(SHOT,)), LOW)}, "is for SVI Shot (its name says so), but the layout is"),
        (TEXT, {"experts": (replace(HIGH, loras=(SHOT,)), LOW)}, "The run will fail."),
        (TEXT, {"experts": (replace(HIGH, loras=(replace(SHOT, is_checked=False),)), LOW)}, "drift or turn to noise"),
        (TEXT, {"experts": (replace(HIGH, loras=()), replace(LOW, loras=()))}, "no LoRA is on model and model_low_noise, but"),
        (TEXT, {"experts": (HIGH, replace(LOW, loras=(replace(SVI, strength=0.0),)))}, "no LoRA is on model_low_noise, but"),
        (TEXT, {"experts": (replace(HIGH, loras=(DISTILLED,)), LOW), "cfg": 1.0}, "among lightx2v_HIGH.safetensors at 0.5 on"),
        (TEXT, {"experts": (replace(HIGH, loras=(LOST,)), LOW)}, "svi_v2_pro.safetensors finds none of its weights on"),
        (TEXT, {"cfg": 1.0}, "cfg is 1 in clip 1 to 3, but no model or LoRA is named as distilled"),
        (TEXT, {"files": (ModelFile("gone.safetensors", "", None),)}, "gone.safetensors is in none of"),
        (TEXT, {"files": (ModelFile("cut.gguf", "vae", 5, "cut.gguf is cut off."),)}, "cut.gguf is cut off."),
        ("[anchor garden]\na", {}, "names 'garden', but the anchors input has none"),
        ("[end attic]\na", {"anchors": ("garden",)}, "names 'attic', but the anchors input has 'garden'"),
        ("[lora svi=0.5]\na", {"lora_rows": ("other.safetensors",)}, "changes LoRA 'svi'"),
        (TEXT, {"remarks": ("something of the graph",)}, "something of the graph"),
    ],
)  # fmt: skip
def test_each_warning_is_given_once(text, facts, words):
    warnings = estimate_run(run_of(text, **facts)).warnings
    assert sum(words in warning for warning in warnings) == 1, warnings


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("[anchor main]\na\n\n[anchor garden]\nb", {"anchors": ("garden",)}),
        ("a\n\n[motion 1]\nb", {"layout": LAYOUTS["2.0 (Wan 2.1)"], "experts": (ExpertModel("model", "a.gguf", (SVI_21,)),)}),
        (TEXT, {"layout": LAYOUTS["Shot"], "experts": (ExpertModel("model", "wan2.1.safetensors", (SHOT,)),)}),
        (TEXT, {"experts": (replace(HIGH, loras=(SVI, replace(SHOT, strength=0.0))), LOW)}),
        ("[lora SVI=0.5]\na", {"lora_rows": ("svi_pro_HIGH.safetensors",)}),
        (TEXT, {"cfg": 1.0, "experts": (replace(HIGH, loras=(SVI, DISTILLED)), LOW)}),
        (TEXT, {"experts": (replace(HIGH, loras=(SVI, replace(DISTILLED, strength=0.0))), LOW)}),
        (TEXT, {"experts": (ExpertModel("model", "wan2.1_i2v_480p_14B_fp16.safetensors", (SVI,)),)}),
        (TEXT, {"experts": (ExpertModel("model", "wan2.1_mix.safetensors", merged=Merged(True, SVI.variant)),)}),
        (TEXT, {"experts": (replace(HIGH, expert="model", merged=Merged(True)),)}),  # a node joins both experts
        (TEXT, {"experts": (ExpertModel("model", None, (replace(SVI, named_for="high"),)),)}),
        (TEXT, {"is_seed_known": False, "cfg": None, "size": None, "num_steps": None}),
    ],
)  # fmt: skip
def test_what_is_fine_is_not_warned_of(text, facts):
    assert estimate_run(run_of(text, **facts)).warnings == ()


def test_one_line_says_which_loras_act_on_which_expert():
    run = run_of(experts=(replace(HIGH, loras=(SVI, DISTILLED)), replace(LOW, loras=())))
    line = "- LoRAs: high noise: svi_v2_pro.safetensors at 1, lightx2v_HIGH.safetensors at 0.5; low noise: none"
    assert line in estimate_text(estimate_run(run)).splitlines()


def test_numbers_are_listed_as_ranges():
    assert listed([1, 2, 3, 7]) == "1 to 3, 7" and listed([4]) == "4"
    assert listed(range(1, 40, 2)) == "1, 3, 5, 7, 9, ..."


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.5, "0.5 s"),
        (40, "40 s"),
        (59.7, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (100_800, "1 day 4 h"),
    ],
)
def test_times_are_written_as_people_say_them(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("num_bytes", "words"), [(512, "0.512 kB"), (8_386_560, "8.39 MB"), (28.6e9, "28.6 GB"), (2e12, "2 TB")]
)
def test_sizes_are_written_with_units(num_bytes, words):
    assert size(num_bytes) == words


def test_the_text_shows_every_clip_and_keeps_its_table(tmp_path):
    run = stored_run(tmp_path, "one\n\n[cut, seed 7, anchor garden]\na | b " + "long " * 50 + "\n\nthree", anchors=("garden",))
    text = estimate_text(estimate_run(run))
    rows = [line for line in text.splitlines() if line.startswith(("| 1 |", "| 2 |", "| 3 |"))]
    assert rows[0] == "| 1 | 0.00 s | 81 | 0 | stored |  | one |"
    assert rows[1].startswith("| 2 | 5.06 s | 81 | 7 | stored | cut, anchor garden | a \\| b long") and rows[1].endswith("… |")
    assert rows[2] == "| 3 | 10.12 s | 76 | 84 | stored |  | three |"  # the anchor goes on, and is not said again
    assert "3 stored, 0 to make" in text and "nothing is sampled" in text


def test_ten_thousand_clips_are_shortened_in_text_and_picture():
    estimate = estimate_run(run_of("[x10000]\na woman walks on"))
    text, picture = estimate_text(estimate), draw_estimate(estimate)
    assert estimate.num_frames == 10_000 * 76 + 5 and "760 005 frames" in text
    assert len(text) < 6000 and "| ... |" in text and "| 1 |" in text and "| 10000 |" in text
    assert picture.shape[0] < 1500 and picture.shape[1:] == (WIDTH, 3)


def pixels(picture, colour):
    return (picture == np.array(colour, np.uint8)).all(-1)


def test_the_picture_is_to_scale_and_tells_stored_from_new(tmp_path):
    stored_run(tmp_path, "one")
    estimate = estimate_run(run_of("one\n\n[cut, hold 81]\ntwo", folder=tmp_path))
    picture = draw_estimate(estimate)
    top_lines = {state: pixels(picture, _EDGE[state]).sum(axis=1).max() for state in ("stored", "to make")}
    assert top_lines["to make"] / top_lines["stored"] == pytest.approx(2.0, abs=0.02)  # 162 frames and 81
    row = np.argmax(pixels(picture, _EDGE[STORED]).sum(axis=1) > 300)
    columns = np.flatnonzero(pixels(picture, _FILL["to make"])[row + 70])
    hatched = columns > (columns.min() + columns.max()) / 2 + 5
    assert 0 < hatched.mean() < 0.45  # the held half is hatched: fewer pixels of the plain colour
    assert pixels(picture, _EDGE["cut"])[:, columns.min() - 2 : columns.min() + 2].any()


def test_a_picture_of_many_clips_shows_them_all_in_the_strip(tmp_path):
    text = "\n\n".join(f"prompt {index}" for index in range(40))
    run = run_of(text, folder=tmp_path)
    estimate = estimate_run(run)
    estimate = replace(estimate, clips=tuple(replace(clip, is_stored=clip.request.index < 10) for clip in estimate.clips))
    strip = draw_estimate(estimate)[74 + 8]
    stored, new = (pixels(strip[None], _EDGE[state]).sum() for state in ("stored", "to make"))
    assert stored / (stored + new) == pytest.approx(765 / 3045, abs=0.02)  # 81 + 9 x 76 of 40 x 76 + 5 frames


def test_a_message_is_wrapped_not_cut():
    short, long = draw_message("Title", "a few words"), draw_message("Title", "word " * 200)
    assert long.shape[0] > short.shape[0] and long.shape[1:] == (WIDTH, 3)
