"""Write another seed for one clip into a schedule's text, and leave the rest of the text as it is.

Only the paragraph of that clip changes. A paragraph of several clips (``x3``) becomes up to three paragraphs; a clip beyond the
end of the text, for which the last prompt holds, gets a paragraph at the end. A paragraph whose options do not fill its first
line is written anew, and so is a whole list with a number on each line.
"""

import re
from dataclasses import dataclass, replace

from .options import option_name
from .paragraphs import ScheduleError, half_width, is_empty_options, is_options_line, paragraph_lines, seen
from .prompt_lists import PromptSplit, is_plain_list, normalised_text
from .spec import MAX_CLIPS, Paragraph, Schedule
from .text import format_schedule, parse_schedule

_ONLY_FIRST = {"seed", "cut"}  # options that hold for the first clip of a paragraph only
_ONLY_LAST = {"end", "hold"}  # and for the last one only


def with_seed(text: str, clip_index: int, seed: int, split: PromptSplit = PromptSplit.PARAGRAPHS) -> str:
    """Return `text` with the seed of clip `clip_index` (0-based) set to `seed`; all other clips stay as they are.

    Raises:
        ScheduleError: a mistake in the text, or a seed out of range.
        ValueError: a text of plain prompts, which takes no options, or a clip that no run reaches.
    """
    if not 0 <= clip_index < MAX_CLIPS:
        raise ValueError(f"clip_index is {clip_index}: clips count from 0, and a run has at most {MAX_CLIPS}.")
    text = normalised_text(text)
    before = parse_schedule(text, split)
    if is_plain_list(text, split):
        raise ValueError(
            "this text is a list of plain prompts, which takes no options: write one paragraph per clip, separated by blank "
            "lines, and choose split = paragraphs."
        )
    for edit in (_edited, _rewritten_paragraph, _rewritten):
        edited = edit(text, before, clip_index, seed)
        if edited is not None and _differs_in_that_seed_only(edited, before, clip_index, seed):
            return edited
    raise AssertionError(f"no text has seed {seed} for clip {clip_index} of {text!r}")


def _differs_in_that_seed_only(edited: str, before: Schedule, clip_index: int, seed: int) -> bool:
    """Whether `edited` asks for the clips of `before`, but for that seed.

    Raises:
        ScheduleError: a seed out of range.
    """
    try:
        after = parse_schedule(edited)
    except ScheduleError:
        parse_schedule(f"[seed {seed}]\na")
        return False
    for index in range(max(len(before), len(after), clip_index + 1)):
        wanted = replace(before.at(index), seed=seed) if index == clip_index else before.at(index)
        if after.at(index) != wanted:
            return False
    return True


@dataclass(frozen=True)
class _Block:
    """One paragraph as written.

    Attributes:
        start: index of its first line in the text.
        stop: index after its last line.
        options: as written, without commas.
        prompt: lines of its prompt as written, with comments.
    """

    start: int
    stop: int
    options: tuple[str, ...]
    prompt: tuple[str, ...]

    def piece(self, seed: int | None, repeat: int, *, first: bool, last: bool, comments: bool) -> str:
        """Return the text of a paragraph for `repeat` of its clips, with those options that hold for them."""
        dropped = {"x", *(() if first else _ONLY_FIRST), *(() if last else _ONLY_LAST)}
        options = [option for option in self.options if option_name(option) not in dropped]
        if seed is not None:
            options = [f"seed {seed}" if option_name(option) == "seed" else option for option in options]
            options += [f"seed {seed}"] if f"seed {seed}" not in options else []
        options += [f"x{repeat}"] if repeat > 1 else []
        prompt = [line for line in self.prompt if comments or not seen(line).startswith("#")]
        guarded = options or is_options_line(next(line for line in prompt if not seen(line).startswith("#")))
        return "\n".join([f"[{', '.join(options)}]", *prompt] if guarded else prompt)


def _edited(text: str, schedule: Schedule, clip_index: int, seed: int) -> str | None:
    """Return `text` with the options line of that clip changed; None where a paragraph holds several numbered prompts."""
    lines = text.split("\n")
    blocks = _blocks(text)
    if len(blocks) != len(schedule.paragraphs):
        return None
    if clip_index >= len(schedule):
        return _appended(text, blocks[-1], clip_index - len(schedule), seed)
    which, position = _place(schedule, clip_index)
    block, repeat = blocks[which], schedule.paragraphs[which].repeat
    new = _divided(block, repeat, position, seed) if repeat > 1 else _reseeded(lines, block, seed)
    return "\n".join([*lines[: block.start], new, *lines[block.stop :]])


def _rewritten_paragraph(text: str, schedule: Schedule, clip_index: int, seed: int) -> str | None:
    """Return `text` with the paragraph of that clip written anew below its comments; None as in :func:`_edited`."""
    blocks = _blocks(text)
    if len(blocks) != len(schedule.paragraphs) or clip_index >= len(schedule):
        return None
    which, position = _place(schedule, clip_index)
    lines, block = text.split("\n"), blocks[which]
    comments = [line for line in lines[block.start : block.stop] if seen(line).startswith("#")]
    new = format_schedule(Schedule(tuple(_parts(schedule.paragraphs[which], position, seed))))
    return "\n".join([*lines[: block.start], *comments, new.rstrip("\n"), *lines[block.stop :]])


def _rewritten(text: str, schedule: Schedule, clip_index: int, seed: int) -> str:
    """Return the text of all clips, written anew without comments and numbers."""
    paragraphs = list(schedule.paragraphs)
    if clip_index >= len(schedule):
        gap = clip_index - len(schedule)
        paragraphs.append(Paragraph(schedule.at(len(schedule)), gap + 1))
    schedule = Schedule(tuple(paragraphs))
    which, position = _place(schedule, clip_index)
    paragraphs[which : which + 1] = _parts(paragraphs[which], position, seed)
    return format_schedule(Schedule(tuple(paragraphs)))


def _place(schedule: Schedule, clip_index: int) -> tuple[int, int]:
    """Return the number of the clip's paragraph and the clip's place in it, both from 0."""
    for which, paragraph in enumerate(schedule.paragraphs):
        if clip_index < paragraph.repeat:
            return which, clip_index
        clip_index -= paragraph.repeat
    raise AssertionError("the schedule is longer than its paragraphs")


def _parts(paragraph: Paragraph, position: int, seed: int) -> list[Paragraph]:
    """Return the clips before `position`, that clip with `seed`, and those after it."""
    after = paragraph.repeat - position - 1
    later = replace(paragraph.spec, seed=None, cut=False)
    own = replace(later if position else paragraph.spec, seed=seed)
    parts = [Paragraph(replace(paragraph.spec, end=None, hold=0), position)] if position else []
    parts.append(Paragraph(replace(own, end=None, hold=0) if after else own))
    return [*parts, Paragraph(later, after)] if after else parts


def _blocks(text: str) -> "list[_Block]":
    lines = text.split("\n")
    return [_block(lines, range(part[0][0] - 1, part[-1][0])) for part in paragraph_lines(text)]


def _block(lines: list[str], where: range) -> _Block:
    first = lines[where.start]
    has_options = is_options_line(first)
    options = first.strip()[1:-1].split(",") if has_options else []
    prompt = lines[where.start + has_options : where.stop]
    return _Block(where.start, where.stop, tuple(o.strip() for o in options if o.strip()), tuple(prompt))


def _reseeded(lines: list[str], block: _Block, seed: int) -> str:
    """Return a paragraph of one clip with its seed set, otherwise letter for letter as it was."""
    first, *others = lines[block.start : block.stop]
    if is_empty_options(first) and any("[" in half_width(line) or "#" in line for line in others):
        return "\n".join([f"[seed {seed}]", first, *others])  # all below [] is prompt
    if not is_options_line(first):
        return "\n".join([f"[seed {seed}]", first, *others])
    changed, found = re.subn(r"([\[,]\s*)seed\b[^,\]]*", rf"\g<1>seed {seed}", first, count=1, flags=re.IGNORECASE)
    if not found:
        begin, _, end = first.rpartition("]")
        comma = ", " if block.options else ""
        changed = f"{begin.rstrip(', ' if block.options else ' ')}{comma}seed {seed}]{end}"
    return "\n".join([changed, *others])


def _divided(block: _Block, repeat: int, position: int, seed: int) -> str:
    """Return a paragraph of `repeat` clips split into the clips before `position`, that clip, and those after it."""
    after = repeat - position - 1
    pieces = [block.piece(None, position, first=True, last=False, comments=True)] if position else []
    pieces.append(block.piece(seed, 1, first=position == 0, last=after == 0, comments=position == 0))
    pieces += [block.piece(None, after, first=False, last=True, comments=False)] if after else []
    return "\n\n".join(pieces)


def _appended(text: str, last: _Block, gap: int, seed: int) -> str:
    """Return `text` with paragraphs for the clips up to one that lies `gap` clips beyond its end."""
    pieces = [last.piece(None, gap, first=False, last=False, comments=False)] if gap else []
    pieces.append(last.piece(seed, 1, first=False, last=False, comments=False))
    return "\n\n".join([text.rstrip(), *pieces]) + "\n"
