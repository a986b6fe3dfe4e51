"""Make one story on one server. Whoever places stories, threads here or workers of a cluster, calls `run_story`.

It may be called again after any kill, also by another process: what is finished is not made again, and a prompt that the
server still has is waited for instead of queued twice.
"""

from __future__ import annotations

import shutil
import time
import urllib.error
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

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

VIDEO_SUFFIXES = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".gif")
POLL_SECONDS = 5.0  # between questions to a server that sends no events
_EVENT_SECONDS = 0.5  # so long until a wish to stop is noticed
_STOP_SECONDS = 300.0  # to decode and store a clip that was just finished
_ENDS = ("execution_success", "execution_error", "execution_interrupted", "executing")
_ATTEMPTS = 3  # at what may pass, such as a lack of memory


class Stopped(Exception):
    """The user wishes to end."""


class StoryFailed(RuntimeError):
    """A story failed, and would fail again."""


class _FileGone(ServerError):
    """The server names a result, from its cache, whose file was removed."""


@dataclass(frozen=True)
class Control:
    """How a story tells of itself, and learns that it must end.

    Attributes:
        should_stop: whether the user wishes to end.
        tell: called with the share of the story that is done, 0 to 1.
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
    while True:
        record = _adopted(known, prepared, server) or _new_record(prepared, server, attempts + 1)
        try:
            return _attempt(prepared, record, server, folder, control)
        except (PromptRejected, ExecutionFailed, ExecutionInterrupted, StoryFailed, _FileGone) as error:
            folder.log(name, f"failed: {error}" + (f"\n{error.traceback}" if isinstance(error, ExecutionFailed) else ""))
            if record.attempts >= _ATTEMPTS or not _may_pass(error, is_adopted=bool(record.updated)):
                folder.write_record(name, replace(record, status=FAILED, error=str(error)))
                raise StoryFailed(str(error)) from error
            server.post_json("/free", {"unload_models": True, "free_memory": True})
            known, attempts = None, record.attempts


def _may_pass(error: Exception, is_adopted: bool) -> bool:
    """Whether another attempt may succeed; an adopted prompt was perhaps interrupted by the command that was killed."""
    if isinstance(error, ExecutionFailed):
        return "OutOfMemory" in error.exception_type
    return isinstance(error, _FileGone) or (is_adopted and isinstance(error, ExecutionInterrupted))


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
    client = uuid.uuid4().hex
    with server.events(client) as events:
        if not record.updated:  # else adopted
            for uploaded, file in prepared.uploads.items():
                server.upload(file, uploaded, FOLDER)
            folder.write_record(name, record)  # before it is queued, so that no kill makes it run twice
            folder.write_graph(name, prepared.graph)
            prompt_id = server.queue(prepared.graph, client, record.prompt_id)
            if prompt_id != record.prompt_id:  # a server that gives ids of its own
                record = replace(record, prompt_id=prompt_id)
                folder.write_record(name, record)
        folder.log(name, f"{'found' if record.updated else 'queued'} on {server.url} as {record.prompt_id}")
        try:
            outputs = _follow(prepared, record, server, events, control)
        except Stopped:
            _interrupt(server, record.prompt_id)
            folder.write_record(name, replace(record, status=STOPPED))
            folder.log(name, "stopped by the user")
            raise
    video, files = _fetch(name, server, outputs, folder)
    record = replace(record, status=DONE, video=video, files=files, seconds=time.monotonic() - started)
    folder.write_record(name, record)
    folder.log(name, f"done in {record.seconds:.1f} s: {video['file']}")
    return record


def _follow(
    prepared: PreparedStory, record: Record, server: ComfyClient, events: Events, control: Control
) -> Mapping[str, Mapping[str, Any]]:
    """Return the outputs of a prompt once it has ended.

    Raises:
        ServerError: the server does not know it any more.
    """
    runs = set(generators(prepared.graph))
    next_poll = 0.0
    while True:
        if control.should_stop():
            raise Stopped
        news = events.wait(_EVENT_SECONDS)
        _tell_progress(news, runs, control)
        has_ended = any(kind in _ENDS and data.get("prompt_id") == record.prompt_id for kind, data in news)
        if not has_ended and time.monotonic() < next_poll:
            continue
        next_poll = time.monotonic() + POLL_SECONDS
        entry = server.history(record.prompt_id)
        if entry is None and not server.is_queued(record.prompt_id):
            entry = server.history(record.prompt_id)  # it may have ended between the two questions
            if entry is None:
                raise ServerError("the server was restarted and has forgotten the story")
        if entry is not None:
            return outputs_of(entry)


def _tell_progress(news: Iterable[Event], runs: set[str], control: Control) -> None:
    for kind, data in news:
        for key, state in data.get("nodes", {}).items() if kind == "progress_state" else ():
            if key in runs and state["max"] > 0 and state["state"] == "running":
                control.tell(state["value"] / state["max"])


def _interrupt(server: ComfyClient, prompt_id: str) -> None:
    """End a prompt, running or waiting, and wait until the clip that was just finished is stored."""
    server.post_json("/queue", {"delete": [prompt_id]})
    server.interrupt(prompt_id)
    deadline = time.monotonic() + _STOP_SECONDS
    while server.is_queued(prompt_id) and time.monotonic() < deadline:
        time.sleep(0.2)


def _fetch(
    name: str, server: ComfyClient, outputs: Mapping[str, Mapping[str, Any]], folder: OutputFolder
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Fetch what the workflow saved; return the facts of the video and the names of the other files.

    Raises:
        StoryFailed: the workflow saved no video.
    """
    saved = [file for output in outputs.values() for file in _saved_files(output)]
    videos = [file for file in saved if Path(file["filename"]).suffix.lower() in VIDEO_SUFFIXES]
    if not videos:
        raise StoryFailed("the workflow ended without a saved video: add SVI Show Video or Save Video to it")
    staging = folder.clear_staging(name)
    for file in saved:
        try:
            server.download(file, staging / Path(file["filename"]).name)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            raise _FileGone(f"{server.url} does not have its result {file['filename']} any more") from error
    others = [file for file in saved if file is not videos[0]]
    video = folder.take_video(name, staging / Path(videos[0]["filename"]).name)
    files = folder.story(name) / "files"
    shutil.rmtree(files, ignore_errors=True)
    if others:
        staging.rename(files)
    else:
        staging.rmdir()
    return video, tuple(sorted({Path(file["filename"]).name for file in others}))


def _saved_files(output: Mapping[str, Any]) -> Iterable[Mapping[str, Any]]:
    """Yield the files that a node saved for good; what it only showed lies in the server's temp folder."""
    for entries in output.values():
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and entry.get("filename") and entry.get("type") == "output":
                yield entry
