"""Weights and block inputs in host memory: what is copied when, and beside what. A GPU's streams are played by a log."""

import contextlib
import itertools
import weakref
from types import SimpleNamespace

import pytest
import torch

from training.model import host_memory
from training.model.host_memory import Shelf, SideStream, StoredInput, SwappedWeights

CPU = torch.device("cpu")


def swapped(num_blocks, side=None):
    """Return blocks of one matrix, and their weights in host memory, each linked with the one before."""
    blocks = [torch.nn.Linear(2, 2, bias=False) for _ in range(num_blocks)]
    rows = [SwappedWeights(block, CPU, side or SideStream(CPU)) for block in blocks]
    for before, after in itertools.pairwise(rows):
        after.follow(before)
    return blocks, rows


def test_weights_are_copied_once_for_each_use_and_never_back(monkeypatch):
    copied = []
    fetch = SwappedWeights._copied
    monkeypatch.setattr(SwappedWeights, "_copied", lambda self, host: copied.append(host) or fetch(self, host))
    blocks, rows = swapped(4)
    hosts = [block.weight for block in blocks]
    values = [host.detach().clone() for host in hosts]
    for index in range(4):
        with rows[index].on_device():
            assert blocks[index].weight is not hosts[index] and torch.equal(blocks[index].weight, values[index])
    assert [id(host) for host in copied] == [id(host) for host in hosts]
    for index in reversed(range(4)):
        with rows[index].on_device(backward=True):
            assert torch.equal(blocks[index].weight, values[index])
    assert [id(host) for host in copied[4:]] == [id(host) for host in reversed(hosts)]
    for block, host, value in zip(blocks, hosts, values, strict=True):
        assert block.weight is host and torch.equal(host, value)
    assert all(row._fetched is None for row in rows), "nothing stays on the device"


def test_no_more_than_two_blocks_lie_on_the_device():
    _, rows = swapped(5)
    for order, backward in ((range(5), False), (reversed(range(5)), True)):
        for index in order:
            with rows[index].on_device(backward):
                fetched = [place for place, row in enumerate(rows) if row._fetched is not None]
                following = index - 1 if backward else index + 1
                assert fetched == [following] * (0 <= following < 5)


def test_an_input_comes_back_as_it_was_and_the_one_before_is_on_its_way():
    shelf = Shelf(SideStream(CPU))
    inputs = [torch.full((2, 3), float(number), requires_grad=True) for number in range(3)]
    stored = [StoredInput(x, shelf) for x in inputs]
    for number in (2, 1, 0):
        x = stored[number].take()
        assert torch.equal(x, inputs[number].detach()) and x is not inputs[number] and not x.requires_grad
        assert [place for place in range(3) if stored[place]._fetched is not None] == ([number - 1] if number else [])


def test_inputs_that_nobody_wants_are_freed():
    """A pass whose backward is never asked for, as after an error, must not be held by the next one."""
    shelf = Shelf(SideStream(CPU))
    first = StoredInput(torch.ones(1), shelf)
    held, second = weakref.ref(first), StoredInput(torch.ones(1), shelf)
    del first
    assert held() is None and torch.equal(second.take(), torch.ones(1))


def test_weights_that_do_not_fit_leave_the_block_as_it_was():
    """Out of memory while the next block's weights are fetched: the block must not keep its own on the device."""
    blocks, rows = swapped(2)
    hosts = [block.weight for block in blocks]

    def fails(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    rows[1]._copied = fails
    with pytest.raises(torch.OutOfMemoryError), rows[0].on_device():
        pass
    assert all(block.weight is host for block, host in zip(blocks, hosts, strict=True))


class Gpu:
    """Streams and events of a GPU that write what they do into a list; its computation runs only when the host waits for it.

    Attributes:
        log: what was done.
        given: what it was given to compute.
        finished: how much of that is certainly done.
    """

    def __init__(self):
        self.log, self.given, self.finished = [], [], 0
        self.streams = [self.stream()]

    def stream(self, device=None):
        return SimpleNamespace(
            name="compute" if device is None else "side",
            wait_event=lambda event: self.log.append(f"{self.streams[-1].name} waits for event {event.number} of {event.of}"),
            synchronize=self.finish,
        )

    def event(self):
        event = SimpleNamespace(of=None, number=None, sees=0)

        def record():
            event.of, event.number = self.streams[-1].name, sum(entry.startswith("event") for entry in self.log)
            event.sees = len(self.given) if event.of == "compute" else 0
            self.log.append(f"event {event.number} of {event.of}")

        def synchronize():
            self.log.append(f"host waits for event {event.number}")
            self.finished = max(self.finished, event.sees)

        event.record, event.synchronize = record, synchronize
        return event

    @contextlib.contextmanager
    def within(self, stream):
        self.streams.append(stream)
        yield
        self.streams.pop()

    def finish(self):
        self.log.append("host waits for compute")
        self.finished = len(self.given)


@pytest.fixture
def gpu(monkeypatch):
    gpu = Gpu()
    names = {"Stream": gpu.stream, "Event": gpu.event, "stream": gpu.within, "current_stream": lambda: gpu.streams[-1]}
    monkeypatch.setattr(host_memory.torch, "cuda", SimpleNamespace(**names))
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: gpu.log.append(f"memory is kept for {stream.name}"))
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    return gpu


def test_copies_run_beside_the_computation_which_waits_for_them_only(gpu):
    side, x = SideStream(torch.device("cuda")), torch.ones(2)
    copies = side.copy(lambda: gpu.log.append("copy") or [x], source=x)
    assert gpu.log == ["host waits for compute", "memory is kept for side", "copy", "event 0 of side"]
    gpu.log.clear()
    assert copies.ready() == [x] and gpu.log == ["compute waits for event 0 of side"]


@pytest.mark.parametrize("offload", [False, True])
def test_weights_of_two_blocks_lie_on_the_device_at_most(gpu, monkeypatch, offload):
    """The host queues a whole pass at once; what it has queued holds its weights until it was computed."""
    side = SideStream(torch.device("cuda"))
    _, rows = swapped(5, side)
    alive, shelf = [], Shelf(side)
    copied = SwappedWeights._copied

    def count(self, host):
        running = {rows.index(self), *(index for index, row in enumerate(rows) if row._fetched is not None)}
        alive.append(len(running | set(gpu.given[gpu.finished :]) | {current}))
        return copied(self, host)

    monkeypatch.setattr(SwappedWeights, "_copied", count)
    stored = []
    for current in range(5):
        if offload:
            stored.append(StoredInput(torch.ones(1), shelf))
        with rows[current].on_device():
            gpu.given.append(current)
    for current in reversed(range(5)):
        if offload:
            stored.pop().take()
        with rows[current].on_device(backward=True):
            gpu.given.append(current)
    assert len(alive) == 10 and max(alive) == 2


def test_an_input_has_left_the_device_before_the_next_one_leaves(gpu):
    """Else, where copies are slower than blocks, ever more inputs would lie there."""
    shelf = Shelf(SideStream(torch.device("cuda")))
    stored = [StoredInput(torch.ones(1), shelf) for _ in range(2)]
    waits = [entry for entry in gpu.log if entry.startswith(("host", "event"))]
    assert waits == [
        "host waits for compute",
        "event 0 of side",
        "host waits for event 0",
        "host waits for compute",
        "event 1 of side",
    ]
    assert len(stored) == 2
