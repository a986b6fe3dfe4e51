"""A campaign: examples of one family from a seed, for a time; a failure ends with the command that repeats it."""

import json
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import hypothesis
from hypothesis.strategies import SearchStrategy

Example = TypeVar("Example")
MAX_SENTENCE = 700  # characters; paths of temporary folders are long
_NO_SENTENCES = (UnicodeError, json.JSONDecodeError)  # Python's own words, which name no file and no fix


class TookTooLongError(BaseException):
    """An example that does not end; no `except Exception` of the code in question hides it."""


@dataclass(frozen=True)
class Campaign:
    """How long to try examples, and from which seed.

    Attributes:
        seed: of the first batch; batch k has seed + k.
        seconds: to begin new batches.
        batches: how many batches to try, whatever time they take; 0 goes by the time.
    """

    seed: int
    seconds: float
    batches: int = 0

    def run(
        self,
        family: str,
        examples: SearchStrategy[Example],
        check: Callable[[Example], str],
        outcomes: Collection[str],
        *,
        batch: int = 200,
        at_least: int = 30,
        limit: float = 30.0,
        shrinks: bool = True,
    ) -> int:
        """Check examples of `family` and return how many.

        Args:
            check: the oracle; it returns the kind of outcome, or raises.
            outcomes: kinds that a campaign by time must see, or it has examined nothing worth it.
            batch: examples that come from one seed.
            at_least: examples that a campaign by time checks even when the time is over.
            limit: seconds that one example may take.
            shrinks: look for the smallest example that fails.
        """
        seen: Counter[str] = Counter()
        start, number = time.monotonic(), 0

        def is_over() -> bool:
            return not self.batches and seen.total() >= at_least and time.monotonic() - start > self.seconds

        while number < self.batches if self.batches else not is_over():
            _run_batch(family, self.seed + number, examples, check, seen, is_over, (batch, limit, shrinks))
            number += 1
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(seen.items()))
        sys.stdout.write(
            f"\n{family}: {seen.total()} examples ({kinds}) in {time.monotonic() - start:.0f} s, seed {self.seed}\n"
        )
        if not self.batches:
            assert seen.total() >= at_least, f"{family}: {seen.total()} examples are too few to say anything"
            assert not set(outcomes) - seen.keys(), f"{family}: no example was {set(outcomes) - seen.keys()}, only {dict(seen)}"
        return seen.total()


def _run_batch(family, seed, examples, check, seen, is_over, how) -> None:
    num_examples, limit, shrinks = how
    failed = []

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=num_examples,
        deadline=None,
        database=None,
        phases=[hypothesis.Phase.generate, *([hypothesis.Phase.shrink] if shrinks else [])],
        suppress_health_check=list(hypothesis.HealthCheck),
        report_multiple_bugs=False,
    )
    @hypothesis.given(examples)
    def examine(example):
        if is_over() and not failed:  # a failure is looked into to its end
            return
        try:
            with _time_limit(limit):
                outcome = check(example)
        except hypothesis.errors.UnsatisfiedAssumption:
            raise
        except BaseException:
            failed.append(True)
            raise
        seen[outcome] += 1

    try:
        examine()
    except BaseException as error:
        error.add_note(f"To repeat it: python -m tests.fuzz {family} --seed {seed} --batches 1")
        raise


def require_sentence(error: Exception, *names: str) -> None:
    """Check that `error` is what a user can act on: our own words, short, with every name in `names`."""
    text = str(error)
    assert isinstance(error, ValueError | OSError) and not isinstance(error, _NO_SENTENCES), repr(error)
    assert text and len(text) <= MAX_SENTENCE, f"{len(text)} characters: {text[:200]}"
    assert " " in text and "codec can't" not in text and "object has no" not in text, text
    assert all(name in text for name in names), f"{names} are not in: {text}"


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """Raise TookTooLongError in a block that does not end. Windows has no such signal: there a hang is a hang."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def ring(*_) -> None:
        raise TookTooLongError(f"an example took over {seconds:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
