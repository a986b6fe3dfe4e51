"""The text format of a schedule: one prompt per clip, with options.

Clips are paragraphs separated by blank lines. A paragraph may begin with options in square brackets; the rest is the prompt:

    A woman walks through a sunlit kitchen.

    [seed 7, cfg 3.5, lora svi=0.8/1.0]
    She opens the window and looks out.

    [cut, anchor garden, x2]
    The garden in the evening, leaves move in the wind.

    [hold 16, end portrait]
    She smiles at the camera.

Options: ``seed N``, ``frames N`` (4n + 1), ``motion N`` (frames), ``cfg X``, ``anchor NAME``, ``end NAME`` (end image),
``lora NAME=S`` or ``NAME=HIGH/LOW``, ``cut`` (no motion from the clip before), ``seam drop|linear|eased`` (joint with the clip
before), ``hold N`` (repeat the last frame N times), ``xN`` (N clips from this paragraph). Lines that start with ``#`` are
comments.

Options may also stand before the prompt on its own line, or at its end. Brackets that hold no option are prose. All below a
line ``[]`` is prompt.
"""

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from .numbering import without_numbers
from .options import OptionGroup, format_options, has_numbers, holds_options, option_names, parse_options
from .paragraphs import (
    MARGIN,
    NO_PROMPT,
    Lines,
    ScheduleError,
    half_width,
    is_empty_options,
    is_options_line,
    paragraph_lines,
    seen,
)
from .prompt_lists import PromptSplit, is_plain_list, normalised_text, parse_prompts
from .spec import MAX_CLIPS, ClipSpec, Paragraph, Schedule

_GROUP = re.compile(r"\[([^\[\]]*)\]")
_FIRST = re.compile(rf"{MARGIN}\[([^\[\]]*)\]")
_LAST = re.compile(rf"\[([^\[\]]*)\]{MARGIN}\Z")  # from the last opening bracket on


def parse_schedule(text: str, split: PromptSplit = PromptSplit.PARAGRAPHS) -> Schedule:
    """Parse a schedule. Texts split by lines or bars and ``prompts = [...]`` files hold plain prompts without options.

    Raises:
        ScheduleError: an unknown option, an invalid value, options or numbers whose clip is not clear, or a paragraph without
            prompt.
        ValueError: no prompt at all, too many, or a broken prompt list.
    """
    text = normalised_text(text)
    if is_plain_list(text, split):
        paragraphs = tuple(Paragraph(ClipSpec(prompt)) for prompt in parse_prompts(text, split))
    else:
        paragraphs = tuple(_parse_paragraph(lines) for lines in without_numbers(paragraph_lines(text)))
    return _checked(paragraphs)


def parse_story(texts: Sequence[str], split: PromptSplit) -> Schedule:
    """Parse a list of texts with one prompt each as one schedule; a single text may hold any number of prompts.

    Raises:
        ValueError: as :func:`parse_schedule`, or one of several texts holds several prompts.
    """
    if len(texts) == 1:
        return parse_schedule(texts[0], split)
    paragraphs: list[Paragraph] = []
    for number, text in enumerate(texts, start=1):
        try:
            schedule = parse_schedule(text, split)
        except ValueError as error:
            raise ValueError(f"text {number} of {len(texts)}: {error}") from error
        if len(schedule.paragraphs) > 1:
            raise ValueError(
                f"text is a list of {len(texts)} texts, and text {number} holds {len(schedule.paragraphs)} prompts: a list is "
                "one story with a prompt in each. Queue stories one at a time, or join their prompts to one text."
            )
        paragraphs += schedule.paragraphs
    return _checked(tuple(paragraphs))


def _checked(paragraphs: tuple[Paragraph, ...]) -> Schedule:
    """Return the schedule of `paragraphs`; raise ValueError if there is none, or if it has too many clips."""
    if not paragraphs:
        raise ValueError("the prompt stream holds no prompt: write one prompt per clip, separated by blank lines.")
    if (total := sum(paragraph.repeat for paragraph in paragraphs)) > MAX_CLIPS:
        raise ValueError(f"the schedule asks for {total} clips: at most {MAX_CLIPS} can be made in one run.")
    return Schedule(paragraphs)


def format_schedule(schedule: Schedule) -> str:
    """Return the text of `schedule`; parsing it by paragraphs gives `schedule` again.

    Raises:
        ValueError: a prompt that would parse as something else: a comment, a list, several lines.
    """
    text = "\n\n".join(_format_paragraph(paragraph) for paragraph in schedule.paragraphs) + "\n"
    if not _reads_as(text, schedule):
        raise ValueError(
            "these prompts cannot be paragraphs, since together they would parse as a numbered list or as a list of quoted "
            "texts: leave out the numbers, or reword the first."
        )
    return text


def _reads_as(text: str, schedule: Schedule) -> bool:
    try:
        return parse_schedule(text) == schedule
    except ValueError:
        return False


def _parse_paragraph(lines: Lines) -> Paragraph:
    try:
        return _parsed_lines(tuple(line for _, line in lines))
    except ScheduleError:
        return _read_paragraph(lines)  # which names the lines of this text


@functools.lru_cache(maxsize=16_384)  # after an edit, all other paragraphs are as before
def _parsed_lines(lines: tuple[str, ...]) -> Paragraph:
    return _read_paragraph(list(enumerate(lines, start=1)))


def _read_paragraph(lines: Lines) -> Paragraph:
    start = lines[0][0]
    groups, lines = options_and_prompt(lines)
    paragraph = parse_options(groups)
    prompt = " ".join(" ".join(line.split()) for _, line in lines)
    if not prompt:
        raise ScheduleError(NO_PROMPT, start, 1)
    return replace(paragraph, spec=replace(paragraph.spec, prompt=prompt))


def options_and_prompt(lines: Lines) -> tuple[list[OptionGroup], Lines]:
    """Return the options of a paragraph, and the lines of its prompt with what is before it in its line blanked.

    Raises:
        ScheduleError: options whose clip is not clear.
    """
    before, lines, is_verbatim = _options_before(lines)
    after, lines = ([], lines) if is_verbatim else _options_after(lines)
    return [*before, *after], lines


def _options_before(lines: Lines) -> tuple[list[OptionGroup], Lines, bool]:
    """Return the options before the prompt, the lines of the prompt, and whether ``[]`` says that all of them are prompt."""
    groups: list[OptionGroup] = []
    for position, (number, line) in enumerate(lines):
        plain, begin, is_alone = half_width(line), 0, is_options_line(line)
        while match := _FIRST.match(plain, begin):
            is_certain = position == 0 and is_alone
            is_end = is_alone and is_empty_options(line)
            if not (is_certain or is_end or holds_options(match[1])):
                break
            groups.append(OptionGroup(match[1], number, match.start(1) + 1, is_certain))
            if is_end:
                return groups, lines[position + 1 :], True
            begin = match.end()
        if seen(line[begin:]):
            return groups, [(number, " " * begin + line[begin:]), *lines[position + 1 :]], False
    return groups, [], False


def _options_after(lines: Lines) -> tuple[list[OptionGroup], Lines]:
    """Return the options behind the prompt, and the prompt.

    Raises:
        ScheduleError: options whose clip is not clear.
    """
    groups, lines = list[OptionGroup](), list(lines)
    while lines:
        number, line = lines.pop()
        plain, end = half_width(line), len(line)
        while (match := _LAST.match(plain, max(0, plain.rfind("[", 0, end)), end)) and holds_options(match[1]):
            groups.append(OptionGroup(match[1], number, match.start(1) + 1))
            if option_names(match[1]) & {"cut", "seam"}:
                raise groups[-1].error(
                    "these options are about the start of a clip, but stand at its end: write them above the prompt, or "
                    "[] above it if they are words."
                )
            end = match.start()
        if seen(line[:end]):
            lines.append((number, line[:end]))
            break
    for group in _groups_within(lines):
        raise group.error(
            "these options stand inside a prompt: write a blank line above them if they begin the next clip, or put them above "
            "the prompt."
        )
    return groups[::-1], lines


def _groups_within(lines: Lines) -> Iterator[OptionGroup]:
    """Yield the brackets inside a prompt that hold options."""
    for number, line in lines:
        plain = half_width(line)
        for match in _GROUP.finditer(plain):
            if has_numbers(match[1]) or (is_options_line(plain) and holds_options(match[1])):
                yield OptionGroup(match[1], number, match.start(1) + 1)


def _format_paragraph(paragraph: Paragraph) -> str:
    """Return the text of one paragraph, with a line ``[]`` where the prompt would parse as options without it."""
    options = [format_options(paragraph.spec), f"x{paragraph.repeat}" if paragraph.repeat > 1 else ""]
    head = f"[{', '.join(filter(None, options))}]\n" if any(options) else ""
    for guard in ("", "[]\n"):
        text = head + guard + paragraph.spec.prompt
        if _reads_as(text, Schedule((paragraph,))):
            return text
    prompt = paragraph.spec.prompt
    shown = repr(prompt if len(prompt) <= 200 else prompt[:200] + "...")
    raise ValueError(f"the prompt {shown} cannot be a paragraph, since it would parse as something else: reword it.")
