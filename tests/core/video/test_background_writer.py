import threading
import time

import pytest

from svi_core.video.background_writer import BackgroundWriter


def test_all_items_arrive_in_order_and_the_maker_need_not_wait_for_the_end():
    written, may_end = [], threading.Event()

    def write(items):
        written.extend(items)
        may_end.wait(60)

    writer = BackgroundWriter(write, capacity=2)
    writer.give(range(20))
    writer.end()  # returns although `write` has not
    assert len(written) >= 17 and not may_end.is_set(), "the rest is queued: 2 items and the end"
    may_end.set()
    writer.wait()
    assert written == list(range(20))


def test_no_more_than_the_capacity_is_ever_queued():
    """Item n is made only when at most 3 of the earlier ones wait and one is being written."""
    written, ahead = [], []

    def write(items):
        for item in items:
            time.sleep(0.002)
            written.append(item)

    def make():
        for item in range(30):
            ahead.append(item - len(written))
            yield item

    writer = BackgroundWriter(write, capacity=3)
    writer.give(make())
    writer.end()
    writer.wait()
    assert max(ahead) <= 3 + 2


def test_the_writers_error_is_raised_where_items_are_given():
    def write(items):
        next(items)
        raise OSError("the disk is full")

    def endless():
        while True:
            yield 0

    with pytest.raises(OSError, match="the disk is full"):
        BackgroundWriter(write, capacity=1).give(endless())


def test_the_writers_error_after_the_last_item_is_raised_by_wait_once():
    def write(items):
        list(items)
        raise OSError("the disk is full")

    writer = BackgroundWriter(write, capacity=1)
    writer.give([1])
    writer.end()
    with pytest.raises(OSError, match="the disk is full"):
        writer.wait()
    writer.wait()


def test_a_maker_that_fails_stops_the_writer_which_cleans_up_first():
    seen, cleaned = [], []

    def write(items):
        try:
            seen.extend(items)
        finally:
            cleaned.append(True)

    def make():
        yield 1
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        BackgroundWriter(write, capacity=1).give(make())
    assert seen == [1] and cleaned == [True]
