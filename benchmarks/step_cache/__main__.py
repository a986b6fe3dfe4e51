"""Measure every threshold in turn: ``python -m benchmarks.step_cache``."""

import json
import re
import sys
import time
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.chart import draw_bars
from benchmarks.loop.report import table
from benchmarks.machine import machine_facts
from benchmarks.results import Results, command_line
from benchmarks.seams.__main__ import STORIES, Request, video_of
from comfyui.server import ComfyServer
from demo.run import fill_graph, node_of_type
from dev.environment import REPOSITORY, ensure_environment, execute_inside, say
from svi_core.look.drift import measure_drift

OUTPUT = REPOSITORY / ".runtime" / "benchmarks"
THRESHOLDS = (0.0, 0.1, 0.2, 0.4)  # 0: without EasyCache; 0.2 is its default
CACHE = {"start_percent": 0.15, "end_percent": 0.95, "verbose": False}
SKIPPED = re.compile(r"EasyCache - skipped (\d+)/(\d+) steps")


def graph_of(server: ComfyServer, image: str, threshold: float, num_clips: int, num_steps: int) -> dict:
    """Return the demo's graph with many steps, and with EasyCache behind both experts."""
    graph = json.loads((REPOSITORY / "demo" / "demo_workflow_api.json").read_text(encoding="utf-8"))
    fill_graph(graph, Request(STORIES[image], num_clips, 7), server.add_input(REPOSITORY / "demo" / "images" / image))
    node_of_type(graph, "BasicScheduler")["inputs"]["steps"] = num_steps
    generate = node_of_type(graph, "SVIGenerate")["inputs"]
    generate["filename_prefix"] = f"step_cache/{Path(image).stem}-{threshold:g}"
    for name in ("model", "model_low_noise") if threshold else ():
        inputs = {"model": generate[name], "reuse_threshold": threshold, **CACHE}
        graph[f"cached {name}"] = {"class_type": "EasyCache", "inputs": inputs}
        generate[name] = [f"cached {name}", 0]
    return graph


def measure(server: ComfyServer, image: str, threshold: float, num_clips: int, num_steps: int) -> dict[str, float]:
    """Run one graph; return the share of steps skipped, its seconds and its drift."""
    graph = graph_of(server, image, threshold, num_clips, num_steps)
    log_before, began = len(server.log_path.read_text(errors="replace")), time.monotonic()
    server.run(graph)
    seconds = time.monotonic() - began
    skipped = SKIPPED.findall(server.log_path.read_text(errors="replace")[log_before:])
    folder = server.output_directory / node_of_type(graph, "SVIGenerate")["inputs"]["filename_prefix"]
    lengths, frames = video_of(folder)
    report = measure_drift(frames, lengths)
    first, last = report.clips[0], report.clips[-1]
    plain = folder.with_name(f"{Path(image).stem}-0")
    away = np.abs(np.stack(frames).astype(np.float32) - np.stack(video_of(plain)[1])).mean()
    return {
        "skipped": sum(int(count) for count, _ in skipped) / (num_clips * num_steps),
        "seconds": seconds,
        "colour": report.colour_distance[-1],
        "sharpness": last.sharpness - first.sharpness,
        "contrast": last.contrast - first.contrast,
        "away": float(away),
        "valid": float(report.verdict == "valid"),
    }


def main(arguments: list[str]) -> int:
    """Measure what is missing, and print and store table and plot."""
    parser = command_line("step_cache", "Many steps with EasyCache, on CPU.", OUTPUT)
    parser.add_argument("--clips", type=int, default=3)
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args(arguments)
    environment = ensure_environment()
    settings = {"clips": options.clips, "steps": options.steps}
    facts = machine_facts(environment.comfyui)
    results = Results(options.output / "step_cache.json", settings, facts, options.fresh)
    with ComfyServer(environment, options.output / "step_cache.work", model_roots=[REPOSITORY / "demo" / "models"]) as server:
        for image, threshold in product(STORIES, THRESHOLDS):
            say(f"step_cache: {image}, threshold {threshold:g}")
            run = (server, image, threshold, options.clips, options.steps)
            results.get(f"{image}, threshold {threshold:g}", lambda run=run: measure(*run))
    text, shares = report(results)
    (options.output / "step_cache.md").write_text(text, encoding="utf-8")
    draw_bars("Share of steps that EasyCache skips", shares).save(options.output / "step_cache.png")
    sys.stdout.write(text)
    return 0


def report(results: Results) -> tuple[str, dict[str, float]]:
    """Return the table of all runs, and the share of steps that each skips."""
    head = ("", "steps skipped, %", "seconds", "colour distance", "sharpness", "contrast", "away, of 255", "verdict")
    rows = []
    for name, found in results.measured.items():
        columns = (f"{found['colour']:.3f}", f"{found['sharpness']:+.3f}", f"{found['contrast']:+.3f}", f"{found['away']:.1f}")
        verdict = "valid" if found["valid"] else "INVALID"
        rows.append((name, f"{100 * found['skipped']:.0f}", f"{found['seconds']:.0f}", *columns, verdict))
    facts = table(("measured on", ""), results.content["machine"].items())
    return f"{table(head, rows)}\n\n{facts}\n", {name: found["skipped"] for name, found in results.measured.items()}


if __name__ == "__main__":
    environment = ensure_environment()
    if Path(sys.executable) != environment.python and Path(sys.prefix) != environment.python.parent.parent:
        execute_inside(environment, ["-m", "benchmarks.step_cache", *sys.argv[1:]])
    sys.exit(main(sys.argv[1:]))
