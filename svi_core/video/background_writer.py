"""Items that one thread makes and a function in another thread takes, a bounded number of them waiting in between.

The maker goes on with other work as soon as the last item is handed over; what the taker still has to do with them costs it
nothing. Whatever stops the maker stops the taker, and the taker's error is raised in the maker's thread.
"""

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
_LOOK_SECONDS = 0.2  # how often a maker that waits for room looks whether the taker is still there


class Withdrawn(Exception):
    """Raised by the taker's iterator: the maker failed, no more items come."""


class HandOver(Generic[T]):
    """Items on their way from this thread to `take`, which runs in another one."""

    def __init__(self, take: Callable[[Iterator[T]], None], capacity: int):
        """Start `take`, which gets an iterator over the items; at most `capacity` items wait for it."""
        self._take = take
        self._items: queue.Queue[T | type[StopIteration] | Withdrawn] = queue.Queue(capacity)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="svi-hand-over", daemon=True)
        self._thread.start()

    def give(self, items: Iterable[T]) -> None:
        """Hand over `items`, waiting while there is no room. Call :meth:`end` afterwards.

        Raises:
            Whatever `items` raises, after `take` has stopped; whatever `take` raised, where it no longer takes.
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
        """Say that all items were handed over; `take` goes on with what it has."""
        self._put(StopIteration)

    def wait(self) -> None:
        """Return when `take` has returned.

        Raises:
            Whatever `take` raised.
        """
        self._thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _put(self, item) -> bool:
        """Put `item` in line and return whether there is still somebody to take it."""
        while self._thread.is_alive():
            try:
                self._items.put(item, timeout=_LOOK_SECONDS)
                return True
            except queue.Full:
                continue
        return False

    def _run(self) -> None:
        try:
            self._take(self._taken())
        except Withdrawn:
            pass  # the maker knows why
        except BaseException as error:
            self._error = error

    def _taken(self) -> Iterator[T]:
        while (item := self._items.get()) is not StopIteration:
            if isinstance(item, Withdrawn):
                raise item
            yield item
