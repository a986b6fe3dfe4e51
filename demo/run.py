"""The demo inside its environment: start ComfyUI, queue the demo's workflow, show progress, check the video.

Run it through ``python -m demo``, which checks the arguments and sets the environment up.
"""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import imageio_ffmpeg

from batch.media import check_image
from comfyui.client import Event, ExecutionInterrupted, PromptRejected, ServerError
from comfyui.server import ComfyServer
from dev.environment import REPOSITORY, Environment, ensure_environment, say
from dev.setup_files import LockBusy, file_lock

BASE_DIRECTORY = REPOSITORY / ".runtime" / "demo"
GRAPH_FILE = REPOSITORY / "demo" / "demo_workflow_api.json"
MODELS = REPOSITORY / "demo" / "models"
LONGEST_RUN_SECONDS = 7 * 24 * 3600
INTERRUPT_SECONDS = 300  # to decode a clip that was just finished; a second Ctrl-C does not wait


@dataclass(frozen=True)
class Request:
    """What the user asked for; `prompts` is the whole text of the prompt file."""

    image: Path
    prompts: str
    num_clips: int
    seed: int


def main(arguments: list[str]) -> int:
    """Make the video of IMAGE, PROMPTS_FILE, CLIPS and SEED; return the exit code."""
    image, prompts_file, num_clips, seed = arguments
    prompts = Path(prompts_file).read_text(encoding="utf-8-sig")
    request = Request(Path(image), prompts, int(num_clips), int(seed))
    try:
        check_image(request.image)
    except ValueError as error:
        say(f"error: --image {error}")
        return 2
    try:
        with file_lock(BASE_DIRECTORY / "demo.lock", waiting=None):
            return run_demo(ensure_environment(), request)
    except LockBusy:
        say("error: another demo of this folder is running: wait for it, or stop it with Ctrl-C")
        return 1
    except ServerError as error:
        say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        say("interrupted before the first clip")
        return 130


def run_demo(environment: Environment, request: Request) -> int:
    """Run the workflow on a server of its own and print the path of the video; return the exit code."""
    graph = json.loads(GRAPH_FILE.read_text(encoding="utf-8"))
    say("starting ComfyUI on the CPU")
    with ComfyServer(environment, BASE_DIRECTORY, model_roots=[MODELS]) as server:
        say(f"ComfyUI runs at {server.url}; its log: {_shown(server.log_path)}")
        image = server.add_input(request.image, f"reference{request.image.suffix.lower()}")
        fill_graph(graph, request, image)
        video = make_video(server, graph, request.num_clips)
    if isinstance(video, int):
        return video
    num_frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(video))
    if num_frames < 1:
        say(f"error: {_shown(video)} holds no frames")
        return 1
    say(f"{request.num_clips} clips, {num_frames} frames, {seconds:.1f} s of video:")
    sys.stdout.write(f"{_shown(video)}\n")
    return 0


def fill_graph(graph: dict[str, dict[str, Any]], request: Request, image: str) -> None:
    """Put the user's values into the demo's graph, in place.

    Raises:
        ServerError: the graph does not have exactly one node of each type that takes a value.
    """
    node_of_type(graph, "LoadImage")["inputs"]["image"] = image
    node_of_type(graph, "SVIPromptStream")["inputs"]["text"] = request.prompts
    generate = node_of_type(graph, "SVIGenerate")["inputs"]
    generate["num_clips"], generate["seed"] = request.num_clips, request.seed


def node_of_type(graph: Mapping[str, dict[str, Any]], class_type: str) -> dict[str, Any]:
    """Return the only node of a type. Raises ServerError if there is none or more than one."""
    nodes = [node for node in graph.values() if node["class_type"] == class_type]
    if len(nodes) != 1:
        raise ServerError(f"{GRAPH_FILE.name} has {len(nodes)} nodes of type {class_type}, not one")
    return nodes[0]


def make_video(server: ComfyServer, graph: Mapping[str, dict[str, Any]], num_clips: int) -> Path | int:
    """Run the graph and return the video, or the exit code if there is none; report finished clips either way."""
    started = time.time()
    progress = Progress(num_clips, {key for key, node in graph.items() if node["class_type"] == "SVIGenerate"})
    client = uuid.uuid4().hex
    prompt_id = None
    try:
        with server.events(client) as events:
            prompt_id = server.queue(graph, client)
            outputs = server.wait(prompt_id, LONGEST_RUN_SECONDS, lambda: progress.show(events.drain()))
        return server.saved_file(_saved_video(graph, outputs))
    except KeyboardInterrupt:
        progress.end_line()
        say("interrupting (Ctrl-C again to leave at once)")
        if prompt_id is not None:
            _interrupt(server, prompt_id)
        exit_code = 130
    except PromptRejected as error:
        say(f"error: {error}")
        exit_code = 2
    except ServerError as error:
        progress.end_line()
        say(f"error: {error}")
        exit_code = 1
    _tell_of_finished_clips(server.output_directory, started)
    return exit_code


def _saved_video(graph: Mapping[str, dict[str, Any]], outputs: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    for key, output in outputs.items():
        if graph[key]["class_type"] == "SVIShowVideo" and output.get("images"):
            saved: dict[str, Any] = output["images"][0]
            return saved
    raise ServerError("the workflow ended without a saved video")


def _interrupt(server: ComfyServer, prompt_id: str) -> None:
    try:
        server.interrupt()
        server.wait(prompt_id, INTERRUPT_SECONDS)
    except (ExecutionInterrupted, KeyboardInterrupt):
        pass  # as asked for; or asked for twice
    except (ServerError, OSError) as error:
        say(f"ComfyUI did not stop in order: {error}")


def _tell_of_finished_clips(output_directory: Path, started: float) -> None:
    videos = [path for path in output_directory.rglob("video.mp4") if path.stat().st_mtime >= started]
    if videos:
        newest = max(videos, key=lambda path: path.stat().st_mtime)
        say(f"the clips that were finished: {_shown(newest)}")
    else:
        say("no clip was finished")


def _shown(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


@dataclass
class Progress:
    """One progress line: percent, clip and time left; rewritten on a terminal, elsewhere a new line per 10 %.

    Attributes:
        num_clips: clips of the whole run.
        nodes: ids of the nodes whose progress is that of the run.
    """

    num_clips: int
    nodes: set[str]
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    _start: tuple[float, float] | None = None  # time of the first report, and the progress by then
    _shown_tenths: int = -1
    _line_is_open: bool = False

    def show(self, events: Iterable[Event]) -> None:
        """Update the line from the latest events of the server."""
        for kind, data in events:
            if kind != "progress_state":
                continue
            for key, state in data["nodes"].items():
                if key in self.nodes and state["max"] > 0 and state["state"] == "running":
                    self._show(state["value"] / state["max"])
        if self._shown_tenths >= 10:
            self.end_line()

    def end_line(self) -> None:
        """End the line, so that the next message starts on a new one."""
        if self._line_is_open:
            self.stream.write("\n")
            self._line_is_open = False

    def _show(self, done: float) -> None:
        line = self._line(done)
        tenths = int(done * 10)
        if self.stream.isatty():
            self.stream.write(f"\r[svi] {line:<60}")
            self._line_is_open = True
        elif tenths > self._shown_tenths:
            self.stream.write(f"[svi] {line}\n")
        self._shown_tenths = tenths
        self.stream.flush()

    def _line(self, done: float) -> str:
        clip = min(int(done * self.num_clips), self.num_clips - 1) + 1
        line = f"{done:4.0%}  clip {clip} of {self.num_clips}"
        now = time.monotonic()
        started, done_at_start = self._start = self._start or (now, done)
        if done > done_at_start:  # clips of an earlier run cost no time and predict nothing
            left = round((now - started) * (1 - done) / (done - done_at_start))
            line += f"  about {left // 60}:{left % 60:02d} left"
        return line


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
