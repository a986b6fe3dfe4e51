"""The order of examples: a pure function, complete, in proportion, one size a step."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.data.dataset import held_out_clips
from training.data.order import ExampleOrder


def test_one_bucket_gives_permutations():
    order = ExampleOrder([7])
    epochs = [[order.place(3, 7 * epoch + step, 0)[1] for step in range(7)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1
    assert [ExampleOrder([7]).place(3, step, 0)[1] for step in range(28)] == [number for epoch in epochs for number in epoch]
    assert [order.place(4, step, 0)[1] for step in range(28)] != [number for epoch in epochs for number in epoch]


def test_slots_of_a_step_share_out_what_one_process_sees():
    one, four = ExampleOrder([10], 1), ExampleOrder([10], 4)
    serial = [one.place(0, step, 0) for step in range(40)]
    assert [four.place(0, step, slot) for step in range(10) for slot in range(4)] == serial


@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(1, 5), st.integers(0, 5))
@settings(max_examples=50, deadline=None)
def test_every_example_comes_equally_often_and_a_step_has_one_size(counts, slots, seed):
    order = ExampleOrder(counts, slots)
    seen: Counter = Counter()
    for step in range(2 * sum(counts)):  # two turns
        places = [order.place(seed, step, slot) for slot in range(slots)]
        assert len({bucket for bucket, _ in places}) == 1
        seen.update(places)
    assert set(seen.values()) == {2 * slots} and len(seen) == sum(counts)
    assert order.place(seed, 0, 0)[0] == 0


def test_places_that_do_not_exist_are_refused():
    with pytest.raises(ValueError, match="slot 2"):
        ExampleOrder([3], 2).place(0, 0, 2)
    with pytest.raises(ValueError, match="0"):
        ExampleOrder([3, 0])


def test_the_held_out_clips_are_a_function_of_the_clips():
    clips = {f"clip{number}" for number in range(40)}
    kept = held_out_clips(clips, 0.1)
    assert len(kept) == 4 and kept <= clips and held_out_clips(set(sorted(clips, reverse=True)), 0.1) == kept
    assert len(held_out_clips(clips, 3)) == 3 and not held_out_clips(clips, 0)
    assert len(held_out_clips({"a", "b"}, 0.05)) == 1 and not held_out_clips({"a"}, 0.05)
    with pytest.raises(ValueError, match="keeps 2 of 2 clips"):
        held_out_clips({"a", "b"}, 2)
