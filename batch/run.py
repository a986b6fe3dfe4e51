"""``python -m batch run``: check a table, make its stories, and say which could not be made."""

from __future__ import annotations

import argparse
import json
import shlex
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from batch.arguments import command_line
from batch.demo_environment import NoEnvironment
from batch.placement import Servers
from batch.prepare import PreparedStory, prepare
from batch.progress import Progress
from batch.ray_cluster import no_ray, open_cluster
from batch.records import QUEUED, OutputFolder
from batch.servers import open_servers, own_comfyui
from batch.story import WORKFLOW, Problem, Story, StoryError
from batch.table import read_table
from batch.work import Batch
from batch.workflow.convert import Workflow, read_workflow, to_api
from batch.workflow.node_inputs import ObjectInfo
from comfyui.client import NETWORK_ERRORS, ServerError
from svi_core.files.atomic_file import write_bytes
from svi_core.files.folder_lock import lock_folder
from svi_core.files.sealed_json import write_sealed

MOST_LISTED = 20  # stories without a video on the screen

Contents = dict[Path, Mapping[str, object]]  # of workflow files
Graphs = dict[str, dict[str, PreparedStory]]  # name of a story -> each place that can make it


def main(options: argparse.Namespace) -> int:
    """Run the command; return the exit code: 0 all videos are there, 1 some are not, 2 bad arguments, 130 interrupted."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if complaint := _complaint(options):
        _say(f"error: {complaint}")
        return 2
    try:
        stories, problems = read_table(options.table)
        contents: Contents = {options.workflow.absolute(): read_workflow(options.workflow)}
        options.output.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(
            options.output, f"{options.output} is in use by another batch: wait for it, or choose another folder"
        )
    except (ValueError, OSError) as error:
        _say(f"error: {error}")
        return 2
    stories, unreadable = _read_workflows(stories, contents)
    problems += unreadable
    command = _Command(options, OutputFolder(options.output), stories, problems, contents)
    try:
        _tell(problems)
        with _open(options) as places:
            return command.run(places)
    except (ServerError, NoEnvironment, OSError, *NETWORK_ERRORS) as error:
        _say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        _say(f"interrupted; the same command goes on: python -m batch {shlex.join(sys.argv[1:])}")
        return 130
    finally:
        lock.release()


def _complaint(options: argparse.Namespace) -> str:
    """Return which options cannot be had together, or here; "" if all can."""
    if options.server and options.ray is not None:
        return "--ray starts a ComfyUI for each GPU of the cluster: leave --server out"
    if options.server and options.models:
        return "--models is of a ComfyUI that this command starts: leave it out, or --server"
    return no_ray() if options.ray is not None else ""


class Places(Protocol):
    """Where stories are made: servers, or the workers of a cluster."""

    @property
    def names(self) -> list[str]: ...

    def offers(self, say: Callable[[str], None]) -> Iterator[tuple[str, ObjectInfo]]:
        """Yield a name and the nodes for each kind of place."""
        ...

    def make(self, batch: Batch) -> None:
        """Make what `batch` holds; raises KeyboardInterrupt after the running stories were ended."""
        ...


@contextmanager
def _open(options: argparse.Namespace) -> Iterator[Places]:
    """Yield where the stories are made. Raises ServerError, NoEnvironment."""
    output = options.output.absolute()
    if options.ray is not None:
        with open_cluster(options.ray, own_comfyui(options.models), output, _say) as cluster:
            yield cluster
        return
    with open_servers(options.server, options.models, output / "server", _say) as servers:
        yield Servers(servers)


@dataclass
class _Command:
    options: argparse.Namespace
    folder: OutputFolder
    stories: list[Story]
    problems: list[Problem]
    contents: Contents

    def run(self, places: Places) -> int:
        """Check all stories, and make those that can be made."""
        graphs = self._prepare_all(places)
        ready = {
            name
            for name, ways in graphs.items()
            if any(self.folder.is_made(name, key) for key in {way.key for way in ways.values()})
        }
        stories = "1 story" if len(graphs) == 1 else f"{len(graphs)} stories"
        _say(f"{stories} can be made, {len(ready)} of them are ready; {len(self.problems)} cannot")
        if self.options.check or (self.options.strict and self.problems):
            return 1 if self.problems else 0
        to_make: dict[str, Mapping[str, PreparedStory]] = {name: ways for name, ways in graphs.items() if name not in ready}
        clips = {name: max(way.num_clips for way in ways.values()) for name, ways in to_make.items()}
        held = {name: record.server for name in to_make if (record := self.folder.record(name)) and record.status == QUEUED}
        held = {name: url for name, url in held.items() if url in to_make[name] and url in places.names}
        batch = Batch(to_make, self.folder, Progress(clips, num_ready=len(ready)), held)
        try:
            places.make(batch)
        finally:
            batch.progress.end_line()
            self._report(batch, ready, places)
        return 1 if self.problems or batch.failed or batch.waiting else 0

    def _prepare_all(self, places: Places) -> Graphs:
        """Return the graphs of the stories; those that no server can make are added to the problems, and told."""
        graphs: Graphs = {}
        problems: dict[str, Problem] = {}
        known: dict[str, list[PreparedStory | Problem]] = {}  # by what a place offers
        for place, info in places.offers(_say):
            offer = json.dumps(info, sort_keys=True)
            if offer not in known:
                known[offer] = self._ways(place, info)
            for story, way in zip(self.stories, known[offer], strict=False):
                if isinstance(way, Problem):
                    problems[story.name] = way
                else:
                    graphs.setdefault(story.name, {})[place] = way
        if self.stories and not any(known.values()):
            raise ServerError("no server can run the workflow: see above what each lacks")
        new = [problem for name, problem in problems.items() if name not in graphs]
        _tell(new)
        self.problems += new
        return graphs

    def _ways(self, place: str, info: ObjectInfo) -> list[PreparedStory | Problem]:
        """Return what becomes of each story at a place; nothing if it can run no workflow at all."""
        workflows: dict[Path, Workflow] = {}
        for path, content in self.contents.items():
            try:
                workflows[path] = to_api(content, info)
            except ValueError as error:
                _say(f"{place} cannot run {path}: {error}")
        return [self._prepared(story, workflows, info) for story in self.stories] if workflows else []

    def _prepared(self, story: Story, workflows: Mapping[Path, Workflow], info: ObjectInfo) -> PreparedStory | Problem:
        path = story.workflow or self.options.workflow.absolute()
        try:
            if path not in workflows:
                raise story.error(WORKFLOW, f"no server can run {path}: see above what each lacks")
            return prepare(story, workflows[path], info, self.folder.name_on_servers)
        except StoryError as error:
            return error.problem

    def _report(self, batch: Batch, ready: set[str], places: Places) -> None:
        """Write batch.json and problems.txt, and tell which videos are missing and why."""
        reasons = {problem.story: str(problem) for problem in self.problems} | batch.failed
        lost = "; ".join(f"{url}: {why}" for url, why in batch.lost_places.items())
        left = f"no server was left to make it ({lost}): the same command goes on"
        reasons |= {name: left for name in batch.waiting if not batch.should_stop.is_set()}
        reasons |= {name: "not made yet" for name in batch.waiting if batch.should_stop.is_set()}
        rows = {story.name: story.place for story in self.stories}
        rows = {problem.story: problem.place for problem in self.problems} | rows
        names = sorted(rows, key=lambda name: (rows[name].line, rows[name].file))
        entries = [_entry(self.folder, name, name in ready or name in batch.made, reasons) for name in names]
        facts = {
            "table": str(self.options.table.absolute()),
            "workflow": str(self.options.workflow.absolute()),
            "servers": places.names,
            "ended": time.time(),
            "stories": entries,
        }
        write_sealed(self.folder.path / "batch.json", facts)
        missing = [f"{entry['name']}: {entry['reason']}" for entry in entries if entry["reason"]]
        if missing:
            write_bytes(self.folder.path / "problems.txt", ("\n".join(missing) + "\n").encode())
        else:
            with suppress(FileNotFoundError):
                (self.folder.path / "problems.txt").unlink()
        _say(f"{len(entries) - len(missing)} of {len(entries)} videos are in {self.folder.path}")
        for line in missing[:MOST_LISTED]:
            _say(f"  without a video: {line}")
        if len(missing) > MOST_LISTED:
            _say(f"  and {len(missing) - MOST_LISTED} others: all are in problems.txt there")


def _read_workflows(stories: Sequence[Story], contents: Contents) -> tuple[list[Story], list[Problem]]:
    """Add the workflows that rows name to `contents`; return the stories that have theirs, and the mistakes of the others."""
    good: list[Story] = []
    problems: list[Problem] = []
    for story in stories:
        try:
            if story.workflow is not None and story.workflow not in contents:
                contents[story.workflow] = read_workflow(story.workflow)
            good.append(story)
        except (ValueError, OSError) as error:
            problems.append(story.error(WORKFLOW, str(error)).problem)
    return good, problems


def _entry(folder: OutputFolder, name: str, is_made: bool, reasons: Mapping[str, str]) -> dict[str, object]:
    record = folder.record(name) if is_made else None
    reason = "" if is_made else reasons.get(name, "not made yet")
    return {"name": name, "video": record.video.get("file") if record else None, "reason": reason}


def _tell(problems: Sequence[Problem]) -> None:
    """Say what is wrong with rows; what is wrong with many of them, such as a missing model, in one line."""
    rows: dict[str, list[Problem]] = defaultdict(list)
    for problem in problems:
        rows[problem.message].append(problem)
    for message, alike in rows.items():
        others = f" and {len(alike) - 1} other rows" if len(alike) > 1 else ""
        _say(f"{alike[0].place}{others}: {message}")


def _say(message: str) -> None:
    sys.stderr.write(f"[svi] {message}\n")
    sys.stderr.flush()


if __name__ == "__main__":  # in an environment that `python -m batch` has chosen
    sys.exit(main(command_line().parse_args()))
