"""Weights and block inputs in host memory: what is copied when, and beside what. A GPU's streams are played by a log."""

import contextlib
import itertools
import weakref
from types import SimpleNamespace

import pytest
import torch

from training.model import host_memory
from training.model.host_memory import AHEAD, Shelf, SideStream, StoredInput, SwappedWeights

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


@pytest.fixture
def cuda(monkeypatch):
    """Let streams and events of a GPU write what they do into a list."""
    log = []

    class Stream:
        def __init__(self, name="compute"):
            self.name = "side" if isinstance(name, torch.device) else name

        def wait_stream(self, other):
            log.append(f"{self.name} waits for {other.name}")

        def wait_event(self, event):
            log.append(f"{self.name} waits for event {event.number} of {event.stream}")

    class Event:
        def record(self):
            self.stream, self.number = streams[-1].name, sum(entry.startswith("event") for entry in log)
            log.append(f"event {self.number} of {self.stream}")

        def synchronize(self):
            log.append(f"host waits for event {self.number}")

    @contextlib.contextmanager
    def within(stream):
        streams.append(stream)
        yield
        streams.pop()

    streams = [Stream()]
    fake = SimpleNamespace(Stream=Stream, Event=Event, stream=within, current_stream=lambda: streams[-1])
    monkeypatch.setattr(host_memory.torch, "cuda", fake)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, stream: log.append(f"memory is kept for {stream.name}"))
    return log


def test_copies_run_beside_the_computation_which_waits_for_them_only(cuda):
    side, x = SideStream(torch.device("cuda")), torch.ones(2)
    copies = side.copy(lambda: cuda.append("copy") or [x], source=x)
    assert cuda == ["side waits for compute", "memory is kept for side", "copy", "event 0 of side"]
    cuda.clear()
    side.copy(lambda: cuda.append("copy") or [x])
    assert cuda == ["copy", "event 0 of side"], "weights depend on nothing that is computed"
    cuda.clear()
    assert copies.ready() == [x] and cuda == ["compute waits for event 0 of side"]


def test_the_host_runs_two_blocks_ahead_at_most(cuda):
    """Everything that is on its way takes memory; without a limit a whole forward pass would be."""
    side = SideStream(torch.device("cuda"))
    for _ in range(6):
        side.copy(lambda: [torch.ones(1)])
        side.mark_used()
    assert sum(entry.startswith("host waits") for entry in cuda) == 6 - AHEAD - 1
