"""Spread stories over servers: one thread per server, one story at a time on each.

`batch.ray_cluster` is the other way to place them. Both need `run_story` alone, which may run anywhere, any number of times.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable, Sequence

from batch.prepare import PreparedStory
from batch.run_story import Control, Stopped, StoryFailed, run_story
from batch.work import Batch
from comfyui.client import NETWORK_ERRORS, ComfyClient, ServerError
from comfyui.server import ComfyServer

IDLE_SECONDS = 0.2  # between two looks of a server without a story
BACK_OFF_SECONDS = (1.0, 4.0, 15.0, 60.0, 120.0, 300.0)  # before each further try of a server that is away


def run_batch(batch: Batch, servers: Sequence[ComfyClient]) -> None:
    """Make all stories of `batch`; returns when every story is made, failed, or has no server left.

    Ctrl-C ends the running stories in order, and then raises KeyboardInterrupt; a second one does not wait.
    """
    threads = [threading.Thread(target=_serve, args=(batch, server), daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    try:
        _wait_for(threads, batch)
    except KeyboardInterrupt:
        batch.should_stop.set()
        batch.progress.say("ending: the clips that are finished are kept (Ctrl-C again to leave at once)")
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
        was_taken = threading.Event()
        try:
            _make(batch, prepared, server, was_taken.set)
            num_failures = 0
        except Stopped:
            return
        except (*NETWORK_ERRORS, ServerError) as error:
            batch.lose(prepared.story.name, server.url, line_of(error))
            num_failures = 1 if was_taken.is_set() else num_failures + 1
            if not _is_back(batch, server, url, num_failures, error):
                batch.lost_servers[url] = line_of(error)
                return


def _make(batch: Batch, prepared: PreparedStory, server: ComfyClient, note_taken: Callable[[], None]) -> None:
    name = prepared.story.name
    batch.progress.begin(name, server.url)

    def tell(done: float) -> None:
        note_taken()
        batch.progress.advance(name, done)

    try:
        batch.end_well(name, run_story(prepared, server, batch.folder, Control(batch.should_stop.is_set, tell)))
    except StoryFailed as error:
        batch.fail(name, str(error))
    except (*NETWORK_ERRORS, ServerError):
        raise
    except Stopped:
        batch.progress.drop(name)
        raise
    except Exception as error:  # a full disk here, or a mistake of ours: the other stories go on
        batch.folder.log(name, traceback.format_exc())
        batch.fail(name, f"{type(error).__name__}: {error}")


def _is_back(batch: Batch, server: ComfyClient, url: str, num_failures: int, error: Exception) -> bool:
    """Wait a while; return whether the server may be asked again. One of ours that died is started again."""
    if num_failures > len(BACK_OFF_SECONDS):
        batch.progress.say(f"{server.url} stays away: {error}")
        return False
    seconds = BACK_OFF_SECONDS[num_failures - 1]
    batch.progress.say(f"{server.url}: {line_of(error)}; trying again in {seconds:.0f} s")
    if not _rest(batch, url, seconds):
        return False
    return _restarted(batch, server) if isinstance(server, ComfyServer) and not server.is_running else True


def _rest(batch: Batch, url: str, seconds: float) -> bool:
    """Wait; return False, at once, if there is nothing more to do for a server."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        if batch.should_stop.wait(min(left, IDLE_SECONDS)) or not batch.has_more_for(url):
            return False
    return True


def line_of(error: Exception) -> str:
    """Return the first line of an error's message, or its kind."""
    return (str(error) or type(error).__name__).splitlines()[0]


def _restarted(batch: Batch, server: ComfyServer) -> bool:
    try:
        server.start()
    except ServerError as error:
        batch.progress.say(f"ComfyUI does not start again: {error}")
        return False
    batch.progress.say(f"started ComfyUI again: {server.url}")
    return True
