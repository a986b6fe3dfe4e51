"""Count the work of a call in steps, which are the same on every machine; seconds are not."""

import inspect
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


def num_steps(function: Callable[..., object], *arguments: object) -> int:
    """Return how many lines of Python run in ``function(*arguments)``, plus the size of what each called function is given.

    So a loop counts, and so does a text or a list that is copied and handed on again and again. What one call of the standard
    library does in C does not count.
    """
    steps = 0

    def count(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal steps
        if event == "call" and not frame.f_code.co_flags & inspect.CO_GENERATOR:  # it is called again for each item
            given = frame.f_locals.values()
            steps += sum(len(value) for value in given if isinstance(value, str | bytes | list | tuple | dict | set))
        steps += 1
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        function(*arguments)
    finally:
        sys.settrace(before)
    return steps


def grows_in_proportion(function: Callable[[Any], object], make: Callable[[int], object], size: int = 250) -> bool:
    """Return whether 8 times as large an input of `function` takes about 8 times the steps; 64 would be quadratic."""
    small, large = (num_steps(function, make(number)) for number in (size, 8 * size))
    return large < 12 * small
