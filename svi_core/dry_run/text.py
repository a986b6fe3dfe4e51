"""A plan as text: the totals first, then what speaks against it, then one row per clip."""

from collections.abc import Sequence

from .dry_run import RunPlan
from .outline import PlannedClip
from .warnings import listed

_FIRST_ROWS, _LAST_ROWS = 24, 8  # of a long plan; what lies between is one row
_PROMPT_WIDTH = 80


def head_line(plan: RunPlan) -> str:
    """Return the totals of a plan in one line."""
    parts = [count(len(plan.clips), "clip"), count(plan.num_frames, "frame"), f"{plan.seconds:.1f} s of video"]
    if plan.outline.size is not None:
        parts.append(f"{plan.outline.size[0]} x {plan.outline.size[1]}")
    return ", ".join([*parts, _stored_words(plan)])


def plan_text(plan: RunPlan) -> str:
    """Return a plan as Markdown; the rows of a long one are left out in the middle."""
    return "\n".join([plan_summary(plan), *_clip_table(plan)]) + "\n"


def plan_summary(plan: RunPlan) -> str:
    """Return the part of a plan that comes before its clips, as Markdown that also reads well as it is."""
    facts = [
        ("stored", _stored_line(plan)),
        ("time", _time_line(plan)),
        ("disk", _disk_line(plan)),
        ("memory", _memory_line(plan)),
        ("sampling", _sampling_line(plan)),
        *(("not known yet", what) for what in plan.outline.not_known),
    ]
    lines = [head_line(plan), "", *(f"- {name}: {text}" for name, text in facts)]
    if plan.warnings:
        lines += ["", f"{count(len(plan.warnings), 'warning')}:", "", *(f"- {warning}" for warning in plan.warnings)]
    return "\n".join(lines) + "\n"


def count(number: int, noun: str) -> str:
    """Return "1 clip", "2 clips", "10 000 clips"."""
    return f"{_number(number)} {noun}{'' if number == 1 else 's'}"


def duration(seconds: float) -> str:
    """Return a time in the units that a person would use: "40 s", "3 min 20 s", "2 h 5 min", "3 days 4 h"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = [(days, "days" if days > 1 else "day"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((i for i, (value, _) in enumerate(units) if value), 3)
    return " ".join(f"{value} {unit}" for value, unit in units[first : first + 2] if value)


def size(num_bytes: float) -> str:
    """Return a number of bytes in kB, MB, GB or TB."""
    for unit in ("kB", "MB", "GB"):
        num_bytes /= 1000
        if num_bytes < 999.5:
            return f"{num_bytes:.3g} {unit}"
    return f"{num_bytes / 1000:.4g} TB"


def _number(number: int) -> str:
    return f"{number:,}".replace(",", " ")


def _stored_words(plan: RunPlan) -> str:
    known = "" if plan.num_stored is None else f"{_number(plan.num_stored)} stored, "
    time = f" in about {duration(plan.work_seconds)}" if plan.new_clips and plan.work_seconds is not None else ""
    return f"{known}{_number(len(plan.new_clips))} to make{time}"


def _stored_line(plan: RunPlan) -> str:
    if plan.num_stored is None:
        return "cannot be told, because folder, seed or beginning are not known yet"
    if not plan.new_clips:
        return f"all {_number(len(plan.clips))} clips are in {plan.outline.folder.name}: nothing is sampled"
    numbers = listed(clip.request.index + 1 for clip in plan.new_clips)
    return f"{_number(plan.num_stored)} of {count(len(plan.clips), 'clip')} reused; to make: clip {numbers}"


def _time_line(plan: RunPlan) -> str:
    if not plan.new_clips:
        return "none for sampling"
    if plan.time is None or plan.work_seconds is None:
        return "not measured yet: the first run with these models tells"
    per_clip = duration(plan.time.seconds)
    return f"about {duration(plan.work_seconds)}, {per_clip} a clip ({plan.time.source}); loading the models comes on top"


def _disk_line(plan: RunPlan) -> str:
    disk = plan.disk
    free = "" if disk.free_bytes is None else f"; {size(disk.free_bytes)} free"
    if disk.latent_bytes is None:
        return f"not known without the frame size{free}"
    source = "measured on this run's clips" if disk.is_measured else "a rough estimate"
    return f"{size(disk.latent_bytes)} of new latents, about {size(disk.video_bytes)} of video ({source}){free}"


def _memory_line(plan: RunPlan) -> str:
    files = [file for file in plan.outline.files if file.num_bytes is not None]
    parts = []
    if files:
        largest = max(files, key=lambda file: file.num_bytes)
        total = sum(file.num_bytes for file in files)
        parts.append(f"model files {size(total)}, the largest {size(largest.num_bytes)} ({largest.name})")
    if plan.outline.size is not None:
        width, height = plan.outline.size
        num_frames = max(clip.request.layout.num_frames for clip in plan.clips)
        parts.append(f"frames of one clip {size(num_frames * width * height * 3)}, whatever the number of clips")
    if plan.time is not None and plan.time.peak_bytes:
        parts.append(f"measured peak on the GPU {size(plan.time.peak_bytes)}")
    else:
        parts.append("peak on the GPU not measured yet")
    return "; ".join(parts)


def _sampling_line(plan: RunPlan) -> str:
    outline = plan.outline
    steps = "steps not known" if outline.num_steps is None else count(outline.num_steps, "step")
    cfgs = {outline.cfg_of(clip.request) for clip in plan.clips}
    cfg = "cfg not known" if None in cfgs else "cfg " + ", ".join(f"{value:g}" for value in sorted(cfgs))
    layout = outline.plan.layout
    return f"{steps} a clip, {cfg}; {layout.name}, {layout.num_frames} frames, {layout.num_motion_frames} carry motion"


def _clip_table(plan: RunPlan) -> list[str]:
    rows = ["| clip | begins | frames | seed | | options | prompt |", "|-|-|-|-|-|-|-|"]
    clips = plan.clips
    if len(clips) <= _FIRST_ROWS + _LAST_ROWS + 1:
        return rows + [_clip_row(plan, clip) for clip in clips]
    left_out = clips[_FIRST_ROWS:-_LAST_ROWS]
    between = f"| ... | | | | {_between(left_out)} | | {count(len(left_out), 'clip')} not shown here |"
    first, last = clips[:_FIRST_ROWS], clips[-_LAST_ROWS:]
    return [*rows, *(_clip_row(plan, clip) for clip in first), between, *(_clip_row(plan, clip) for clip in last)]


def _clip_row(plan: RunPlan, clip: PlannedClip) -> str:
    request = clip.request
    begins = f"{clip.begin:.2f} s"
    seed = request.seed if plan.outline.is_seed_known or request.spec.seed is not None else "?"
    state = {True: "stored", False: "new", None: "?"}[clip.is_stored]
    prompt = request.spec.prompt
    prompt = prompt if len(prompt) <= _PROMPT_WIDTH else prompt[: _PROMPT_WIDTH - 1].rstrip() + "…"
    cells = (request.index + 1, begins, clip.num_frames, seed, state, clip.options, prompt)
    return "| " + " | ".join(_cell(str(cell)) for cell in cells) + " |"


def _between(clips: Sequence[PlannedClip]) -> str:
    stored = sum(clip.is_stored is True for clip in clips)
    return f"{_number(stored)} stored" if stored else ""


def _cell(text: str) -> str:
    """Return `text` so that it stays in its cell of a Markdown table."""
    return " ".join(text.split()).replace("|", "\\|")
