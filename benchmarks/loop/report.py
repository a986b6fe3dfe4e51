"""Tables and plot of the loop benchmark, from what was measured."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.chart import draw_lines
from benchmarks.loop.graphs import GRAPHS, Job, num_shown_frames

COUNTS = ("VAE encodes", "encoded frames", "decoded frames", "text encodes", "patched weights", "model calls")


def write_report(content: dict[str, Any], output: Path) -> str:
    """Write loop.md and loop.png to the folder `output`; return the text of the former."""
    settings, measured = content["settings"], content["measured"]
    parts = [
        ("Counts", counts_table(settings, measured)),
        ("Time", times_table(settings, measured)),
        ("Memory", memory_table(settings, measured)),
        ("Queued again", requeue_table(settings, measured)),
        ("Measured on", table(("", ""), content["machine"].items())),
    ]
    text = "\n\n".join(f"### {title}\n\n{body}" for title, body in parts) + "\n"
    (output / "loop.md").write_text(text, encoding="utf-8")
    draw_memory(settings, measured).save(output / "loop.png")
    return text


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["-"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def counts_table(settings: dict[str, Any], measured: dict[str, Any]) -> str:
    """Return the counts of the first run on a fresh server."""
    job = job_of(settings, settings["counted_clips"])
    rows = [(name, *(measured[f"counts {kind}"]["cold"].get(name, 0) for kind in GRAPHS)) for name in COUNTS]
    shown = {kind: num_shown_frames(kind, job) for kind in GRAPHS}
    rows.append(("frames shown", *shown.values()))
    copied = {kind: measured[f"counts {kind}"]["cold"].get("copied frame bytes", 0) for kind in GRAPHS}
    rows.append(("bytes of frames copied (MB)", *(f"{value / 1e6:.1f}" for value in copied.values())))
    frame_bytes = 3 * 4 * job.side**2
    per_frame = [f"{copied[kind] / shown[kind] / frame_bytes:.2f}" for kind in GRAPHS]
    rows.append(("copies of each shown frame, as float32", *per_frame))
    return table((f"{job.num_clips} clips", *GRAPHS), rows)


def times_table(settings: dict[str, Any], measured: dict[str, Any]) -> str:
    """Return medians and spreads over all blocks, and the ratio inside each block."""
    blocks = [measured[f"times {block}"] for block in range(settings["num_blocks"])]
    job = job_of(settings, settings["timed_clips"])
    figures = {
        "CPU ms for each shown frame": lambda run: 1e3 * run["cpu_seconds"] / num_shown_frames(run["kind"], job),
        "wall ms for each shown frame": lambda run: 1e3 * run["wall_seconds"] / num_shown_frames(run["kind"], job),
        "CPU s for each clip": lambda run: run["cpu_seconds"] / job.num_clips,
        "wall s for each clip": lambda run: run["wall_seconds"] / job.num_clips,
    }
    rows = [(name, *compared(blocks, figure)) for name, figure in figures.items()]
    shares = {
        "waiting for video files, % of wall time": lambda run: 100 * run["video seconds"] / run["wall_seconds"],
        "ffmpeg, % of CPU time": lambda run: round(100 * run["child_cpu_seconds"] / run["cpu_seconds"], 6),
    }
    rows += [(name, *(spread(runs_of(blocks, kind), figure) for kind in GRAPHS), "") for name, figure in shares.items()]
    return table((f"runs of {job.num_clips} clips, {2 * len(blocks)} of each kind", *GRAPHS, "ours / stock"), rows)


def compared(blocks: list[list[dict]], figure) -> list[str]:
    """Return median and spread of `figure` for both kinds, then of their ratio in each block."""
    cells = [spread(runs_of(blocks, kind), figure) for kind in GRAPHS]
    ratios = [sum(map(figure, runs_of([block], "ours"))) / sum(map(figure, runs_of([block], "stock"))) for block in blocks]
    return [*cells, f"**{median(ratios):.2f}** ({min(ratios):.2f} to {max(ratios):.2f})"]


def runs_of(blocks: list[list[dict]], kind: str) -> list[dict]:
    return [run for block in blocks for run in block if run["kind"] == kind]


def spread(runs: list[dict], figure) -> str:
    """Return the median of `figure` over `runs`, with its lowest and highest value."""
    values = [figure(run) for run in runs]
    return f"{median(values):.3g} ({min(values):.3g} to {max(values):.3g})"


def memory_table(settings: dict[str, Any], measured: dict[str, Any]) -> str:
    """Return the peak resident memory of the runs, and what each further clip adds."""
    rows = []
    for num_clips in settings["memory_clips"]:
        runs = [measured.get(f"memory {kind} {num_clips}") for kind in GRAPHS]
        rows.append((num_clips, *(f"{run['peak_bytes'] / 1e6:.0f}" if run else "left out" for run in runs)))
    rows.append(("ffmpeg beside it, at most", *(f"{children(settings, measured, kind) / 1e6:.0f}" for kind in GRAPHS)))
    rows.append(("each clip adds", *(f"{growth(settings, measured, kind) / 1e6:.2f}" for kind in GRAPHS)))
    clip_bytes = 3 * 4 * settings["num_frames"] * settings["side"] ** 2
    rows.append(("the same, in float32 clips", *(f"{growth(settings, measured, kind) / clip_bytes:.2f}" for kind in GRAPHS)))
    return table(("clips: peak MB of the server's own memory", *GRAPHS), rows)


def growth(settings: dict[str, Any], measured: dict[str, Any], kind: str) -> float:
    """Return the bytes that each clip adds to the peak, between the shortest and the longest run."""
    points = memory_points(settings, measured, kind)
    (few, low), (many, high) = points[0], points[-1]
    return (high - low) / max(1, many - few)


def children(settings: dict[str, Any], measured: dict[str, Any], kind: str) -> int:
    """Return the peak memory of the server's child processes over all runs."""
    runs = [measured.get(f"memory {kind} {num_clips}") for num_clips in settings["memory_clips"]]
    return max(run["child_peak_bytes"] for run in runs if run)


def memory_points(settings: dict[str, Any], measured: dict[str, Any], kind: str) -> list[tuple[int, int]]:
    runs = [(num_clips, measured.get(f"memory {kind} {num_clips}")) for num_clips in settings["memory_clips"]]
    return [(num_clips, run["peak_bytes"]) for num_clips, run in runs if run]


def requeue_table(settings: dict[str, Any], measured: dict[str, Any]) -> str:
    """Return the cost of queueing the same graph again with ComfyUI's own cache empty."""
    rows = []
    for name, unit in (("wall_seconds", "wall s"), ("cpu_seconds", "CPU s"), ("model calls", ""), ("decoded frames", "")):
        for when in ("first", "again"):
            cells = [measured[f"counts {kind}"][when].get(name, 0) for kind in GRAPHS]
            shown = [f"{cell:.2f}" if unit else cell for cell in cells]
            rows.append((f"{when}: {unit or name}", *shown))
    return table((f"{settings['counted_clips']} clips", *GRAPHS), rows)


def draw_memory(settings: dict[str, Any], measured: dict[str, Any]):
    """Return the plot of memory versus clips."""
    title = f"Peak memory of a run, {settings['side']} x {settings['side']} pixels, {settings['num_frames']} frames a clip"
    lines = {kind: [(x, y / 1e6) for x, y in memory_points(settings, measured, kind)] for kind in GRAPHS}
    return draw_lines(title, "clips", "MB of the server's own", lines)


def job_of(settings: dict[str, Any], num_clips: int) -> Job:
    return Job(num_clips, settings["num_frames"], settings["side"])
