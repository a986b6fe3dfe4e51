"""Kill a process again and again, at moments that follow from a seed, and let a test look at what is left."""

import builtins
import io
import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

CALLS = ("replace", "rename", "fsync", "unlink", "mkdir", "rmdir")  # of os; the other moments are writes to files
Call = Callable[[], Any]


@dataclass(frozen=True)
class Cost:
    """What work takes that nothing disturbs.

    Attributes:
        seconds: of this machine.
        moments: calls that change a folder or a file.
    """

    seconds: float
    moments: int


@dataclass(frozen=True)
class Kills:
    """Rounds of kills.

    Attributes:
        seed: of the first round; round k has seed + k.
        seconds: to begin new rounds.
        rounds: that are made whatever time they take.
        by_time: half of the kills come after a random time; without it a round is the same every time.
        num_killed: processes that died, rather than ended before.
    """

    seed: int
    seconds: float
    rounds: int
    by_time: bool
    num_killed: list[int] = field(default_factory=list)

    @classmethod
    def of_this_process(cls, num_tests: int = 1) -> "Kills":
        """Return a few fixed rounds, or what `python -m tests.kill` asks for; `num_tests` tests share the time."""
        seconds = 60 * float(os.environ.get("SVI_KILL_MINUTES", "0")) / num_tests
        seed, rounds = int(os.environ.get("SVI_KILL_SEED", "14")), int(os.environ.get("SVI_KILL_ROUNDS", "3"))
        return cls(seed, seconds, rounds, by_time=os.environ.get("SVI_KILL_BY_TIME") == "1")

    def each_round(self, what: str, check: Callable[[Random], None], at_least: int = 0) -> None:
        """Run `check` with the source of moments of each round; a round that fails says how to repeat it.

        Args:
            at_least: processes that must die in each round, unless the time says when they do.
        """
        start, number = time.monotonic(), 0
        while number < self.rounds or time.monotonic() - start < self.seconds:
            before = sum(self.num_killed)
            try:
                check(Random(self.seed + number))
                killed = sum(self.num_killed) - before
                assert self.by_time or killed >= at_least, f"{killed} kills are too few to examine anything"
            except BaseException as error:
                how = "" if self.by_time else " --commits-only"
                error.add_note(f"To repeat it: python -m tests.kill {what} --seed {self.seed + number} --rounds 1{how}")
                raise
            number += 1
        killed, seconds = sum(self.num_killed), time.monotonic() - start
        sys.stdout.write(f"\n{what}: {number} rounds, {killed} kills in {seconds:.0f} s, from seed {self.seed}\n")
        assert number and killed, "nothing was killed, so nothing was examined"

    def kill(self, work: Callable[[], object], chance: Random, cost: Cost, share: float = 1.0) -> float:
        """Do `work` in a forked process that dies as by kill -9, after a time or at a call that changes a folder.

        Args:
            cost: of `work` from its beginning.
            share: of `work` that is left to do, about.

        Returns:
            The share that is left afterwards.
        """
        done = chance.uniform(0, share)
        after, by_time = (chance.random() < 0.5 for _ in range(2))
        by_time = by_time and self.by_time
        child = os.fork()
        if child == 0:
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what dies is silent
                with _at_moments(_keep_on if by_time else _dying(int(done * cost.moments), after)):
                    work()
                os._exit(0)
            finally:
                os._exit(99)
        if by_time:
            time.sleep(done * cost.seconds)
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, -signal.SIGKILL), f"the process failed by itself: {status}"
        self.num_killed.append(int(status != 0))
        return share - done


def measure(work: Callable[[], object]) -> Cost:
    """Do `work` undisturbed, and return what it takes."""
    calls = itertools.count()

    def counting(call: Call, half: Call) -> object:
        next(calls)
        return call()

    start = time.monotonic()
    with _at_moments(counting):
        work()
    return Cost(time.monotonic() - start, next(calls))


def _keep_on(call: Call, half: Call) -> object:
    return call()


def _dying(number: int, after: bool) -> Callable[[Call, Call], object]:
    """Return what kills this process at moment `number` (0-based): half done, or done."""
    calls = itertools.count()

    def dying(call: Call, half: Call) -> object:
        is_last = next(calls) == number
        if is_last and not after:
            half()
            os.kill(os.getpid(), signal.SIGKILL)
        try:
            return call()
        finally:  # also if the call is refused, as mkdir of what exists
            if is_last:
                os.kill(os.getpid(), signal.SIGKILL)

    return dying


@contextmanager
def _at_moments(visit: Callable[[Call, Call], object]) -> Iterator[None]:
    """Let `visit` make each call that changes a folder or a file.

    It gets the call, and one that does half of it: a write leaves half of its bytes, any other call does nothing. Of a buffered
    file only the first write is visited, or the hundreds of tensors in one file would hide everything else.
    """
    opened = io.open

    def visited(function: Callable) -> Callable:
        return lambda *arguments, **options: visit(lambda: function(*arguments, **options), lambda: None)

    def opening(file, *arguments, **options):
        result = opened(file, *arguments, **options)
        if isinstance(file, int) or not result.writable():  # a number is a pipe to another process
            return result
        write = result.write

        def writing(data):
            if not isinstance(result, io.RawIOBase):
                result.write = write
            return visit(lambda: write(data), lambda: (write(data[: len(data) // 2]), result.flush()))

        result.write = writing
        return result

    with pytest.MonkeyPatch.context() as patch:
        for name in CALLS:
            patch.setattr(os, name, visited(getattr(os, name)))
        patch.setattr(io, "open", opening)
        patch.setattr(builtins, "open", opening)
        yield
