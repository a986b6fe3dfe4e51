"""Look at something again and again, beside the work that changes it."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def looking(look: Callable[[], object], every: float) -> Iterator[None]:
    """Call `look` in a thread within the block, at least once, with pauses of `every` seconds."""
    over = threading.Event()

    def run() -> None:
        while True:
            look()
            if over.wait(every):
                return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
