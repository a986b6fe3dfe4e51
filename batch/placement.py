"""Spread stories over servers: one thread per server, one story at a time on each.

`batch.ray_cluster` is the other way to place them. Both need `try_story` alone, which may run anywhere, any number of times.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from batch.outcome import LOST, line_of, try_story
from batch.run_story import Control
from batch.work import Batch
from batch.workflow.node_inputs import ObjectInfo
from comfyui.client import NETWORK_ERRORS, ComfyClient, ServerError
from comfyui.server import ComfyServer

ENDING = "ending: the clips that are finished are kept (Ctrl-C again to leave at once)"
IDLE_SECONDS = 0.2  # between two looks of a server without a story
BACK_OFF_SECONDS = (1.0, 4.0, 15.0, 60.0, 120.0, 300.0)  # before each further try of a server that is away


class Servers:
    """Servers with addresses, as a place for stories."""

    def __init__(self, servers: Sequence[ComfyClient]) -> None:
        self._servers = servers

    @property
    def names(self) -> list[str]:
        return [server.url for server in self._servers]

    def offers(self, say: Callable[[str], None]) -> Iterator[tuple[str, ObjectInfo]]:
        """Yield address and nodes of each server that answers."""
        for server in self._servers:
            try:
                yield server.url, server.object_info()
            except NETWORK_ERRORS as error:
                say(f"{server.url} does not say which nodes it has ({error}); going on without it")

    def make(self, batch: Batch) -> None:
        """Make all stories; return when every one is made, failed, or has no server left.

        Ctrl-C ends the running stories in order, and then raises KeyboardInterrupt; a second one does not wait.
        """
        batch.places |= {server.url: server.url for server in self._servers}
        threads = [threading.Thread(target=_serve, args=(batch, server), daemon=True) for server in self._servers]
        for thread in threads:
            thread.start()
        try:
            _wait_for(threads, batch)
        except KeyboardInterrupt:
            batch.should_stop.set()
            batch.progress.say(ENDING)
            _wait_for(threads, batch)
            raise


def _wait_for(threads: Sequence[threading.Thread], batch: Batch) -> None:
    while any(thread.is_alive() for thread in threads):
        time.sleep(0.05)
        batch.progress.show()


def _serve(batch: Batch, server: ComfyClient) -> None:
    """Make stories on one server until none is left, the user wishes to end, or the server stays away."""
    url = server.url  # of a server that is started again it changes, but not what it can make
    num_failures = 0  # one after the other, without a story that the server took
    while not batch.should_stop.is_set():
        prepared = batch.next_for(url)
        if prepared is None and batch.has_more_for(url):
            batch.should_stop.wait(IDLE_SECONDS)
            continue
        if prepared is None:
            return
        name, was_taken = prepared.story.name, threading.Event()
        batch.progress.begin(name, server.url)
        control = Control(batch.should_stop.is_set, partial(_tell, batch, name, was_taken))
        outcome = try_story(prepared, server, batch.folder, control)
        batch.note(name, url, outcome)
        if url not in batch.places:
            batch.progress.say(f"{server.url} is not asked any more: {batch.lost_places[url]}")
            return
        if outcome.status != LOST:
            num_failures = 0
            continue
        num_failures = 1 if was_taken.is_set() else num_failures + 1
        if why := _why_away(batch, server, url, num_failures, outcome.reason):
            batch.lose(url, why)
            return


def _tell(batch: Batch, name: str, was_taken: threading.Event, done: float) -> None:
    was_taken.set()
    batch.progress.advance(name, done)


def _why_away(batch: Batch, server: ComfyClient, url: str, num_failures: int, reason: str) -> str:
    """Wait a while; return the last reason, "" if the server may be asked again. One of ours that died is started again."""
    for seconds in BACK_OFF_SECONDS[num_failures - 1 :]:
        batch.progress.say(f"{server.url}: {reason}; trying again in {seconds:.0f} s")
        if not _rest(batch, url, seconds):
            return reason
        if not isinstance(server, ComfyServer) or server.is_running:
            return ""
        try:
            server.start()
        except (ServerError, OSError) as error:
            reason = f"ComfyUI does not start again: {line_of(error).rstrip(':')}"
        else:
            batch.progress.say(f"started ComfyUI again: {server.url}")
            return ""
    batch.progress.say(f"{server.url} stays away: {reason}")
    return reason


def _rest(batch: Batch, url: str, seconds: float) -> bool:
    """Wait; return False, at once, if there is nothing more to do for a server."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if batch.should_stop.wait(min(left, IDLE_SECONDS)) or not batch.has_more_for(url):
            return False
    return True
