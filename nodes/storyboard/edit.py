"""Answer POST /svi/edit: actions on a schedule's text, one after the other, and what they cost together."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from ...svi_core.clips.clip_plan import ClipPlan
from ...svi_core.dry_run.run_estimate import estimate_run
from ...svi_core.files.atomic_file import write_bytes
from ...svi_core.files.text_file import decode_text, encode_text, read_bytes, require_unicode
from ...svi_core.schedule import edits
from ...svi_core.schedule.prompt_lists import PromptSplit
from ...svi_core.schedule.reroll import new_seed
from ...svi_core.schedule.spec import MAX_CLIPS, Schedule
from ...svi_core.schedule.text import parse_schedule
from ...svi_core.systems.layouts import LAYOUTS
from ..bridge.clip_times import earlier_times
from ..bridge.routes import Asked, asked_split, typed
from ..schedule import input_text_file
from .asked_run import UNCHECKED, read_asked_run
from .places import num_line_ends, offset_of, utf16_length


def edit(asked: Asked) -> dict:
    """Return the text of a schedule after one or more actions, what the last one changed, and which clips all of them outdate.

    Raises:
        ValueError: a bad request, a mistake in the text, or an action that the text cannot hold.
        OSError: a live schedule's file cannot be written.
    """
    text, split = typed(asked, "text", str), asked_split(asked)
    require_unicode(text, "text")
    num_clips = None if asked.get("num_clips") is None else _num_clips(asked)
    made, seed = edits.Edited(text, split, 0, 0, 0), None
    for action in _actions(asked):
        made, seed = _edited(made.text, made.split, action)
    if asked.get("file") is not None and asked.get("apply") is not False:
        _write_file(typed(asked, "file", str), text, made.text)
    before, after = _parsed(text, split), parse_schedule(made.text, made.split)
    reply = {
        "text": made.text,
        "split": made.split.value,
        "clip": made.clip,
        "range": _range(made),
        "cost": None if before is None else _exact_cost(asked, num_clips, before, after) or _cost(before, after),
        "notes": [] if before is None else list(_notes(before, after)),
    }
    return reply if seed is None else {**reply, "seed": seed}


def _actions(asked: Asked) -> list[dict]:
    """Return the actions that a request asks for."""
    actions = typed(asked, "actions", list)
    if not actions or not all(isinstance(action, dict) for action in actions):
        raise ValueError(f"actions is {str(actions)[:80]!r}: send at least one object.")
    return actions


def _parsed(text: str, split: PromptSplit) -> Schedule | None:
    """Return the schedule of a text; None for a text with a mistake, which only `replace` can mend."""
    try:
        return parse_schedule(text, split)
    except ValueError:
        return None


def _edited(text: str, split: PromptSplit, action: Mapping) -> tuple[edits.Edited, int | None]:
    """Return the text after an action, and the seed that it drew."""
    kind = typed(action, "do", str)
    if kind == "as_paragraphs":
        return edits.as_paragraphs(text, split), None
    if kind == "replace":
        new = edits.with_line_ends_of(text, typed(action, "new_text", str))
        require_unicode(new, "new_text")
        parse_schedule(new, split)
        return edits.Edited(new, split, 0, *edits.changed_span(text, new)), None
    clip, seed = typed(action, "clip", int), None
    if kind == "reroll":
        seed = new_seed() if action.get("seed") is None else typed(action, "seed", int)
    change = _change(kind, action, clip, seed)
    return edits.edited(text, split, change, clip, is_new=kind == "insert"), seed


def _change(kind: str, action: Mapping, clip: int, seed: int | None) -> edits.Change:
    """Return the edit that an action names; raise ValueError for an unknown one."""
    if kind == "reroll":
        assert seed is not None
        return edits.reroll(clip, seed)
    if kind in ("set_prompt", "insert"):
        prompt = typed(action, "prompt", str)
        require_unicode(prompt, "prompt")
        options = action.get("options") or ""
        return edits.set_prompt(clip, prompt) if kind == "set_prompt" else edits.insert(clip, prompt, str(options))
    simple = {"duplicate": edits.duplicate, "delete": edits.delete}
    if kind in simple:
        return simple[kind](clip)
    if kind == "move":
        return edits.move(clip, typed(action, "to", int))
    if kind == "split":
        return edits.split_clip(clip) if action.get("at") is None else _split_at(clip, typed(action, "at", int))
    if kind == "pin":
        return edits.pin(clip, typed(action, "key", str))
    if kind == "unpin":
        return edits.set_option(clip, "take", None)
    if kind == "set_option":
        return edits.set_option(clip, typed(action, "name", str), _option_value(action.get("value")))
    known = "set_prompt, set_option, insert, duplicate, delete, split, move, pin, unpin, reroll, as_paragraphs or replace"
    raise ValueError(f"do is {kind[:80]!r}: send {known}.")


def _split_at(clip: int, at: int) -> edits.Change:
    """Return the edit that splits a clip at a place of its prompt, as a browser counts."""
    return lambda cards: edits.split_clip(clip, offset_of(cards[clip].spec.prompt, at))(cards)


def _option_value(value: object) -> str | None:
    """Return the value of an option as it stands in a text."""
    if value is None or value is False:
        return None
    if value is True:
        return ""
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if not isinstance(value, str) or set(value) & set("[],\n\r"):
        raise ValueError(f"value is {str(value)[:80]!r}: send a number, or a text without brackets, commas and line ends.")
    return value.strip()


def _range(made: edits.Edited) -> dict[str, int]:
    """Return what changed, as a browser counts: in UTF-16."""
    before, changed = made.text[: made.start], made.text[made.start : made.stop]
    line, start = num_line_ends(before) + 1, utf16_length(before)
    return {"start": start, "stop": start + utf16_length(changed), "line": line, "end_line": line + num_line_ends(changed)}


def _write_file(name: str, before: str, text: str) -> None:
    """Write the text of a live schedule, unless somebody else has changed the file."""
    path = input_text_file(name)
    shown = f"the schedule file {path}"
    held = read_bytes(path, shown)
    if decode_text(held, shown) != before:
        raise ValueError(f"{shown} has changed since it was shown: look at it again, then edit.")
    write_bytes(path, encode_text(text, held))


def _cost(before: Schedule, after: Schedule) -> dict:
    """Return the clips that the text alone says will be other ones."""
    known = set(_keys(before))
    clips = [index for index, key in enumerate(_keys(after)) if key not in known]
    return {"clips": clips, "count": len(clips), "seconds": None, "exact": False}


def _keys(schedule: Schedule) -> list[str]:
    """Return a key for each clip that tells it from others, by the text alone."""
    plan, keys, key = ClipPlan(len(schedule), schedule, LAYOUTS["2.0 Pro"]), list[str](), None
    for index in range(len(schedule)):
        spec = schedule.at(index)
        request = plan.request_for(index, replace(spec, num_frames=None, num_motion_frames=None))
        key = spec.take or plan.plan_key(replace(request, spec=spec), None if request.starts_anew else key)
        keys.append(key)
    return keys


def _exact_cost(asked: Asked, num_clips: int | None, before: Schedule, after: Schedule) -> dict | None:
    """Return the stored clips that an edit outdates and the new ones that it asks for; None if the graph does not tell."""
    if asked.get("prompt") is None:
        return None
    try:
        found = read_asked_run(asked)
        runs = found.with_schedule(before), found.with_schedule(after, num_clips)
        was, now = (estimate_run(run, earlier_times()).clips for run in runs)
    except (ValueError, OSError, *UNCHECKED):  # the plan tells it; the text is edited all the same
        return None
    to_make_before = {clip.plan_key for clip in was if not clip.is_stored}
    clips = [index for index, clip in enumerate(now) if not clip.is_stored and clip.plan_key not in to_make_before]
    seconds = [now[index].seconds for index in clips]
    known = [number for number in seconds if number is not None]
    return {"clips": clips, "count": len(clips), "seconds": sum(known) if len(known) == len(seconds) else None, "exact": True}


def _num_clips(asked: Asked) -> int:
    """Return the num_clips that SVI Generate gets with an edit."""
    num_clips = typed(asked, "num_clips", int)
    if not 1 <= num_clips <= MAX_CLIPS:
        raise ValueError(f"num_clips is {str(num_clips)!r}: send a number from 1 to {MAX_CLIPS}.")
    return num_clips


def _notes(before: Schedule, after: Schedule) -> Iterator[str]:
    """Yield what else changes for clips whose own text does not."""
    if len(before) != len(after):
        return
    own_before, own_after = ([spec for part in story.paragraphs for spec in part.clips()] for story in (before, after))
    moved = [
        index
        for index in range(len(after))
        if own_before[index] == own_after[index] and before.at(index).anchor != after.at(index).anchor
    ]
    if moved:
        name = after.at(moved[0]).anchor or "main"
        which = f"Clip {moved[0] + 1} takes its" if len(moved) == 1 else f"Clips {moved[0] + 1} to {moved[-1] + 1} take their"
        yield f"{which} anchor from before: it is {name} now."
