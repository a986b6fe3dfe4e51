"""An estimate as text: totals, warnings, and one row per clip."""

from pathlib import Path

from ..store.clip_times import duration
from ..systems.applied_loras import loras_at_a_glance
from .expected_clips import ExpectedClip
from .run_estimate import RunEstimate
from .warnings import listed

_FIRST_ROWS, _LAST_ROWS = 24, 8  # of a long table; one row stands for those between
_PROMPT_WIDTH = 80


def head_line(estimate: RunEstimate) -> str:
    """Return the totals of an estimate on one line."""
    parts = [count(len(estimate.clips), "clip"), count(estimate.num_frames, "frame"), f"{estimate.seconds:.1f} s of video"]
    if estimate.run.size is not None:
        parts.append(f"{estimate.run.size[0]} x {estimate.run.size[1]}")
    return ", ".join([*parts, _stored_words(estimate)])


def estimate_text(estimate: RunEstimate) -> str:
    """Return an estimate as Markdown; a long table is cut in the middle."""
    return "\n".join([estimate_summary(estimate), *_clip_table(estimate)]) + "\n"


def estimate_summary(estimate: RunEstimate) -> str:
    """Return an estimate without its table of clips, as Markdown that reads well as plain text."""
    facts = [
        ("stored", _stored_line(estimate)),
        *([("folder", _folder_line(estimate.run.folder, estimate.num_stored))] if estimate.run.folder else []),
        ("time", _time_line(estimate)),
        ("disk", _disk_line(estimate)),
        ("memory", _memory_line(estimate)),
        ("sampling", _sampling_line(estimate)),
        *([("LoRAs", loras_at_a_glance(expert.on_it for expert in estimate.run.experts))] if estimate.run.experts else []),
        *(("not known yet", what) for what in estimate.run.not_known),
    ]
    lines = [head_line(estimate), "", *(f"- {name}: {text}" for name, text in facts)]
    if estimate.warnings:
        lines += ["", f"{count(len(estimate.warnings), 'warning')}:", "", *(f"- {warning}" for warning in estimate.warnings)]
    return "\n".join(lines) + "\n"


def count(number: int, noun: str) -> str:
    """Return "1 clip", "2 clips", "10 000 clips"."""
    return f"{_number(number)} {noun}{'' if number == 1 else 's'}"


def size(num_bytes: float) -> str:
    """Return a number of bytes in kB, MB, GB or TB."""
    for unit in ("kB", "MB", "GB"):
        num_bytes /= 1000
        if num_bytes < 999.5:
            return f"{num_bytes:.3g} {unit}"
    return f"{num_bytes / 1000:.4g} TB"


def _number(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _stored_words(estimate: RunEstimate) -> str:
    known = "" if estimate.num_stored is None else f"{_number(estimate.num_stored)} stored, "
    time = f" in about {duration(estimate.work_seconds)}" if estimate.new_clips and estimate.work_seconds is not None else ""
    return f"{known}{_number(len(estimate.new_clips))} to make{time}"


def _stored_line(estimate: RunEstimate) -> str:
    if estimate.num_stored is None or estimate.run.folder is None:
        return "unknown, because folder, seed or start are not known yet"
    if not estimate.new_clips:
        return f"all {_number(len(estimate.clips))} clips are in {estimate.run.folder.name}: nothing is sampled"
    numbers = listed(clip.request.index + 1 for clip in estimate.new_clips)
    return f"{_number(estimate.num_stored)} of {count(len(estimate.clips), 'clip')} reused; to make: clip {numbers}"


def _folder_line(folder: Path, num_stored: int | None) -> str:
    """Return a run's folder: that of an earlier day if its name holds the time and the run began then."""
    return f"{folder}" + (", where this run began" if num_stored else "")


def _time_line(estimate: RunEstimate) -> str:
    if not estimate.new_clips:
        return "none for sampling"
    if estimate.time is None or estimate.work_seconds is None:
        return "not measured yet: the first run with these models will measure it"
    per_clip = duration(estimate.time.seconds)
    return (
        f"about {duration(estimate.work_seconds)}, {per_clip} a clip ({estimate.time.source}); plus the time to load the models"
    )


def _disk_line(estimate: RunEstimate) -> str:
    disk = estimate.disk
    free = "" if disk.free_bytes is None else f"; {size(disk.free_bytes)} free"
    if disk.latent_bytes is None or disk.video_bytes is None:
        return f"not known without the frame size{free}"
    source = "measured on this run's clips" if disk.is_measured else "a rough estimate"
    return f"{size(disk.latent_bytes)} of new latents, about {size(disk.video_bytes)} of video ({source}){free}"


def _memory_line(estimate: RunEstimate) -> str:
    files = [(file.num_bytes, file.name) for file in estimate.run.files if file.num_bytes is not None]
    parts: list[str] = []
    if files:
        largest, name = max(files, key=lambda file: file[0])
        parts.append(f"model files {size(sum(file[0] for file in files))}, the largest {size(largest)} ({name})")
    if estimate.run.size is not None:
        width, height = estimate.run.size
        num_frames = max(clip.request.layout.num_frames for clip in estimate.clips)
        parts.append(f"frames of one clip {size(num_frames * width * height * 3)}, whatever the number of clips")
    if estimate.time is not None and estimate.time.peak_bytes:
        parts.append(f"measured peak on the GPU {size(estimate.time.peak_bytes)}")
    else:
        parts.append("peak on the GPU not measured yet")
    return "; ".join(parts)


def _sampling_line(estimate: RunEstimate) -> str:
    run = estimate.run
    steps = "steps not known" if run.num_steps is None else count(run.num_steps, "step")
    cfgs = {run.cfg_of(clip.request) for clip in estimate.clips}
    known = sorted(cfg for cfg in cfgs if cfg is not None)
    cfg = "cfg not known" if None in cfgs else "cfg " + ", ".join(f"{value:g}" for value in known)
    layout = run.plan.layout
    return f"{steps} a clip, {cfg}; {layout.name}, {layout.num_frames} frames, {layout.num_motion_frames} carry motion"


def _clip_table(estimate: RunEstimate) -> list[str]:
    rows = ["| clip | begins | frames | seed | | options | prompt |", "|-|-|-|-|-|-|-|"]
    clips = estimate.clips
    if len(clips) <= _FIRST_ROWS + _LAST_ROWS + 1:
        return rows + [_clip_row(estimate, clip) for clip in clips]
    left_out = clips[_FIRST_ROWS:-_LAST_ROWS]
    stored = sum(clip.is_stored is True for clip in left_out)
    state = f"{_number(stored)} stored" if stored else ""
    between = f"| ... | | | | {state} | | {count(len(left_out), 'clip')} not shown here |"
    first, last = clips[:_FIRST_ROWS], clips[-_LAST_ROWS:]
    return [*rows, *(_clip_row(estimate, clip) for clip in first), between, *(_clip_row(estimate, clip) for clip in last)]


def _clip_row(estimate: RunEstimate, clip: ExpectedClip) -> str:
    request = clip.request
    begins = f"{clip.begin:.2f} s"
    seed = request.seed if estimate.run.is_seed_known or request.spec.seed is not None else "?"
    state = {True: "stored", False: "new", None: "?"}[clip.is_stored]
    prompt = request.spec.prompt
    prompt = prompt if len(prompt) <= _PROMPT_WIDTH else prompt[: _PROMPT_WIDTH - 1].rstrip() + "…"
    cells = (request.index + 1, begins, clip.num_frames, seed, state, clip.options, prompt)
    return "| " + " | ".join(" ".join(str(cell).split()).replace("|", "\\|") for cell in cells) + " |"
