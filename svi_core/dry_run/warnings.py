"""Warnings about a run: settings that SVI was not trained with, parts that do not match, missing files.

Source: docs/METHOD.md, 4.4 (seeds), 4.6 (size), 4.3 (experts), 3.3 (81 frames) and 4.5 (distilled LoRAs).
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from ..clips.clip_plan import SeedMode
from ..geometry import TRAINED_NUM_FRAMES
from ..schedule.doubts import length_doubt
from ..systems.applied_loras import missing_lora_warnings
from ..systems.layouts import LAYOUTS
from ..systems.lora_variant import require_lora_variants
from ..systems.variants import VARIANTS
from .expected_clips import ExpectedClip
from .requested_run import RequestedRun

TRAINED_SIZE = (832, 480)
_DISTILLED = re.compile(r"lightx2v|lightning|distill", re.IGNORECASE)
_MAX_LISTED = 5


def run_warnings(run: RequestedRun, clips: Sequence[ExpectedClip]) -> tuple[str, ...]:
    """Return the warnings about a run, the most serious first."""
    checks = (
        _files,
        _names,
        _variant,
        _missing_loras,
        _experts,
        _loras,
        _guidance,
        _schedule_length,
        _lengths,
        _motion,
        _size,
        _seeds,
    )
    return tuple(warning for check in checks for warning in check(run, clips)) + run.remarks


def listed(numbers: Iterable[int]) -> str:
    """Return ascending `numbers` as text, consecutive ones as ranges: "1 to 3, 7"."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and number == ranges[-1][1] + 1:
            ranges[-1][1] = number
        else:
            ranges.append([number, number])
    words = [str(low) if low == high else f"{low} to {high}" for low, high in ranges]
    return ", ".join(words[:_MAX_LISTED]) + (", ..." if len(words) > _MAX_LISTED else "")


def _files(run: RequestedRun, clips: Sequence[ExpectedClip]) -> Iterator[str]:
    for file in run.files:
        if file.num_bytes is None:
            yield f"{file.name} is in none of ComfyUI's model folders: the run will fail."
        elif file.complaint:
            yield f"{file.complaint} The run will fail."


def _names(run: RequestedRun, clips: Sequence[ExpectedClip]) -> Iterator[str]:
    """Warn of names in the schedule that no input provides; the run refuses them before its first step."""
    specs = [clip.request.spec for clip in clips]
    asked = dict.fromkeys(name for spec in specs for name in (spec.anchor, spec.end) if name is not None)
    known = ", ".join(map(repr, run.anchors)) or "none"
    for name in asked:
        if name not in (*run.anchors, "main"):
            yield f"the schedule names {name!r}, but the anchors input has {known}: the run will fail."
    rows = " ".join(run.lora_rows).lower()
    for name in dict.fromkeys(change.name for spec in specs for change in spec.loras):
        if name.lower() not in rows:
            yield f"the schedule changes LoRA {name!r}, but the loras input has no such file: the run will fail."


def _variant(run: RequestedRun, clips: Sequence[ExpectedClip]) -> Iterator[str]:
    """Warn of LoRAs of another SVI system; the run refuses those that nodes of this pack apply."""
    uses = {
        lora.name: (lora, lora.variant) for expert in run.experts for lora in expert.loras if lora.strength and lora.variant
    }
    for lora, variant in uses.values():
        try:
            require_lora_variants(run.plan.layout, [variant])
        except ValueError as error:
            yield f"{error} {'The run will fail.' if lora.is_checked else 'Clips will drift or turn to noise.'}"


def _missing_loras(run: RequestedRun, clips: Sequence[ExpectedClip]) -> Iterator[str]:
    return missing_lora_warnings((expert.on_it for expert in run.experts), run.plan.layout)


def _experts(run: RequestedRun, clips: Sequence[ExpectedClip]) -> Iterator[str]:
    experts = run.experts
    if len(experts) == 1 and experts[0].named_for is not None and not experts[0].merged.is_merge:
        other = "low" if experts[0].named_for == "high" else "high"
        yield (
            f"{experts[0].file} is the {experts[0].named_for}-noise expert of Wan 2.2, but the {other}-noise one is not "
            "connected: connect both, high to model and low to model_low_noise."
        )
    if len(experts) == 2 and experts[0].file is not None and experts[0].file == experts[1].file:
        yield f"model and model_low_noise are the same file, {experts[0].file}: load both experts."
        return
    for expert in experts[:2] if len(experts) == 2 else ():
        if expert.named_for not in (None, expert.expert):
            yield f"{expert.file} is the {expert.named_for}-noise expert, but it is used as the {expert.expert}-noise one."


def _loras(run: RequestedRun, clips: Sequence[ExpectedClip]) -> Iterator[str]:
    for expert in run.experts:
        side = expert.expert if expert.expert != "model" else expert.named_for
        is_open = expert.expert == "model" and (expert.merged.is_merge or expert.file is None)  # may hold both experts
        for lora in () if is_open else expert.loras:
            if lora.strength and lora.named_for not in (None, side):
                where = "a model without experts" if side is None else f"the {side}-noise expert"
                yield f"{lora.name} says it is for the {lora.named_for}-noise expert, but it is applied to {where}."


def _guidance(run: RequestedRun, clips: Sequence[ExpectedClip]) -> Iterator[str]:
    used = [lora.name for expert in run.experts for lora in expert.loras if lora.strength]
    names = [*(expert.file or "" for expert in run.experts), *used]
    distilled = next((name for name in names if _DISTILLED.search(name)), None)
    cfgs = [(clip.request.index + 1, run.cfg_of(clip.request)) for clip in clips]
    above = [index for index, cfg in cfgs if cfg is not None and cfg > 1.0]
    at_one = [index for index, cfg in cfgs if cfg == 1.0]
    if distilled and above:
        yield f"cfg is above 1 in clip {listed(above)}, but {distilled} is distilled: it is made for cfg 1, in half the time."
    if at_one and distilled is None and None not in (expert.file for expert in run.experts):
        yield (
            f"cfg is 1 in clip {listed(at_one)}, but no model or LoRA is named as distilled (lightx2v, lightning): "
            "prompts are followed less; 4 to 5 is as trained."
        )


def _schedule_length(run: RequestedRun, clips: Sequence[ExpectedClip]) -> Iterator[str]:
    num_clips, num_listed = len(clips), run.num_listed
    if run.until_stopped:
        yield f"until_stopped: clips are made until you press Cancel; the {num_listed} that the file describes now are shown."
    elif doubt := length_doubt(num_clips, num_listed):
        yield doubt


def _lengths(run: RequestedRun, clips: Sequence[ExpectedClip]) -> Iterator[str]:
    others = [clip for clip in clips if clip.request.layout.num_frames != TRAINED_NUM_FRAMES]
    if others:
        lengths = ", ".join(map(str, sorted({clip.request.layout.num_frames for clip in others})))
        where = listed(clip.request.index + 1 for clip in others)
        yield f"{lengths} frames in clip {where}: SVI is trained on clips of 81 frames only; longer ones fade."


def _motion(run: RequestedRun, clips: Sequence[ExpectedClip]) -> Iterator[str]:
    layouts = {clip.request.layout for clip in clips if not clip.request.starts_anew}
    for name, motion in sorted({(layout.name, layout.num_motion_frames) for layout in layouts}):
        trained = LAYOUTS[name].num_motion_frames
        if motion not in (trained, *VARIANTS[name].also_trained_with):
            yield f"{motion} motion frames: {name} is trained with {trained}."


def _size(run: RequestedRun, clips: Sequence[ExpectedClip]) -> Iterator[str]:
    if run.size is None or run.size == TRAINED_SIZE:
        return
    width, height = run.size
    reason = "portrait works less well" if height > width else "other sizes work less well the further away they are"
    yield f"{width} x {height} pixels: SVI is trained at 832 x 480; {reason}."


def _seeds(run: RequestedRun, clips: Sequence[ExpectedClip]) -> Iterator[str]:
    if len(clips) > 1 and run.plan.seed_mode is SeedMode.FIXED:
        yield "seed_mode is fixed: clips share the same noise, which builds up artefacts; per clip is as the authors do."
        return
    if not run.is_seed_known:
        return
    users: dict[int, list[int]] = defaultdict(list)
    for clip in clips:
        users[clip.request.seed].append(clip.request.index + 1)
    repeated = [(seed, numbers) for seed, numbers in users.items() if len(numbers) > 1]
    for seed, numbers in repeated[:3]:
        yield f"seed {seed} in clip {listed(numbers)}: the same noise in several clips builds up artefacts."
    if len(repeated) > 3:
        yield f"{len(repeated) - 3} more seeds are used several times."
