"""A video file that grows clip by clip: when it is joined anew, and what happens while a player holds it open."""

import contextlib
import logging
import time
from collections.abc import Callable, Generator
from pathlib import Path

_JOIN_SHARE = 0.05  # of the run's time that joining the growing file may take
_log = logging.getLogger(__name__)


def is_due(join_seconds: float, started: float) -> bool:
    """Return whether a growing file may be joined again, after joins of `join_seconds` since time.monotonic() `started`."""
    return join_seconds <= _JOIN_SHARE * (time.monotonic() - started)


def timed_join(join: Callable[[], object], what: str) -> float:
    """Call `join` and return the seconds it took; if it fails (on Windows, a player holds the file), log that of `what`."""
    began = time.monotonic()
    try:
        join()
    except OSError as error:
        _log.warning("SVI: %s could not be refreshed (%s); its clips are safe.", what, error)
    return time.monotonic() - began


@contextlib.contextmanager
def removing(path: Path, finished: Path) -> Generator[None, None, None]:
    """Log an OSError of the block, which removes the growing file `path`: the `finished` video is complete without that."""
    try:
        yield
    except OSError as error:
        _log.warning("SVI: %s could not be removed (%s); the finished video is %s.", path, error, finished.name)
