import json
from dataclasses import replace

import pytest

from svi_core.store.clip_times import (
    MAX_KEPT,
    ClipTime,
    ClipWork,
    estimate_time,
    measured_time,
    read_times,
    remember_times,
)  # fmt: skip

WORK = ClipWork(num_steps=4, num_passes=2, num_slots=21, latent_height=60, latent_width=104)
MODELS = ("high.safetensors", "low.safetensors")


def test_work_is_counted_as_for_wan_14b():
    """32 760 tokens at 81 frames of 832 x 480: 787 TFLOP in linear layers and 900 in attention, for each pass."""
    assert WORK.amount == pytest.approx(4 * 2 * 32_760 * (787 + 900))
    assert replace(WORK, num_steps=8).amount == 2 * WORK.amount == 4 * replace(WORK, num_passes=1).amount
    half = replace(WORK, latent_width=52)
    assert half.amount / WORK.amount == pytest.approx(0.5 * (787 + 450) / (787 + 900))


def test_a_record_without_all_parts_has_no_time():
    measures = {"num_steps": 4, "num_passes": 2, "num_slots": 21, "latent_height": 60, "latent_width": 104}
    assert measured_time(measures) is None
    assert measured_time({**measures, "sample_seconds": 3.0, "decode_seconds": 1.5}, MODELS) == ClipTime(4.5, WORK, MODELS)
    assert measured_time({**measures, "sample_seconds": 3.0, "peak_bytes": 7e9}).peak_bytes == 7_000_000_000
    assert measured_time({"sample_seconds": 3.0}) is None


def test_the_median_of_the_own_run_comes_first():
    of_run = [ClipTime(seconds, WORK, peak_bytes=peak) for seconds, peak in ((90.0, 1), (10.0, 5), (12.0, 3))]
    found = estimate_time(WORK, of_run, [ClipTime(1.0, WORK)])
    assert (found.seconds, found.source, found.peak_bytes) == (pytest.approx(12.0), "median of 3 clips of this run", 5)


def test_steps_and_size_are_scaled_and_said():
    found = estimate_time(replace(WORK, num_steps=10), [ClipTime(8.0, WORK)], [])
    assert found.seconds == pytest.approx(20.0) and found.source == "median of 1 clips of this run, scaled"
    small = replace(WORK, latent_height=30)
    found = estimate_time(small, [], [ClipTime(8.0, WORK)])
    assert found.seconds == pytest.approx(8.0 * small.amount / WORK.amount)
    assert found.source == "median of 1 earlier runs with these models, scaled from another frame size"


def test_the_same_frame_size_wins_over_another():
    other = replace(WORK, latent_height=30)
    found = estimate_time(WORK, [ClipTime(1000.0, other), ClipTime(8.0, WORK)], [])
    assert found.seconds == pytest.approx(8.0)


def test_nothing_measured_gives_nothing():
    assert estimate_time(WORK, [], []) is None


def test_the_book_keeps_the_median_of_a_run(tmp_path):
    book = tmp_path / "user ü" / "run_times.json"
    assert read_times(book) == []
    remember_times(book, [ClipTime(s, WORK, MODELS, peak) for s, peak in ((9.0, 4), (3.0, 8), (4.0, 2))])
    assert read_times(book) == [ClipTime(4.0, WORK, MODELS, 8)]
    remember_times(book, [])
    remember_times(book, [ClipTime(5.0, replace(WORK, num_steps=8), MODELS)])
    remember_times(book, [ClipTime(7.0, WORK, MODELS)])
    assert [(time.seconds, time.work.num_steps) for time in read_times(book)] == [(5.0, 8), (7.0, 4)]


def test_the_book_stays_small(tmp_path):
    book = tmp_path / "run_times.json"
    entry = {"seconds": 1.0, "work": vars(WORK), "peak_bytes": 0}
    book.write_text(json.dumps({"runs": [{**entry, "models": [f"model {index}"]} for index in range(MAX_KEPT)]}))
    remember_times(book, [ClipTime(2.0, WORK, MODELS)])
    times = read_times(book)
    assert len(times) == MAX_KEPT and times[-1].models == MODELS and times[0].models == ("model 1",)


@pytest.mark.parametrize("text", ["{", "[]", '{"runs": [{"seconds": 1}]}', '{"runs": 3}'])
def test_a_broken_book_counts_as_empty_and_is_told(tmp_path, text, caplog):
    book = tmp_path / "run_times.json"
    book.write_text(text)
    assert read_times(book) == [] and "times of earlier runs are not known" in caplog.text
    remember_times(book, [ClipTime(2.0, WORK, MODELS)])
    assert [file.read_text() for file in (book.parent / "set_aside").iterdir()] == [text]
    assert len(read_times(book)) == 1
