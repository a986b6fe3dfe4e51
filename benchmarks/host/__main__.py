"""Measure every step of the host: ``python -m benchmarks.host``."""

import sys
from dataclasses import asdict, replace
from pathlib import Path
from statistics import median

import torch

from benchmarks.gpu.comfyui import load_pack
from benchmarks.gpu.shapes import SHAPES
from benchmarks.host.controls import poses_read, talk_clip
from benchmarks.host.loop import FRAMES, clip_steps
from benchmarks.loop.report import table
from benchmarks.machine import machine_facts
from benchmarks.results import Results, command_line
from dev.environment import REPOSITORY, say
from training.model.comfy_runtime import find_comfyui

OUTPUT = REPOSITORY / ".runtime" / "benchmarks"
LIMIT = 0.05  # seconds
NUM_CLIPS = 6
TALK, DANCE = "Talk: a clip's audio tokens, the processor's share", "Dance: a clip's poses, read beside the clip before"
SMALL = {"num_frames": 13, "width": 32, "height": 32}


def main(arguments: list[str] | None = None) -> int:
    """Measure what is missing; print and store the table."""
    parser = command_line("host", "The host's steps for each clip, on CPU.", OUTPUT)
    parser.add_argument("--quick", action="store_true", help="a small clip: to see that it works, not to publish")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    load_pack()
    shapes = replace(SHAPES["14b"], **SMALL) if options.quick else SHAPES["14b"]
    num_clips = 2 if options.quick else NUM_CLIPS
    facts = machine_facts(find_comfyui())
    results = Results(options.output / "host.json", {"shapes": asdict(shapes), "clips": num_clips}, facts, options.fresh)
    say("host: the clip loop")
    results.get("loop", lambda: clip_steps(shapes, num_clips))
    for name, measure in ((TALK, talk_clip), (DANCE, poses_read)):
        say(f"host: {name}")
        results.get(name, lambda measure=measure: measure(shapes, num_clips))
    text = report(results)
    Path(options.output / "host.md").write_text(text, encoding="utf-8")
    sys.stdout.write(text)
    return 0


def report(results: Results) -> str:
    """Return the table: median seconds with the least and the most, and what the limit says."""
    loop = results.measured["loop"]
    steps = {name: taken for name, taken in loop.items() if name != FRAMES}
    sums = [[sum(step[clip][kind] for step in steps.values()) for kind in (0, 1)] for clip in range(len(loop[FRAMES]))]
    others = {name: taken for name, taken in results.measured.items() if name != "loop"}
    rows = []
    for name, taken in {**steps, "the steps above together": sums, FRAMES: loop[FRAMES], **others}.items():
        wall, processor = ([clip[kind] for clip in taken] for kind in (0, 1))
        verdict = "" if name == FRAMES else "under" if median(wall) < LIMIT else "over"
        rows.append((name, *(f"{median(s):.4f} ({min(s):.4f} to {max(s):.4f})" for s in (wall, processor)), verdict))
    facts = table(("measured on", ""), results.content["machine"].items())
    return f"{table(('', 'wall s', 'processor s', f'{LIMIT:g} s'), rows)}\n\n{facts}\n"


if __name__ == "__main__":
    sys.exit(main())
