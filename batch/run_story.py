"""Make one story on one server. Whoever places stories, threads here or workers of a cluster, calls `run_story`.

It may be called again after any kill, also by another process: what is finished is not made again, and a prompt that the
server still has is waited for instead of queued twice.
"""

from __future__ import annotations

import math
import time
import urllib.error
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from batch.fetch import FileGone, NoVideo, fetch_results
from batch.prepare import FOLDER, PreparedStory
from batch.records import DONE, FAILED, QUEUED, STOPPED, OutputFolder, Record
from batch.workflow.addresses import generators
from comfyui.client import (
    ComfyClient,
    Event,
    Events,
    ExecutionFailed,
    ExecutionInterrupted,
    PromptRejected,
    ServerError,
    outputs_of,
)

POLL_SECONDS = 5.0  # between questions to a server whose events do not come
_EVENT_SECONDS = 0.5  # so long until a wish to stop is noticed
_LATE_SECONDS = 2.0  # so long are a finished story's last events waited for
_STOP_SECONDS = 300.0  # to decode and store a clip that was just finished
_ENDS = ("execution_success", "execution_error", "execution_interrupted", "executing")
_CLIP = "svi.clip"  # the event of nodes/clip_panel.py
_ATTEMPTS = 3  # at what may pass, such as a lack of memory
_REST_SECONDS = 3.0  # before another attempt: for the server to free memory, and perhaps for others on its card
_FOLDER_IN_USE = "is in use by process"  # of a server that was taken for lost, and ends a clip before it ends
_IN_USE_SECONDS = 900.0  # so long is that waited for
_MOST_SILENT = 10  # questions in a row that a busy server leaves unanswered, each for a minute


class Stopped(Exception):
    """The user wishes to end."""


class StoryFailed(RuntimeError):
    """A story failed, and would fail again."""


@dataclass(frozen=True)
class Control:
    """How a story tells of itself, and learns that it must end.

    Attributes:
        should_stop: whether the user wishes to end.
        tell: called once the server has the story, and then with the share of it that is done, 0 to 1.
    """

    should_stop: Callable[[], bool] = lambda: False
    tell: Callable[[float], None] = lambda _: None


def run_story(prepared: PreparedStory, server: ComfyClient, folder: OutputFolder, control: Control) -> Record:
    """Make the video of a story and return its record, which is also on disk; at once if the video is there.

    Raises:
        StoryFailed: it would fail again; the record says why.
        Stopped: as the user wishes; finished clips are kept by the server.
        OSError, ServerError: the server is away or was restarted: call again, or with another server.
    """
    name = prepared.story.name
    known = folder.record(name)
    if known is not None and folder.is_made(name, prepared.key):
        return known
    attempts = known.attempts if known is not None and known.key == prepared.key and known.status == QUEUED else 0
    num_failures, in_use_until = 0, math.inf
    while True:
        record = _adopted(known, prepared, server) or _new_record(prepared, server, attempts + 1)
        try:
            return _attempt(prepared, record, server, folder, control)
        except (PromptRejected, ExecutionFailed, ExecutionInterrupted, StoryFailed, NoVideo, FileGone) as error:
            folder.log(name, f"failed: {error}" + (f"\n{error.traceback}" if isinstance(error, ExecutionFailed) else ""))
            is_in_use = isinstance(error, ExecutionFailed) and _FOLDER_IN_USE in error.exception_message
            if is_in_use:
                in_use_until = min(in_use_until, time.monotonic() + _IN_USE_SECONDS)
                goes_on = time.monotonic() < in_use_until
            else:
                num_failures += 1
                goes_on = num_failures < _ATTEMPTS and _may_pass(error, is_adopted=bool(record.updated))
            if not goes_on:
                folder.write_record(name, replace(record, status=FAILED, error=str(error)))
                raise StoryFailed(str(error)) from error
            if not is_in_use:
                server.post_json("/free", {"unload_models": True, "free_memory": True})
            known, attempts = None, record.attempts
            _rest(control)


def _may_pass(error: Exception, is_adopted: bool) -> bool:
    """Whether another attempt may succeed; an adopted prompt was perhaps interrupted by the command that was killed."""
    if isinstance(error, ExecutionFailed):
        return "OutOfMemory" in error.exception_type
    return isinstance(error, FileGone) or (is_adopted and isinstance(error, ExecutionInterrupted))


def _new_record(prepared: PreparedStory, server: ComfyClient, attempts: int) -> Record:
    values = {column: cell.value for column, cell in prepared.story.cells.items()}
    return Record(QUEUED, prepared.key, values, server.url, str(uuid.uuid4()), prepared.num_clips, attempts)


def _adopted(known: Record | None, prepared: PreparedStory, server: ComfyClient) -> Record | None:
    """Return the record of a prompt that the server has already, queued by a command that was killed."""
    if known is None or known.key != prepared.key or not known.prompt_id or known.status != QUEUED:
        return None
    is_known = server.is_queued(known.prompt_id) or server.history(known.prompt_id) is not None
    return replace(known, server=server.url) if is_known else None


def _attempt(prepared: PreparedStory, record: Record, server: ComfyClient, folder: OutputFolder, control: Control) -> Record:
    name = prepared.story.name
    started = time.monotonic()
    with server.events(record.prompt_id) as events:  # under the same name as a command that was killed: its events come here
        if not record.updated:  # else adopted
            _upload(prepared, server)
            folder.write_record(name, record)  # before it is queued, so that no kill makes it run twice
            folder.write_graph(name, prepared.graph)
            prompt_id = server.queue(prepared.graph, record.prompt_id, record.prompt_id)
            if prompt_id != record.prompt_id:  # a server that gives ids of its own
                record = replace(record, prompt_id=prompt_id)
                folder.write_record(name, record)
        folder.log(name, f"{'found' if record.updated else 'queued'} on {server.url} as {record.prompt_id}")
        control.tell(0.0)
        try:
            outputs = _follow(prepared, record, server, events, folder, control)
        except Stopped:
            _interrupt(server, record.prompt_id)
            known = folder.record(name)
            if known is None or known.prompt_id == record.prompt_id:  # else another worker has the story now
                folder.write_record(name, replace(record, status=STOPPED))
            folder.log(name, "stopped")
            raise
    video, files = fetch_results(prepared, outputs, server, folder)
    record = replace(record, status=DONE, video=video, files=files, seconds=time.monotonic() - started)
    folder.write_record(name, record)
    folder.log(name, f"done in {record.seconds:.1f} s: {video['file']}")
    return record


def _follow(
    prepared: PreparedStory, record: Record, server: ComfyClient, events: Events, folder: OutputFolder, control: Control
) -> Mapping[str, Mapping[str, Any]]:
    """Return the outputs of a prompt once it has ended.

    Raises:
        ServerError: the server does not know it any more.
    """
    runs = set(generators(prepared.graph))
    next_poll, num_silent, has_ended = 0.0, 0, False
    while True:
        if control.should_stop():
            raise Stopped
        news = events.wait(_EVENT_SECONDS)
        _tell_progress(news, runs, control)
        _log_clips(news, prepared, folder)
        has_ended = has_ended or _have_the_end(news, record)
        if not has_ended and events.is_connected and time.monotonic() < next_poll:
            continue
        next_poll = time.monotonic() + POLL_SECONDS
        try:
            entry = end_of(record.prompt_id, server)
        except (TimeoutError, urllib.error.URLError) as error:
            num_silent += 1
            if num_silent >= _MOST_SILENT or not is_busy(error):
                raise
            continue
        num_silent = 0
        if entry is not None:
            if not has_ended:
                _log_late_clips(events, prepared, record, folder)
            outputs = outputs_of(entry)
            control.tell(1.0)
            return outputs


def _have_the_end(news: Iterable[Event], record: Record) -> bool:
    """Whether events say that a prompt has ended; "executing" does so where it names no node."""
    return any(
        kind in _ENDS and data.get("prompt_id") == record.prompt_id and not (kind == "executing" and data.get("node"))
        for kind, data in news
    )


def _log_late_clips(events: Events, prepared: PreparedStory, record: Record, folder: OutputFolder) -> None:
    """Log the clips whose events are on their way while the history has the end; the event of the end comes behind them.

    Events of others may never cease, and the end's own be lost with a connection, so this has a limit.
    """
    limit = time.monotonic() + _LATE_SECONDS
    while time.monotonic() < limit and (news := events.wait(_EVENT_SECONDS)):
        _log_clips(news, prepared, folder)
        if _have_the_end(news, record):
            return


def end_of(prompt_id: str, server: ComfyClient) -> dict[str, Any] | None:
    """Return the history of a prompt, or None if it has not ended. Raises ServerError if the server does not know it."""
    entry = server.history(prompt_id)
    if entry is None and not server.is_queued(prompt_id):
        entry = server.history(prompt_id)  # it may have ended between the two questions
        if entry is None:
            raise ServerError("the server was restarted and has forgotten the story")
    return entry


def is_busy(error: OSError) -> bool:
    """Whether a server took too long to answer, as while it reads a large model, but is not known to be away."""
    return isinstance(error, TimeoutError) or isinstance(getattr(error, "reason", None), TimeoutError)


def _tell_progress(news: Iterable[Event], runs: set[str], control: Control) -> None:
    """Tell the share of all runs of the graph that is done; the state of every node is in each event."""
    for kind, data in news:
        states = data.get("nodes", {}) if kind == "progress_state" else {}
        done = [_share(states[key]) for key in runs & states.keys()]
        if done:
            control.tell(sum(done) / len(runs))


def _share(state: Mapping[str, Any]) -> float:
    if state["state"] == "finished":
        return 1.0
    return state["value"] / state["max"] if state["max"] > 0 else 0.0


def _log_clips(news: Iterable[Event], prepared: PreparedStory, folder: OutputFolder) -> None:
    """Log each clip that SVI Generate tells to be finished; it tells every client of all runs."""
    prefixes = {key: prepared.graph[key]["inputs"].get("filename_prefix") for key in generators(prepared.graph)}
    runs = {prefix: key for key, prefix in prefixes.items() if isinstance(prefix, str)}  # what a link brings is not known here
    for kind, data in news:
        if kind == _CLIP and (key := runs.get(str(data.get("run")))) is not None:
            of = f" of node {key}" if len(prefixes) > 1 else f" of {prepared.num_clips}" if prepared.num_clips else ""
            reused = ", made before" if data.get("reused") else ""
            folder.log(prepared.story.name, f"clip {data['index'] + 1}{of} is there{reused}")


def _interrupt(server: ComfyClient, prompt_id: str) -> None:
    """End a prompt, running or waiting, and wait until the clip that was just finished is stored."""
    server.post_json("/queue", {"delete": [prompt_id]})
    server.interrupt(prompt_id)
    deadline = time.monotonic() + _STOP_SECONDS
    while server.is_queued(prompt_id) and time.monotonic() < deadline:
        time.sleep(0.2)


def _upload(prepared: PreparedStory, server: ComfyClient) -> None:
    """Send the story's files. Raises StoryFailed if the server refuses one."""
    for name, file in prepared.uploads.items():
        try:
            server.upload(file, name, FOLDER)
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                raise
            raise StoryFailed(
                f"{server.url} takes no file as large as {file} ({file.stat().st_size >> 20} MB): start it with a larger "
                "--max-upload-size, or use a smaller file"
            ) from error


def _rest(control: Control) -> None:
    """Wait for _REST_SECONDS. Raises Stopped if the user wishes to end."""
    end = time.monotonic() + _REST_SECONDS
    while time.monotonic() < end:
        if control.should_stop():
            raise Stopped
        time.sleep(0.1)
