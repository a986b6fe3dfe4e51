"""Kill a process again and again, at moments that follow from a seed, and let a test look at what is left."""

import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

COMMITS = ("replace", "fsync", "unlink")  # of os: what changes a folder for good


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

    def each_round(self, what: str, check: Callable[[Random], None]) -> None:
        """Run `check` with the source of moments of each round; a round that fails says how to repeat it."""
        start, number = time.monotonic(), 0
        while number < self.rounds or time.monotonic() - start < self.seconds:
            try:
                check(Random(self.seed + number))
            except BaseException as error:
                how = "" if self.by_time else " --commits-only"
                error.add_note(f"To repeat it: python -m tests.kill {what} --seed {self.seed + number} --rounds 1{how}")
                raise
            number += 1
        killed, seconds = sum(self.num_killed), time.monotonic() - start
        sys.stdout.write(f"\n{what}: {number} rounds, {killed} kills in {seconds:.0f} s, from seed {self.seed}\n")
        assert number and killed, "nothing was killed, so nothing was examined"

    def kill(self, work: Callable[[], object], chance: Random, seconds: float, num_commits: int) -> None:
        """Do `work` in a forked process that dies as by kill -9, after a time or at a call that changes a folder.

        Args:
            seconds: that `work` takes, about.
            num_commits: calls of functions in COMMITS that it makes, about.
        """
        moment, commit = chance.uniform(0, seconds), chance.randrange(num_commits)
        after, by_time = (chance.random() < 0.5 for _ in range(2))
        by_time = by_time and self.by_time
        child = os.fork()
        if child == 0:
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what dies is silent
                if not by_time:
                    _die_at_commit(commit, after)
                work()
                os._exit(0)
            finally:
                os._exit(99)
        if by_time:
            time.sleep(moment)
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert status in (0, -signal.SIGKILL), f"the process failed by itself: {status}"
        self.num_killed.append(int(status != 0))


def _die_at_commit(number: int, after: bool) -> None:
    """Kill this process at its call `number` (0-based) of a function in COMMITS, before it acts or after."""
    calls = [0]

    def dying(function: Callable) -> Callable:
        def call(*arguments, **options):
            calls[0] += 1
            is_last = calls[0] == number + 1
            if is_last and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **options)
            if is_last:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    for name in COMMITS:
        setattr(os, name, dying(getattr(os, name)))
