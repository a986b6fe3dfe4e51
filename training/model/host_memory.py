"""Weights and activations that wait in host memory, copied beside the computation.

On a GPU copies run on a stream of their own, from and to pinned memory: a block's weights arrive while the block before it
computes, its input leaves while it computes, and comes back while the block behind it is differentiated. Frozen weights go one
way only: the host's copy stays as it is. Everything on its way takes memory, so before each copy the host waits until the
device has done all that it was given: it holds the weights of two blocks at most, and in the backward pass the inputs of two.
On a CPU copies happen at once, in the same order.
Source: docs/METHOD.md, 12.4 (trap 4: quantised weights in pinned memory).
"""

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class SideStream:
    """Where copies run beside the computation of one device."""

    def __init__(self, device: torch.device):
        self.is_cuda = device.type == "cuda"
        self._stream = torch.cuda.Stream(device) if self.is_cuda else None

    def copy(self, make: Callable[[], list[Tensor]], source: Tensor | None = None) -> "Copies":
        """Begin to copy once the computation so far is done: `make` copies and returns the copies.

        Args:
            source: what `make` reads, if it lies on the device; its memory stays until it was read.
        """
        if self._stream is None:
            return Copies(make(), None)
        torch.cuda.current_stream().synchronize()
        if source is not None:
            source.record_stream(self._stream)
        with torch.cuda.stream(self._stream):
            made = make()
            done = torch.cuda.Event()
            done.record()
        return Copies(made, done)


class Copies:
    """Tensors that are being copied.

    Attributes:
        tensors: for the side stream.
    """

    def __init__(self, tensors: list[Tensor], done: "torch.cuda.Event | None"):
        self.tensors, self._done = tensors, done

    def wait(self) -> None:
        """Let the host wait until they are there."""
        if self._done is not None:
            self._done.synchronize()

    def ready(self) -> list[Tensor]:
        """Return the tensors for the computation, which waits until they are there."""
        if self._done is not None:
            stream = torch.cuda.current_stream()
            stream.wait_event(self._done)
            for part in (part for tensor in self.tensors for part in _parts(tensor) if part.is_cuda):
                part.record_stream(stream)
        return self.tensors


class SwappedWeights:
    """The frozen weights of one block, in host memory except while :meth:`on_device` is open.

    Attributes:
        before, after: the blocks whose weights are fetched meanwhile, in the backward and in the forward pass.
    """

    def __init__(self, block: nn.Module, device: torch.device, side: SideStream):
        self.before: SwappedWeights | None = None
        self.after: SwappedWeights | None = None
        self._device, self._side = device, side
        self._places: list[tuple[nn.Module, str, nn.Parameter]] = []
        self._fetched: Copies | None = None
        for module in block.modules():
            for name, parameter in list(module._parameters.items()):
                if parameter is not None:
                    host = of_each_part(parameter.data, lambda part: part.cpu().pin_memory() if side.is_cuda else part.cpu())
                    module._parameters[name] = nn.Parameter(host, requires_grad=False)
                    self._places.append((module, name, module._parameters[name]))

    def fetch(self) -> None:
        """Begin to copy the weights to the device, unless that has begun."""
        if self._fetched is None:
            self._fetched = self._side.copy(lambda: [self._copied(host) for _, _, host in self._places])

    def _copied(self, host: nn.Parameter) -> Tensor:
        return of_each_part(host.data, lambda part: part.to(self._device, copy=True, non_blocking=True))

    @contextmanager
    def on_device(self, backward: bool = False) -> Iterator[None]:
        """Use copies of the weights on the device."""
        self.fetch()
        copies, self._fetched = self._fetched.ready(), None
        try:
            for (module, name, _), copied in zip(self._places, copies, strict=True):
                module._parameters[name] = nn.Parameter(copied, requires_grad=False)
            if (following := self.before if backward else self.after) is not None:
                following.fetch()
            yield
        finally:
            for module, name, host in self._places:
                module._parameters[name] = host

    def follow(self, before: "SwappedWeights") -> None:
        """Note which block runs before this one."""
        before.after, self.before = self, before


class StoredInput:
    """A block's input in host memory until its backward pass; the one stored before it is fetched meanwhile."""

    def __init__(self, x: Tensor, shelf: "Shelf"):
        self._device, self._side, self._fetched = x.device, shelf.side, None
        self._before = shelf.last
        if (before := self._stored_before()) is not None:
            before._host.wait()  # it has left the device
        shelf.last = weakref.ref(self)
        x = x.detach()

        def to_host() -> list[Tensor]:
            host = torch.empty(x.shape, dtype=x.dtype, device="cpu", pin_memory=x.is_cuda)
            return [host.copy_(x, non_blocking=True)]

        self._host = shelf.side.copy(to_host, source=x)

    def fetch(self) -> None:
        """Begin to copy it to the device, unless that has begun."""
        if self._fetched is None:
            (host,) = self._host.tensors  # written by the same stream
            self._fetched = self._side.copy(lambda: [host.to(self._device, copy=True, non_blocking=True)])

    def take(self) -> Tensor:
        """Return it on the device; the one before it is on its way then."""
        self.fetch()
        (x,) = self._fetched.ready()
        self._fetched = self._host = None
        if (before := self._stored_before()) is not None:
            before.fetch()
        return x

    def _stored_before(self) -> "StoredInput | None":
        return None if self._before is None else self._before()


class Shelf:
    """Where the blocks of one model store their inputs.

    Attributes:
        last: the input stored last.
    """

    def __init__(self, side: SideStream):
        self.side = side
        self.last: weakref.ref[StoredInput] | None = None


def of_each_part(tensor: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Return `change` of a tensor, or for a quantised tensor of each plain tensor inside it.

    A quantised tensor dequantises itself for operations that it does not know, such as `pin_memory`.
    """
    if not hasattr(tensor, "__tensor_flatten__"):
        return change(tensor)
    names, context = tensor.__tensor_flatten__()
    parts = {name: change(getattr(tensor, name)) for name in names}
    return type(tensor).__tensor_unflatten__(parts, context, tensor.size(), tensor.stride())


def _parts(tensor: Tensor) -> list[Tensor]:
    """Return the plain tensors inside a tensor."""
    if not hasattr(tensor, "__tensor_flatten__"):
        return [tensor]
    return [getattr(tensor, name) for name in tensor.__tensor_flatten__()[0]]
