import threading
import time

import pytest

from svi_core.video.background_writer import HandOver


def test_all_items_arrive_in_order_and_the_giver_need_not_wait_for_the_end():
    taken, may_end = [], threading.Event()

    def take(items):
        taken.extend(items)
        may_end.wait(60)

    way = HandOver(take, capacity=2)
    way.give(range(20))
    way.end()  # returns although `take` has not
    assert len(taken) >= 17 and not may_end.is_set(), "what is not taken yet is in line: 2 items and the end"
    may_end.set()
    way.wait()
    assert taken == list(range(20))


def test_no_more_than_the_capacity_is_ever_in_line():
    """Item n is made only when at most 3 of the earlier ones wait and one is being looked at."""
    taken, ahead = [], []

    def take(items):
        for item in items:
            time.sleep(0.002)
            taken.append(item)

    def make():
        for item in range(30):
            ahead.append(item - len(taken))
            yield item

    way = HandOver(take, capacity=3)
    way.give(make())
    way.end()
    way.wait()
    assert max(ahead) <= 3 + 2


def test_the_takers_error_is_raised_where_items_are_given():
    def take(items):
        next(items)
        raise OSError("the disk is full")

    def endless():
        while True:
            yield 0

    with pytest.raises(OSError, match="the disk is full"):
        HandOver(take, capacity=1).give(endless())


def test_the_takers_error_after_the_last_item_is_raised_by_wait_once():
    def take(items):
        list(items)
        raise OSError("the disk is full")

    way = HandOver(take, capacity=1)
    way.give([1])
    way.end()
    with pytest.raises(OSError, match="the disk is full"):
        way.wait()
    way.wait()


def test_a_giver_that_fails_stops_the_taker_which_cleans_up_first():
    seen, cleaned = [], []

    def take(items):
        try:
            seen.extend(items)
        finally:
            cleaned.append(True)

    def make():
        yield 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        HandOver(take, capacity=1).give(make())
    assert seen == [1] and cleaned == [True]
