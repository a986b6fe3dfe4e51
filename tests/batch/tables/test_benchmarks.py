"""The benchmarks are those of the paper, in its counts."""

import pytest

from batch.tables.benchmarks import BENCHMARKS, OTHER, benchmark_of


@pytest.mark.parametrize(
    "name, num_clips, num_samples, is_stream, follows",
    [
        ("consistent-50s", 10, 152, False, ""),
        ("consistent-250s", 50, 14, False, ""),
        ("creative-50s", 10, 152, True, ""),
        ("creative-250s", 50, 14, True, ""),
        ("talk-300s", 94, 10, False, "sound"),
        ("dance-50s", 16, 10, False, "pose"),
        ("production", 3, 14, True, ""),
    ],
)
def test_lengths_and_counts(name, num_clips, num_samples, is_stream, follows):
    found = BENCHMARKS[name]
    assert (found.num_clips, found.num_samples, found.is_stream, found.follows) == (num_clips, num_samples, is_stream, follows)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_the_clips_are_as_many_as_the_seconds_need(name):
    """A first clip of 81 frames and 80 more for each other, at the rates of docs/METHOD.md 3."""
    found = BENCHMARKS[name]
    rate = 25 if name in ("talk-300s", "dance-50s") else 16
    frames = 81 + 80 * (found.num_clips - 1)
    assert frames - 80 < found.seconds * rate <= frames


def test_a_story_tells_its_benchmark_by_its_name():
    assert {benchmark_of(f"{name}-001-cat").name for name in BENCHMARKS} == set(BENCHMARKS)
    assert benchmark_of("consistent-5-cat") is benchmark_of("my production") is benchmark_of("productions-1") is OTHER
