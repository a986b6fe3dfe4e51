"""Check widget values when a graph is queued, before any model loads."""

from collections.abc import Callable


def complaint(check: Callable[..., object], *values: object) -> bool | str:
    """Return the error message of `check(*values)`, or True.

    A linked input is None, since its value is not known yet; `execute` checks it later.
    """
    if any(value is None for value in values):
        return True
    try:
        check(*values)
    except ValueError as error:
        return str(error)
    return True
