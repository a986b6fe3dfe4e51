"""Queue stories by hand and by the batch command, in pairs: ``python -m benchmarks.batch``."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from batch import run
from batch.arguments import command_line
from batch.prepare import PreparedStory
from batch.progress import Progress
from batch.records import OutputFolder
from batch.story import Place, Story
from batch.work import Batch
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
MANY, MANY_PROMPTS, MANY_PLACES = 1000, 17, 100  # rows; times PROMPTS in each; servers or workers


def by_hand(server: ComfyClient, graph: dict[str, Any], seed: int) -> dict[str, float]:
    """Return wall seconds and ComfyUI's own seconds of a story that is queued as it is."""
    for node in graph.values():
        if node["class_type"] == "SVIGenerate":
            node["inputs"] |= {"seed": seed, "num_clips": len(PROMPTS), "filename_prefix": f"by_hand/{seed}"}
        elif node["class_type"] == "SVIPromptStream":
            node["inputs"]["text"] = "\n\n".join(PROMPTS)
    started = time.monotonic()
    prompt_id = server.queue(graph)
    server.wait(prompt_id, timeout=3600)
    return {"wall": time.monotonic() - started, "executed": execution_seconds(server.history(prompt_id))}


def by_command(server: ComfyClient, folder: Path, seed: int) -> dict[str, float]:
    """Return the same of the batch command, from the start of its process to the end, with this story alone."""
    name = f"from_{seed}"
    line = [sys.executable, "-m", "batch", *_arguments(server, folder, name, [_row(seed, PROMPTS)])]
    started = time.monotonic()
    subprocess.run(line, check=True, cwd=REPOSITORY)
    wall = time.monotonic() - started
    record = OutputFolder(folder / name).record(f"s{seed}")
    return {"wall": wall, "executed": execution_seconds(server.history(record.prompt_id))}


def check(server: ComfyClient, folder: Path) -> float:
    """Return the processor seconds of this process in which the command checks a large table."""
    rows = [_row(seed, PROMPTS * MANY_PROMPTS) for seed in range(MANY)]
    options = command_line().parse_args(_arguments(server, folder, "checked", rows, "--check"))
    started = time.process_time()
    assert run.main(options) == 0, "a row cannot be made; see above"
    return time.process_time() - started


def place(graph: dict[str, Any], folder: Path, num_models: int) -> float:
    """Return the processor seconds in which every story of a large table is given to one of many places.

    Args:
        num_models: how many LoRAs the stories take turns with. With one for each story no place holds what a story needs, and
            each time all that wait are looked at.
    """
    row = Story("", Place("", 1), {}, folder)
    stories = {str(n): PreparedStory(replace(row, name=str(n)), deepcopy(graph), {}, 1, "") for n in range(MANY)}
    for n, story in enumerate(stories.values()):
        story.graph["lora"] = {"class_type": "LoraLoaderModelOnly", "inputs": {"lora_name": f"{n % num_models}.safetensors"}}
    waiting = {name: {"any": story} for name, story in stories.items()}
    batch = Batch(waiting, OutputFolder(folder), Progress({}), places={str(n): "any" for n in range(MANY_PLACES)})
    started = time.process_time()
    assert all(batch.next_for(str(n % MANY_PLACES)) for n in range(MANY))
    return time.process_time() - started


def measure(server: ComfyClient, folder: Path, results: Results, num_pairs: int) -> None:
    """Measure pairs of a story by hand and one by the command, each first in turn; then what grows with the table."""
    graph = json.loads(GRAPH.read_text(encoding="utf-8"))
    by_hand(server, graph, 0)  # warm: models and files
    ways = {"by hand": partial(by_hand, server, graph), "batch run": partial(by_command, server, folder)}
    for number in range(num_pairs):
        say(f"pair {number + 1} of {num_pairs}")
        for place_in_pair, kind in enumerate(ways if number % 2 == 0 else reversed(ways)):
            results.get(f"{kind} {number}", partial(ways[kind], 2 * number + place_in_pair + 1))
            forget_cached(server)
    results.get("check", partial(check, server, folder))
    results.get("place", partial(place, graph, folder, 1))
    results.get("place mixed", partial(place, graph, folder, MANY))


def report(results: Results, num_pairs: int) -> str:
    """Return the table: the seconds beside ComfyUI's own, what the command adds to a story, and what grows with the table."""
    pairs = [[results.measured[f"{kind} {number}"] for kind in ("by hand", "batch run")] for number in range(num_pairs)]
    beside = [[one["wall"] - one["executed"] for one in pair] for pair in pairs]
    rows = [
        (number + 1, *(f"{one['executed']:.2f}" for one in pair), *(f"{seconds:.3f}" for seconds in beside[number]))
        for number, pair in enumerate(pairs)
    ]
    head = (f"pair, {len(PROMPTS)} clips a story", "s in ComfyUI by hand", "by command", "s beside it by hand", "by command")
    added = sorted(command - hand for hand, command in beside)
    median, by_hand_seconds = statistics.median(added), statistics.median(pair[0]["wall"] for pair in pairs)
    checked = results.measured["check"]
    placed, mixed = (results.measured[name] / MANY * 1000 for name in ("place", "place mixed"))
    told = (
        f"The command adds {median:.3f} s to a story ({added[0]:.3f} to {added[-1]:.3f}), {median / by_hand_seconds:.1%} of "
        f"its {by_hand_seconds:.2f} s by hand, and the start of its process is in each: a table of many shares it.\n\n"
        f"It checks {MANY} rows of {len(PROMPTS) * MANY_PROMPTS} prompts in {checked:.1f} s of one core, "
        f"and gives each of {MANY} stories to one of {MANY_PLACES} places in {placed:.2f} ms, "
        f"in {mixed:.2f} ms with a LoRA of its own."
    )
    return f"{table(head, rows)}\n\n{told}\n\n{table(('measured on', ''), results.content['machine'].items())}\n"


def main(arguments: list[str]) -> int:
    """Measure what is missing, and print and store the table."""
    parser = benchmark_command_line("batch", "What a batch adds to each story.", OUTPUT)
    parser.add_argument("--pairs", type=int, default=6, help="of a story by hand and one by the command (default: 6)")
    options = parser.parse_args(arguments)
    environment = ensure_environment()
    results = Results(options.output / "batch.json", {}, machine_facts(environment.comfyui), options.fresh)
    with (
        tempfile.TemporaryDirectory() as folder,
        ComfyServer(environment, Path(folder) / "server", model_roots=[REPOSITORY / "demo" / "models"]) as server,
    ):
        server.add_input(IMAGE, "boat.png")
        measure(server, Path(folder), results, options.pairs)
    text = report(results, options.pairs)
    (options.output / "batch.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0


def _row(seed: int, prompts: Sequence[str]) -> dict[str, object]:
    return {"name": f"s{seed}", "image": str(IMAGE), "prompts": list(prompts), "seed": seed}


def _arguments(server: ComfyClient, folder: Path, output: str, rows: Sequence[Mapping[str, object]], *more: str) -> list[str]:
    """Write a table of `rows` into `folder`; return the command's arguments for it."""
    path = folder / f"{output}.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return ["run", str(path), "--workflow", str(GRAPH), "--output", str(folder / output), "--server", server.url, *more]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
