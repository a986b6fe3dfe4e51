"""Spread stories over servers: one thread per server, one story at a time on each.

Another way to place work needs `run_story` alone: given a prepared story and a server it may run anywhere, any number of times.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from batch.prepare import PreparedStory
from batch.progress import Progress
from batch.records import FAILED, QUEUED, OutputFolder, Record
from batch.run_story import Control, Stopped, StoryFailed, run_story
from comfyui.client import NETWORK_ERRORS, ComfyClient, ServerError
from comfyui.server import ComfyServer

MOST_LOSSES = 5  # of servers, while one story runs
IDLE_SECONDS = 0.2  # between two looks of a server without a story
BACK_OFF_SECONDS = (1.0, 4.0, 15.0, 60.0, 120.0, 300.0)  # before each further try of a server that is away


@dataclass
class Batch:
    """What several servers work on.

    Attributes:
        waiting: name of a story -> url of each server that can make it -> the graph for that server.
        held_by: name of a story -> url of the server that still has it, from a command that was killed.
        made, failed: how the stories ended; a story without a server stays in `waiting`.
        lost_servers: url -> why it is not asked any more.
        lost_prompts: name of a story -> its prompts during which a server was lost.
    """

    waiting: dict[str, Mapping[str, PreparedStory]]
    folder: OutputFolder
    progress: Progress
    held_by: Mapping[str, str] = field(default_factory=dict)
    made: dict[str, Record] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    lost_servers: dict[str, str] = field(default_factory=dict)
    lost_prompts: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    should_stop: threading.Event = field(default_factory=threading.Event)
    _running: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next_for(self, url: str) -> PreparedStory | None:
        """Take the next story for a server: one that it has already, else one that no other living server has."""
        with self._lock:
            fitting = [name for name, graphs in self.waiting.items() if url in graphs]
            free = [name for name in fitting if self.held_by.get(name, url) in (url, *self.lost_servers)]
            name = next((name for name in free if name in self.held_by), next(iter(free), None))
            if name is None:
                return None
            self._running.add(name)
            return self.waiting.pop(name)[url]

    def put_back(self, name: str, graphs: Mapping[str, PreparedStory]) -> None:
        """Give a story back, to be taken first of all."""
        with self._lock:
            self.waiting = {name: graphs, **self.waiting}
            self._running.discard(name)

    def end(self, name: str) -> None:
        """Note that a story has ended, well or not."""
        with self._lock:
            self._running.discard(name)

    def may_come_back(self, url: str) -> bool:
        """Whether a server may get a story later: one that runs now, or that another server has, each of which may be lost."""
        with self._lock:
            return bool(self._running) or any(url in graphs for graphs in self.waiting.values())


def run_batch(batch: Batch, servers: Sequence[ComfyClient]) -> None:
    """Make all stories of `batch`; returns when every story is made, failed, or has no server left.

    Ctrl-C ends the running stories in order, and then raises KeyboardInterrupt; a second one does not wait.
    """
    graphs = dict(batch.waiting)
    threads = [threading.Thread(target=_serve, args=(batch, server, graphs), daemon=True) for server in servers]
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


def _serve(batch: Batch, server: ComfyClient, graphs: Mapping[str, Mapping[str, PreparedStory]]) -> None:
    """Make stories on one server until none is left, the user wishes to end, or the server stays away."""
    url = server.url  # of a server that is started again it changes, but not what it can make
    num_failures = 0
    while not batch.should_stop.is_set():
        prepared = batch.next_for(url)
        if prepared is None and batch.may_come_back(url):
            batch.should_stop.wait(IDLE_SECONDS)
            continue
        if prepared is None:
            return
        name = prepared.story.name
        try:
            _make(batch, prepared, server)
            num_failures = 0
        except Stopped:
            return
        except (*NETWORK_ERRORS, ServerError) as error:
            batch.folder.log(name, f"{server.url}: {error}")
            if not _is_given_up(batch, name, error):
                batch.put_back(name, graphs[name])
            num_failures += 1
            if not _is_back(batch, server, num_failures, error):
                batch.lost_servers[url] = _line_of(error)
                return


def _make(batch: Batch, prepared: PreparedStory, server: ComfyClient) -> None:
    name = prepared.story.name
    batch.progress.begin(name, server.url)
    control = Control(batch.should_stop.is_set, lambda done: batch.progress.advance(name, done))
    try:
        record = run_story(prepared, server, batch.folder, control)
    except StoryFailed as error:
        _fail(batch, name, str(error))
        return
    except (*NETWORK_ERRORS, ServerError, Stopped):
        batch.progress.drop(name)
        raise
    except Exception as error:  # a full disk here, or a mistake of ours: the other stories go on
        batch.folder.log(name, traceback.format_exc())
        _fail(batch, name, f"{type(error).__name__}: {error}")
        return
    batch.made[name] = record
    batch.end(name)
    batch.progress.end(name, f"{record.video['file']} in {record.seconds:.0f} s")


def _fail(batch: Batch, name: str, reason: str) -> None:
    batch.failed[name] = reason
    batch.progress.end(name, f"failed: {reason}")
    batch.end(name)


def _is_given_up(batch: Batch, name: str, error: Exception) -> bool:
    """Note that a server was lost; return whether the story is given up, since it seems to be what kills servers."""
    record = batch.folder.record(name)
    if record is None or record.status != QUEUED:
        return False
    lost = batch.lost_prompts[name]
    lost.add(record.prompt_id)
    if len(lost) < MOST_LOSSES:
        return False
    reason = f"its server was lost {len(lost)} times while it was made ({_line_of(error)}); the log of the server may say why"
    batch.folder.write_record(name, replace(record, status=FAILED, error=reason))
    _fail(batch, name, reason)
    return True


def _is_back(batch: Batch, server: ComfyClient, num_failures: int, error: Exception) -> bool:
    """Wait a while; return whether the server may be asked again. One of ours that died is started again."""
    if num_failures > len(BACK_OFF_SECONDS):
        batch.progress.say(f"{server.url} stays away: {error}")
        return False
    seconds = BACK_OFF_SECONDS[num_failures - 1]
    batch.progress.say(f"{server.url}: {_line_of(error)}; trying again in {seconds:.0f} s")
    if batch.should_stop.wait(seconds):
        return False
    return _restarted(batch, server) if isinstance(server, ComfyServer) and not server.is_running else True


def _line_of(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _restarted(batch: Batch, server: ComfyServer) -> bool:
    try:
        server.start()
    except ServerError as error:
        batch.progress.say(f"ComfyUI does not start again: {error}")
        return False
    batch.progress.say(f"started ComfyUI again: {server.url}")
    return True
