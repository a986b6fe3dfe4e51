"""Items that one thread makes and another thread writes, with a bounded queue in between.

The maker goes on as soon as its last item is queued. If the maker fails, the writer stops too; the writer's error is raised
in the maker's thread.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_POLL_SECONDS = 0.2  # how often a maker that waits for room checks that the writer is alive


class Withdrawn(Exception):
    """Raised by the writer's iterator when the maker failed and no more items come."""


class BackgroundWriter(Generic[T]):
    """A thread that runs `write` on the items it is given."""

    def __init__(self, write: Callable[[Iterator[T]], None], capacity: int):
        """Start `write` with an iterator over the items; at most `capacity` of them wait for it."""
        self._write = write
        self._queue: queue.Queue[T | StopIteration | Withdrawn] = queue.Queue(capacity)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="svi-background-writer", daemon=True)
        self._thread.start()

    def give(self, items: Iterable[T]) -> None:
        """Queue `items`, waiting while the queue is full. Call :meth:`end` afterwards.

        Raises:
            Whatever `items` raises, after `write` has stopped; whatever `write` raised, if it stopped early.
        """
        try:
            for item in items:
                if not self._put(item):
                    break
        except BaseException:
            self._put(Withdrawn())
            self._thread.join()
            raise
        if not self._thread.is_alive():
            self.wait()

    def end(self) -> None:
        """Tell the writer that it has all items; it writes those that are queued."""
        self._put(StopIteration())

    def wait(self) -> None:
        """Return when `write` has returned.

        Raises:
            Whatever `write` raised.
        """
        self._thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _put(self, item: T | StopIteration | Withdrawn) -> bool:
        """Queue `item` and return True, or False if the writer has stopped."""
        while self._thread.is_alive():
            try:
                self._queue.put(item, timeout=_POLL_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    def _run(self) -> None:
        try:
            self._write(self._items())
        except Withdrawn:
            pass  # the maker raises its own error
        except BaseException as error:
            self._error = error

    def _items(self) -> Iterator[T]:
        while not isinstance(item := self._queue.get(), StopIteration):
            if isinstance(item, Withdrawn):
                raise item
            yield item
