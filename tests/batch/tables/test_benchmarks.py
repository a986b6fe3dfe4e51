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
        ("talk-300s", 60, 10, False, "sound"),
        ("dance-50s", 10, 10, False, "pose"),
        ("production", 3, 14, True, ""),
    ],
)
def test_lengths_and_counts(name, num_clips, num_samples, is_stream, follows):
    found = BENCHMARKS[name]
    assert (found.num_clips, found.num_samples, found.is_stream, found.follows) == (num_clips, num_samples, is_stream, follows)


def test_a_story_tells_its_benchmark_by_its_name():
    assert {benchmark_of(f"{name}-001-cat").name for name in BENCHMARKS} == set(BENCHMARKS)
    assert benchmark_of("consistent-5-cat") is benchmark_of("my production") is benchmark_of("productions-1") is OTHER
