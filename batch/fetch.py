"""Fetch what a workflow saved on a server: the story's video, and everything else beside it."""

from __future__ import annotations

import re
import shutil
import urllib.error
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from batch.prepare import PreparedStory
from batch.records import OutputFolder
from batch.workflow.convert import Graph
from comfyui.client import ComfyClient, ServerError
from svi_core.files.output_folder import is_file_name

VIDEO_SUFFIXES = (".mp4", ".webm", ".mov", ".mkv", ".avi", ".gif")
_NOT_IN_NAMES = re.compile(r'[\\/:*?"<>|\x00-\x1f]')

Output = Mapping[str, Any]


class NoVideo(RuntimeError):
    """A workflow ended without a saved video."""


class FileGone(ServerError):
    """The server names a result, from its cache, whose file was removed."""


def fetch_results(
    prepared: PreparedStory, outputs: Mapping[str, Output], server: ComfyClient, folder: OutputFolder
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Fetch what the workflow saved; return the facts of the video and the names of the other files.

    Of several videos the first one counts, in the order of the graph's nodes.

    Raises:
        NoVideo: the workflow saved none; FileGone: the server has a file no more; OSError: the server is away.
    """
    name = prepared.story.name
    saved = _named(file for output in _in_order(outputs, prepared.graph) for file in _saved_files(output))
    video_name = next((own for own in saved if Path(own).suffix.lower() in VIDEO_SUFFIXES), None)
    if video_name is None:
        raise NoVideo("the workflow ended without a saved video: add SVI Show Video or Save Video to it")
    staging = folder.clear_staging(name)
    for own, file in saved.items():
        try:
            server.download(file, staging / own)
        except urllib.error.HTTPError as error:
            if error.code != HTTPStatus.NOT_FOUND:
                raise
            raise FileGone(f"{server.url} does not have its result {file['filename']} any more") from error
    others = tuple(sorted(saved.keys() - {video_name}))
    video = folder.take_video(name, staging / video_name)
    for suffix in VIDEO_SUFFIXES:  # of an earlier workflow
        if f"{name}{suffix}" != video["file"]:
            (folder.path / f"{name}{suffix}").unlink(missing_ok=True)
    files = folder.story(name) / "files"
    shutil.rmtree(files, ignore_errors=True)
    if others:
        staging.rename(files)
    else:
        staging.rmdir()
    return video, others


def _named(files: Iterable[Output]) -> dict[str, Output]:
    """Return a file name here -> file there: each file once, none over another, and no name that leads elsewhere."""
    named: dict[str, Output] = {}
    taken: set[str] = set()
    for file in files:
        plain = _NOT_IN_NAMES.sub("_", str(file["filename"]))
        plain = plain if is_file_name(plain) else f"file{Path(plain).suffix}"
        own, number = plain, 1
        while own.casefold() in taken and named.get(own) != file:
            number += 1
            own = f"{Path(plain).stem}-{number}{Path(plain).suffix}"
        named[own] = file
        taken.add(own.casefold())
    return named


def _saved_files(output: Output) -> Iterable[Output]:
    """Yield the files that a node saved for good; what it only showed lies in the server's temp folder."""
    for entries in output.values():
        for entry in entries if isinstance(entries, list) else ():
            if isinstance(entry, dict) and entry.get("filename") and entry.get("type") == "output":
                yield entry


def _in_order(outputs: Mapping[str, Output], graph: Graph) -> list[Output]:
    """Return the outputs in the order of the graph's nodes; a server gives them in the order in which they ran."""
    return [outputs[key] for key in sorted(outputs, key=lambda key: list(graph).index(key) if key in graph else len(graph))]
