"""The measurements of the loop benchmark, one after the other; run through ``python -m benchmarks.loop``."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

from benchmarks.loop.graphs import GRAPHS, Job
from benchmarks.loop.report import write_report
from benchmarks.machine import machine_facts
from benchmarks.results import Results
from benchmarks.server_run import PROBED_NODES, forget_cached, run_watched
from comfyui.client import ServerError
from comfyui.environment import process_variables
from comfyui.server import ComfyServer
from dev.environment import REPOSITORY, Environment, ensure_environment, say

TINY_MODELS = REPOSITORY / "tests" / "e2e" / "tiny_models.py"
SANE_SHARE = 0.5  # of the free memory that a stock run may need by our estimate


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        side: of the picture, in pixels.
        num_frames: of a clip.
        counted_clips: clips of the runs whose operations are counted.
        timed_clips: clips of the runs that are timed.
        num_blocks: servers on each of which the two are timed in the order ours, stock, stock, ours.
        memory_clips: clips of the runs whose memory is watched.
    """

    side: int = 64
    num_frames: int = 81
    counted_clips: int = 5
    timed_clips: int = 3
    num_blocks: int = 3
    memory_clips: list[int] = field(default_factory=lambda: [3, 10, 30, 100])

    def job(self, num_clips: int, seed: int = 0) -> Job:
        return Job(num_clips, self.num_frames, self.side, seed)


QUICK = Settings(num_frames=9, counted_clips=2, timed_clips=1, num_blocks=1, memory_clips=[1, 2])


@dataclass(frozen=True)
class Bench:
    """The place of the measurements."""

    environment: Environment
    folder: Path

    @property
    def models(self) -> Path:
        return self.folder / "models"

    def prepare(self) -> None:
        """Write the tiny models and the picture, if missing."""
        self.folder.mkdir(parents=True, exist_ok=True)
        Image.linear_gradient("L").resize((96, 64)).convert("RGB").save(self.folder / "reference.png")
        if self.models.is_dir():
            return
        new = self.folder / "models.new"
        command = [str(self.environment.python), str(TINY_MODELS), str(self.environment.comfyui), str(new)]
        subprocess.run(command, check=True, cwd=self.folder, env=process_variables(self.environment))
        new.rename(self.models)

    @contextmanager
    def server(self) -> Iterator[tuple[ComfyServer, str]]:
        """Give a fresh server, and the name of the picture there; its videos are removed afterwards."""
        folder = self.folder / "server"
        shutil.rmtree(folder, ignore_errors=True)
        with ComfyServer(self.environment, folder, model_roots=[self.models], custom_nodes=PROBED_NODES) as server:
            yield server, server.add_input(self.folder / "reference.png")
        shutil.rmtree(folder)


def counted_run(server: ComfyServer, graph: dict[str, Any], copies_of: int = 0) -> dict[str, float]:
    """Run `graph` and return times and counts; with `copies_of`, also copies of frames of that side."""
    server.post_json("/svi_benchmark/restart", {"height": copies_of, "width": copies_of} if copies_of else {})
    taken = run_watched(server, graph)
    return taken | server.get_json("/svi_benchmark")


def measure_counts(bench: Bench, settings: Settings, kind: str) -> dict[str, dict[str, float]]:
    """Return the counts of the first run on a fresh server, and of its graph queued again with ComfyUI's cache empty.

    Counting copies slows the "cold" run, so its times mean nothing; "first" and "again" are timed.
    """
    with bench.server() as (server, image):

        def graph(seed: int) -> dict[str, Any]:
            return GRAPHS[kind](image, settings.job(settings.counted_clips, seed), f"{kind}{seed}")

        cold = counted_run(server, graph(seed=0), settings.side)
        first = counted_run(server, graph(seed=1))
        forget_cached(server)
        return {"cold": cold, "first": first, "again": counted_run(server, graph(seed=1))}


def measure_block(bench: Bench, settings: Settings, block: int) -> list[dict[str, Any]]:
    """Return the runs ours, stock, stock, ours on one warm server, each with its own seed."""
    runs = []
    with bench.server() as (server, image):
        for kind, graph in GRAPHS.items():
            server.run(graph(image, settings.job(1, seed=1), f"{kind}-warm"))
        for place, kind in enumerate(("ours", "stock", "stock", "ours")):
            job = settings.job(settings.timed_clips, seed=1000 * block + 100_000 * (place + 1))
            runs.append({"kind": kind} | counted_run(server, GRAPHS[kind](image, job, f"{kind}{place}")))
    return runs


def measure_memory(bench: Bench, settings: Settings, kind: str, num_clips: int) -> dict[str, float]:
    """Return the peak of a run of `num_clips` clips on a fresh server that has made one clip before."""
    with bench.server() as (server, image):
        server.run(GRAPHS[kind](image, settings.job(1, seed=1), f"{kind}-warm"))
        return counted_run(server, GRAPHS[kind](image, settings.job(num_clips), kind))


def expected_bytes(results: Results, settings: Settings, kind: str, num_clips: int) -> float:
    """Return the memory that a run will need, from the two longest runs so far; 0 while there are less than two."""
    done = [(n, results.measured.get(f"memory {kind} {n}")) for n in settings.memory_clips if n < num_clips]
    known = [(n, run["peak_bytes"]) for n, run in done if run]
    if len(known) < 2:
        return 0.0
    (few, low), (more, high) = known[-2:]
    return high + (high - low) * (num_clips - more) / (more - few)


def measure_all(bench: Bench, settings: Settings, results: Results) -> None:
    """Make every measurement that `results` does not hold yet."""
    for kind in GRAPHS:
        say(f"counting: {kind}")
        results.get(f"counts {kind}", lambda kind=kind: measure_counts(bench, settings, kind))
    for block in range(settings.num_blocks):
        say(f"timing: block {block + 1} of {settings.num_blocks}")
        results.get(f"times {block}", lambda block=block: measure_block(bench, settings, block))
    for num_clips in settings.memory_clips:
        for kind in GRAPHS:
            expected = expected_bytes(results, settings, kind, num_clips)
            if expected > SANE_SHARE * psutil.virtual_memory().available:
                say(f"memory: {kind}, {num_clips} clips left out: it would need about {expected / 1e9:.1f} GB")
                continue
            say(f"memory: {kind}, {num_clips} clips")
            results.get(f"memory {kind} {num_clips}", lambda kind=kind, n=num_clips: measure_memory(bench, settings, kind, n))


def main(output: Path, flags: list[str]) -> int:
    """Measure, and write table, plot and figures to the folder `output`; the table also goes to standard output."""
    environment = ensure_environment()
    settings = QUICK if "quick" in flags else Settings()
    bench = Bench(environment, output / "work")
    bench.prepare()
    facts = machine_facts(environment.comfyui)
    results = Results(output / "loop.json", asdict(settings), facts, fresh="fresh" in flags)
    try:
        measure_all(bench, settings, results)
    except (ServerError, KeyboardInterrupt) as error:
        say(f"stopped: {error or 'interrupted'}\nMeasurements are saved; the same command resumes.")
        return 1
    sys.stdout.write(write_report(results.content, output) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
