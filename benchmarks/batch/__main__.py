"""Queue the same stories by hand and by the batch command: ``python -m benchmarks.batch``."""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from batch import run
from batch.arguments import command_line
from batch.records import OutputFolder
from benchmarks.loop.report import table
from benchmarks.machine import machine_facts
from benchmarks.results import Results
from benchmarks.server_run import execution_seconds, forget_cached
from comfyui.server import ComfyServer
from dev.environment import REPOSITORY, ensure_environment, say

OUTPUT = REPOSITORY / ".runtime" / "benchmarks"
IMAGE = REPOSITORY / "demo" / "images" / "boat.png"
GRAPH = REPOSITORY / "demo" / "demo_workflow_api.json"
PROMPTS = ("the red boat on the blue sea sails to the right.", "night falls.", "day breaks.")


def by_hand(server: ComfyServer, graph: dict[str, Any], seeds: range) -> dict[str, float]:
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


def by_command(server: ComfyServer, folder: Path, seeds: range) -> dict[str, float]:
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


def report(results: Results, num_stories: int) -> str:
    """Return the table: what lies between the server's own times."""
    rows = []
    for kind in ("by hand", "batch run"):
        found = [measured for name, measured in results.measured.items() if name.startswith(kind)]
        executed = statistics.median(measured["executed"] / num_stories for measured in found)
        between = statistics.median((measured["wall"] - measured["executed"]) / num_stories for measured in found)
        rows.append((kind, len(found), f"{executed:.2f}", f"{between:.3f}", f"{between / executed:.2%}"))
    head = (f"{num_stories} stories of {len(PROMPTS)} clips", "rounds", "s in ComfyUI, each", "s beside it, each", "share")
    return f"{table(head, rows)}\n\n{table(('measured on', ''), results.content['machine'].items())}\n"


def main(arguments: list[str]) -> int:
    """Measure what is missing, and print and store the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batch", description="What a batch adds to each story.")
    parser.add_argument("--output", type=Path, default=OUTPUT, help=f"folder of batch.json and batch.md (default: {OUTPUT})")
    parser.add_argument("--fresh", action="store_true", help="measure everything again")
    parser.add_argument("--stories", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args(arguments)
    environment = ensure_environment()
    settings = {"stories": options.stories, "rounds": options.rounds}
    results = Results(options.output / "batch.json", settings, machine_facts(environment.comfyui), options.fresh)
    with (
        tempfile.TemporaryDirectory() as folder,
        ComfyServer(environment, Path(folder) / "server", model_roots=[REPOSITORY / "demo" / "models"]) as server,
    ):
        graph = json.loads(GRAPH.read_text(encoding="utf-8"))
        server.add_input(IMAGE, "boat.png")
        by_hand(server, graph, range(1))  # warm: models and files
        for number in range(options.rounds):
            seeds = range(1000 * number + 1, 1000 * number + 1 + options.stories)
            say(f"round {number + 1}")
            results.get(f"by hand {number}", lambda seeds=seeds: by_hand(server, graph, seeds))
            forget_cached(server)
            results.get(f"batch run {number}", lambda seeds=seeds: by_command(server, Path(folder), seeds))
            forget_cached(server)
    text = report(results, options.stories)
    (options.output / "batch.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
