"""Measure every seam in turn: ``python -m benchmarks.seams``."""

import json
import sys
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path

import numpy as np

from benchmarks.chart import draw_bars
from benchmarks.loop.report import table
from benchmarks.machine import machine_facts
from benchmarks.results import Results, command_line
from comfyui.server import ComfyServer
from demo.run import fill_graph, node_of_type
from dev.environment import REPOSITORY, ensure_environment, execute_inside, say
from svi_core.store.records import read_manifest
from svi_core.video.seams import Seam
from svi_core.video.video_file import read_frames

OUTPUT = REPOSITORY / ".runtime" / "benchmarks"
NEAR = 6  # frames on each side that count as the seam
FAR = 24  # frames on each side with which it is compared
STORIES = {
    "boat.png": "the red boat on the blue sea sails to the right.\n\nthe red boat on the blue sea hops up and down.",
    "white_ball.png": "the white ball on the green grass rolls to the right.\n\nthe white ball on the green grass hops.",
}


@dataclass(frozen=True)
class Request:
    """The request for demo.run.fill_graph."""

    prompts: str
    num_clips: int
    seed: int


def seam_measures(frames: list[np.ndarray], seam: int) -> tuple[float, float]:
    """Return (jump, sharpness change) at the seam before frame `seam` of `frames` [H, W, 3] uint8."""
    grey = [frame.astype(np.float32).mean(axis=2) for frame in frames]
    changes = np.array([0.0, *(float(np.abs(b - a).mean()) for a, b in pairwise(grey))])
    sharp = np.array([np.log10((np.diff(g, 2, axis=0)[:, 1:-1] + np.diff(g, 2, axis=1)[1:-1]).var() + 1e-6) for g in grey])
    near = slice(seam - NEAR, seam + NEAR + 1)
    far = [i for i in range(max(1, seam - FAR), min(len(frames), seam + FAR)) if abs(i - seam) > NEAR]
    return float(changes[near].max() / np.median(changes[far])), float(sharp[near].min() - np.median(sharp[far]))


def measure(server: ComfyServer, image: str, seed: int, num_clips: int) -> dict[str, list[tuple[float, float]]]:
    """Return the measures of each seam of one run, for each treatment."""
    graph = json.loads((REPOSITORY / "demo" / "demo_workflow_api.json").read_text(encoding="utf-8"))
    fill_graph(graph, Request(STORIES[image], num_clips, seed), server.add_input(REPOSITORY / "demo" / "images" / image))
    generate = node_of_type(graph, "SVIGenerate")["inputs"]
    generate["filename_prefix"] = prefix = f"seams/{Path(image).stem}-{seed}"
    found = {}
    for seam in Seam:
        settings = {"codec": "h264", "crf": 5, "pixel_format": "yuv444p", "budget_gb": 0.0, "seam": seam.value}
        settings |= {"colour_match": 0.0, "length_seconds": 0.0}
        graph["output"] = {"class_type": "SVIOutput", "inputs": settings}
        generate["output"] = ["output", 0]
        server.run(graph)
        lengths, frames = video_of(server.output_directory / prefix)
        seams = [5 + 76 * index for index in range(1, num_clips)]  # where plain seams lie; blends end there
        assert sum(lengths) == len(frames)
        found[seam.value] = [seam_measures(frames, at) for at in seams]
    return found


def video_of(folder: Path) -> tuple[list[int], list[np.ndarray]]:
    """Return the lengths of the clips of a run's video, and its frames."""
    video = folder / json.loads((folder / "run.json").read_text())["video"]
    return [clip.num_frames for clip in read_manifest(video)], [frame.copy() for frame in read_frames(video)]


def main(arguments: list[str]) -> int:
    """Measure the seams that are missing, and print and store table and plot."""
    parser = command_line("seams", "Which seam jumps least, on CPU.", OUTPUT)
    parser.add_argument("--clips", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args(arguments)
    environment = ensure_environment()
    settings = {"clips": options.clips, "seeds": options.seeds}
    results = Results(options.output / "seams.json", settings, machine_facts(environment.comfyui), options.fresh)
    with ComfyServer(environment, options.output / "seams.work", model_roots=[REPOSITORY / "demo" / "models"]) as server:
        for image, number in product(STORIES, range(options.seeds)):
            seed = 1000 * number
            say(f"seams: {image}, seed {seed}")
            results.get(f"{image} {seed}", lambda image=image, seed=seed: measure(server, image, seed, options.clips))
    text, jumps = report(results)
    (options.output / "seams.md").write_text(text, encoding="utf-8")
    draw_bars("Jump at a seam, median: 1 is none", jumps).save(options.output / "seams.png")
    sys.stdout.write(text)
    return 0


def report(results: Results) -> tuple[str, dict[str, float]]:
    """Return the table of all seams, and the median jump of each treatment."""
    rows, medians = [], {}
    for seam in Seam:
        jumps, sharpness = np.array([pair for found in results.measured.values() for pair in found[seam.value]]).T
        medians[seam.value] = float(np.median(jumps))
        figures = (f"{medians[seam.value]:.2f}", f"{np.quantile(jumps, 0.9):.2f}", f"{np.median(sharpness):+.3f}")
        rows.append((seam.value, len(jumps), *figures))
    head = ("seam", "seams", "jump, median", "jump, 90 %", "sharpness change, median")
    facts = table(("measured on", ""), results.content["machine"].items())
    return f"{table(head, rows)}\n\n{facts}\n", medians


if __name__ == "__main__":
    environment = ensure_environment()
    if Path(sys.executable) != environment.python and Path(sys.prefix) != environment.python.parent.parent:
        execute_inside(environment, ["-m", "benchmarks.seams", *sys.argv[1:]])
    sys.exit(main(sys.argv[1:]))
