"""Queue the same stories by hand and by the batch command: ``python -m benchmarks.batch``."""

import json
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from batch import run
from batch.arguments import command_line
from batch.records import OutputFolder
from benchmarks.loop.report import table
from benchmarks.machine import machine_facts
from benchmarks.results import Results
from benchmarks.results import command_line as benchmark_command_line
from benchmarks.server_run import execution_seconds, forget_cached
from comfyui.client import ComfyClient
from comfyui.server import ComfyServer
from dev.environment import REPOSITORY, ensure_environment, say

OUTPUT = REPOSITORY / ".runtime" / "benchmarks"
IMAGE = REPOSITORY / "demo" / "images" / "boat.png"
GRAPH = REPOSITORY / "demo" / "demo_workflow_api.json"
PROMPTS = ("the red boat on the blue sea sails to the right.", "night falls.", "day breaks.")


def by_hand(server: ComfyClient, graph: dict[str, Any], seeds: range) -> dict[str, float]:
    """Return wall seconds and ComfyUI's own seconds of stories that are queued one after the other."""
    started, executed = time.monotonic(), 0.0
    for seed in seeds:
        for node in graph.values():
            if node["class_type"] == "SVIGenerate":
                node["inputs"] |= {"seed": seed, "num_clips": len(PROMPTS), "filename_prefix": f"by_hand/{seed}"}
            elif node["class_type"] == "SVIPromptStream":
                node["inputs"]["text"] = "\n\n".join(PROMPTS)
        prompt_id = server.queue(graph)
        server.wait(prompt_id, timeout=3600)
        executed += execution_seconds(server.history(prompt_id))
    return {"wall": time.monotonic() - started, "executed": executed}


def by_command(server: ComfyClient, folder: Path, seeds: range) -> dict[str, float]:
    """Return the same of the batch command, from its start to its end."""
    rows = [{"name": f"s{seed}", "image": str(IMAGE), "prompts": list(PROMPTS), "seed": seed} for seed in seeds]
    (folder / "stories.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    arguments = ["--workflow", str(GRAPH), "--output", str(folder / f"from_{seeds.start}"), "--server", server.url]
    options = command_line().parse_args(["run", str(folder / "stories.jsonl"), *arguments])
    started = time.monotonic()
    assert run.main(options) == 0, "a story failed; its log says why"
    wall = time.monotonic() - started
    records = [OutputFolder(options.output).record(row["name"]) for row in rows]
    return {"wall": wall, "executed": sum(execution_seconds(server.history(record.prompt_id)) for record in records)}


def measure(server: ComfyClient, folder: Path, results: Results, num_stories: int, num_rounds: int) -> None:
    """Measure both ways in turn, the first one of a round in turn as well."""
    graph = json.loads(GRAPH.read_text(encoding="utf-8"))
    by_hand(server, graph, range(1))  # warm: models and files
    ways = {"by hand": partial(by_hand, server, graph), "batch run": partial(by_command, server, folder)}
    for number in range(num_rounds):
        say(f"round {number + 1}")
        for place, kind in enumerate(ways if number % 2 == 0 else reversed(ways)):
            first = 1000 * (2 * number + place) + 1
            seeds = range(first, first + num_stories)
            results.get(f"{kind} {number}", lambda kind=kind, seeds=seeds: ways[kind](seeds))
            forget_cached(server)


def report(results: Results, num_stories: int, num_rounds: int) -> str:
    """Return the table: what lies between the server's own times, and what the command adds to a story."""
    rows = []
    measured = {
        kind: [results.measured[f"{kind} {number}"] for number in range(num_rounds)] for kind in ("by hand", "batch run")
    }
    beside = {kind: [(one["wall"] - one["executed"]) / num_stories for one in found] for kind, found in measured.items()}
    for kind, found in measured.items():
        executed = statistics.median(one["executed"] / num_stories for one in found)
        rows.append((kind, len(found), f"{executed:.2f}", f"{statistics.median(beside[kind]):.3f}"))
    by_hand_seconds = statistics.median(one["wall"] / num_stories for one in measured["by hand"])
    added = statistics.median(more - less for less, more in zip(beside["by hand"], beside["batch run"], strict=True))
    head = (f"{num_stories} stories of {len(PROMPTS)} clips", "rounds", "s in ComfyUI, each", "s beside it, each")
    told = f"The command adds {added:.3f} s to a story, {added / by_hand_seconds:.1%} of its {by_hand_seconds:.2f} s by hand."
    return f"{table(head, rows)}\n\n{told}\n\n{table(('measured on', ''), results.content['machine'].items())}\n"


def main(arguments: list[str]) -> int:
    """Measure what is missing, and print and store the table."""
    parser = benchmark_command_line("batch", "What a batch adds to each story.", OUTPUT)
    parser.add_argument("--stories", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args(arguments)
    environment = ensure_environment()
    results = Results(
        options.output / "batch.json", {"stories": options.stories}, machine_facts(environment.comfyui), options.fresh
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        ComfyServer(environment, Path(folder) / "server", model_roots=[REPOSITORY / "demo" / "models"]) as server,
    ):
        server.add_input(IMAGE, "boat.png")
        measure(server, Path(folder), results, options.stories, options.rounds)
    text = report(results, options.stories, options.rounds)
    (options.output / "batch.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
