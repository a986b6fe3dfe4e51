"""What the output folder holds: the videos, and for each story a small record, the queued graph and a log.

<story>.mp4                    the finished video (or .webm, ...: as the workflow saves it)
stories/<story>/story.json     its record
stories/<story>/graph.json     the graph that made it, in API format
stories/<story>/log.txt        what happened to it, in all runs of the command
stories/<story>/files/         everything else that the workflow saved
batch.json                     the table, the workflow, and how each story ended, in the order of the table
problems.txt                   the stories without a video and why; absent if there are none

story.json and batch.json hold their checksum.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from svi_core.files.atomic_file import write_bytes
from svi_core.files.checked_file import set_aside
from svi_core.files.fingerprint import file_sha256, fingerprint
from svi_core.files.sealed_json import read_sealed, write_sealed

DONE, QUEUED, FAILED, STOPPED = "done", "queued", "failed", "stopped"


@dataclass(frozen=True)
class Record:
    """The state of one story.

    Attributes:
        status: queued, done, failed or stopped.
        key: of the graph, see PreparedStory.
        values: the cells of its row, as text or numbers.
        server: address of the server that has or had it.
        prompt_id: under which that server knows it.
        num_clips: as the graph says; 0 if unknown.
        attempts: how often it was queued for this key.
        seconds: from queueing to the fetched video, of the last attempt.
        video: file name, bytes, sha256.
        files: names in stories/<story>/files/.
        error: why it failed.
        updated: seconds since 1970.
    """

    status: str
    key: str
    values: Mapping[str, Any] = field(default_factory=dict)
    server: str = ""
    prompt_id: str = ""
    num_clips: int = 0
    attempts: int = 0
    seconds: float = 0.0
    video: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    error: str = ""
    updated: float = 0.0


class OutputFolder:
    """The folder of a batch. One command at a time writes to it (see `lock_folder`), with a thread per server."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()

    @property
    def name_on_servers(self) -> str:
        """The name of this folder, and what tells it from others of the same name, also on other machines' servers."""
        plain = re.sub(r"[^\w-]", "_", self.path.name)[:25]  # at most 100 bytes
        return f"{plain or 'batch'}-{fingerprint(str(self.path))[:8]}"

    def story(self, name: str) -> Path:
        """Return the folder of a story's own files."""
        return self.path / "stories" / name

    def record(self, name: str) -> Record | None:
        """Return the record of a story; None if there is none. A damaged one is set aside."""
        path = self.story(name) / "story.json"
        try:
            facts = read_sealed(path)
            known = {entry.name for entry in fields(Record)}
            record = Record(**{key: value for key, value in facts.items() if key in known})
            record = replace(record, files=tuple(record.files))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            set_aside(path, error)
            return None
        return record

    def write_record(self, name: str, record: Record) -> None:
        """Write the record of a story atomically. Raises OSError."""
        self.story(name).mkdir(parents=True, exist_ok=True)
        write_sealed(self.story(name) / "story.json", {**asdict(record), "updated": time.time()})

    def write_graph(self, name: str, graph: Mapping[str, Any]) -> None:
        """Write the graph of a story. Raises OSError."""
        write_bytes(self.story(name) / "graph.json", json.dumps(graph, ensure_ascii=False, indent=1).encode())

    def is_made(self, name: str, key: str) -> bool:
        """Whether the video of a story is here, made with this key, and has the bytes that were fetched."""
        record = self.record(name)
        if record is None or record.status != DONE or record.key != key:
            return False
        video = self.path / str(record.video.get("file"))
        return video.is_file() and file_sha256(video) == record.video.get("sha256")

    def log(self, name: str, line: str) -> None:
        """Add a line to the log of a story."""
        self.story(name).mkdir(parents=True, exist_ok=True)
        with (self.story(name) / "log.txt").open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}\n")

    def take_video(self, name: str, fetched: Path) -> dict[str, Any]:
        """Move a fetched video to its final name; return its facts for the record."""
        final = self.path / f"{name}{fetched.suffix.lower()}"
        facts = {"file": final.name, "bytes": fetched.stat().st_size, "sha256": file_sha256(fetched)}
        fetched.replace(final)
        return facts

    def clear_staging(self, name: str) -> Path:
        """Return an empty folder to fetch the files of a story to."""
        staging = self.story(name) / "fetching.staging"
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        return staging
