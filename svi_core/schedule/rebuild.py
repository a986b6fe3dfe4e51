"""Write a changed list of clips into the text that it was read from: what did not change keeps every letter.

Each way of writing is tried and read again by the parser, the one that changes least first, until one says what is meant.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from .options import format_options
from .paragraphs import seen
from .prompt_lists import PromptSplit
from .spec import ClipSpec, Paragraph, Schedule
from .text import format_schedule, parse_schedule
from .unit_text import comments_of, identity, piece, with_option, with_prompt
from .written import Unit, Written, numbered, read_written

_LIST_INDENT = "    "


@dataclass(frozen=True)
class Card:
    """One clip of the list.

    Attributes:
        spec: what the text says of this clip alone.
        unit: the paragraph that it comes from, or whose text it resembles; None for a new one.
        repeat: its place in that paragraph; beyond its last, the clip goes on after the end of the text.
        is_copy: another card stands for the clip of the paragraph.
    """

    spec: ClipSpec
    unit: int | None = None
    repeat: int = 0
    is_copy: bool = False


class _Way(IntEnum):
    """How to write what changed, the least change first."""

    IN_PLACE = 0
    OPTIONS_ABOVE = 1
    PARAGRAPH_ANEW = 2
    ALL_ANEW = 3


@dataclass(frozen=True)
class _Block:
    """A paragraph of the new text; `slot` is the paragraph of the old text whose place it keeps."""

    unit: Unit
    slot: int | None = None


def cards_of(schedule: Schedule, num_clips: int) -> list[Card]:
    """Return the clips of a schedule, at least `num_clips`: the last prompt goes on after the end of the text."""
    cards = [
        Card(spec, unit, repeat)
        for unit, paragraph in enumerate(schedule.paragraphs)
        for repeat, spec in enumerate(paragraph.clips())
    ]
    last, paragraph = len(schedule.paragraphs) - 1, schedule.paragraphs[-1]
    further = paragraph.spec.repeated(is_first=False, is_last=False)
    return cards + [Card(further, last, paragraph.repeat + more) for more in range(num_clips - len(cards))]


def rebuilt(text: str, split: PromptSplit, schedule: Schedule, cards: Sequence[Card]) -> str:
    """Return `text`, which reads as `schedule`, with the clips of `cards` instead.

    Raises:
        ValueError: a text of plain prompts cannot hold options, or a prompt would read as something else.
    """
    written = read_written(text, split)
    meant = Schedule(tuple(Paragraph(card.spec) for card in cards))
    if written.is_plain and any(format_options(card.spec) for card in cards):
        raise PlainTextError
    for way in _Way:
        edited = _written_anew(written, cards) if way is _Way.ALL_ANEW else _edited(written, schedule, cards, way)
        if edited is not None and _reads_as(edited, split, meant):
            return edited
    new = next((card.spec.prompt for card in cards if _is_changed(card, schedule)), cards[0].spec.prompt)
    reads = {
        PromptSplit.PARAGRAPHS: "a line that begins with # is a comment, and one of dashes parts clips",
        PromptSplit.LINES: "a line that begins with # is a comment, and one of dashes is left out",
        PromptSplit.BARS: "each | begins another prompt, and a line that begins with # is a comment",
    }
    raise ValueError(f"the prompt {new[:200]!r} would be read as something else, since {reads[split]}: reword it.")


class PlainTextError(ValueError):
    """An option for a text that holds none."""

    def __init__(self) -> None:
        super().__init__(
            "this text is a list of plain prompts, which takes no options: write one paragraph per clip, separated by blank "
            "lines, and choose split = paragraphs."
        )


def _reads_as(text: str, split: PromptSplit, meant: Schedule) -> bool:
    try:
        found = parse_schedule(text, split)
    except ValueError:
        return False
    return len(found) == len(meant) and all(_seen(found, index) == _seen(meant, index) for index in range(len(meant)))


def _seen(schedule: Schedule, index: int) -> ClipSpec:
    spec = schedule.at(index)
    return replace(spec, prompt=" ".join(spec.prompt.split()))


def _edited(written: Written, schedule: Schedule, cards: Sequence[Card], way: _Way) -> str | None:
    """Return the text with changed paragraphs written in `way`; None where paragraphs and text do not match."""
    if len(written.units) != len(schedule.paragraphs):
        return None
    try:
        blocks = [block for run in _runs(written, schedule, cards) for block in _blocks(written, schedule, run, way)]
    except ValueError:  # a prompt that no paragraph can hold
        return None
    gaps = _gaps(written, blocks)
    texts = [numbered(block.unit, number) for number, block in enumerate(blocks, start=1)]
    return "".join(part for pair in zip(gaps, [*texts, ""], strict=True) for part in pair)


def _runs(written: Written, schedule: Schedule, cards: Sequence[Card]) -> Iterator[list[Card]]:
    """Yield the cards in groups that one paragraph can hold."""
    run: list[Card] = []
    for card in cards:
        before = run[-1] if run else None
        joins = (
            before is not None
            and not written.is_plain
            and card.unit is not None
            and card.unit == before.unit
            and card.repeat == before.repeat + 1
            and not (_is_changed(card, schedule) or _is_changed(before, schedule))
            and (card.repeat != schedule.paragraphs[card.unit].repeat)
        )
        if run and not joins:
            yield run
            run = []
        run.append(card)
    if run:
        yield run


def _is_changed(card: Card, schedule: Schedule) -> bool:
    return card.unit is None or card.is_copy or card.spec != _spec_at(schedule.paragraphs[card.unit], card.repeat)


def _spec_at(paragraph: Paragraph, repeat: int) -> ClipSpec:
    return paragraph.spec.repeated(repeat == 0, repeat == paragraph.repeat - 1)


def _blocks(written: Written, schedule: Schedule, run: list[Card], way: _Way) -> Iterator[_Block]:
    """Yield the text of cards that one paragraph holds."""
    card = run[0]
    if written.is_plain:
        yield _plain_block(written, schedule, card)
        return
    if card.unit is None:
        template = written.units[0]
        yield _Block(_new(template, Paragraph(card.spec), written.newline))
        return
    paragraph, old = schedule.paragraphs[card.unit], written.units[card.unit]
    is_whole = card.repeat == 0 and len(run) == paragraph.repeat and not card.is_copy
    slot = card.unit if is_whole else None
    if is_whole and not _is_changed(card, schedule):
        yield _Block(old, slot)
        return
    spec = replace(run[-1].spec, seed=card.spec.seed, cut=card.spec.cut, take=card.spec.take)
    comments = card.repeat == 0 and not card.is_copy
    if way is _Way.PARAGRAPH_ANEW:
        above = [line + written.newline for line in comments_of(old)] if comments else []
        new = _new(old, Paragraph(spec, len(run)), written.newline)
        by = sum(map(len, above))
        yield _Block(Unit("".join(above) + new.text, new.mark and (new.mark[0] + by, new.mark[1] + by)), slot)
        return
    unit, said = old, _spec_at(paragraph, card.repeat)
    if not is_whole:
        first, last = card.repeat == 0, run[-1].repeat == paragraph.repeat - 1
        unit = piece(old, len(run), first=first, last=last, comments=comments, newline=written.newline)
        said = replace(_spec_at(paragraph, run[-1].repeat), seed=said.seed, cut=said.cut, take=said.take)
    yield _Block(_changed(unit, said, spec, written.newline, way is _Way.OPTIONS_ABOVE), slot)


def _changed(unit: Unit, said: ClipSpec, meant: ClipSpec, newline: str, above: bool) -> Unit:
    """Return a unit that says `said` with what it takes to say `meant`."""
    if meant.prompt != said.prompt:
        unit = with_prompt(unit, meant.prompt, newline)
    before, after = _options(said), _options(meant)
    for name in (*(name for name in before if name not in after), *after):
        if after.get(name) != before.get(name):
            unit = with_option(unit, name, after.get(name), newline, above)
    return unit


def _options(spec: ClipSpec) -> dict[str, str]:
    """Return the options of a clip by what names them."""
    text = format_options(spec)
    return {identity(option): option for option in text.split(", ")} if text else {}


def _new(template: Unit, paragraph: Paragraph, newline: str) -> Unit:
    """Return a paragraph written anew, with a number if others have one."""
    prompt = paragraph.spec.prompt
    plain = replace(paragraph, spec=replace(paragraph.spec, prompt=" ".join(prompt.split())))
    text = format_schedule(Schedule((plain,))).rstrip("\n").replace("\n", newline)
    lines = newline.join(line.strip() for line in prompt.splitlines() if seen(line))
    if text.endswith(plain.spec.prompt):
        text = text[: len(text) - len(plain.spec.prompt)] + lines  # the line ends that the user typed
    if template.mark is None:
        return Unit(text)
    mark = template.text[slice(*template.mark)]
    behind = newline if template.text[template.mark[1] : template.mark[1] + 1] in ("\n", "\r") else ""
    start = len(text) - len(lines)
    return Unit(text[:start] + mark + behind + text[start:], (start, start + len(mark)))


def _plain_block(written: Written, schedule: Schedule, card: Card) -> _Block:
    """Return a plain prompt as its text takes it."""
    if card.unit is not None and card.spec.prompt == schedule.paragraphs[card.unit].spec.prompt:
        is_own = card.repeat == 0 and not card.is_copy
        return _Block(written.units[card.unit], card.unit if is_own else None)
    prompt = " ".join(card.spec.prompt.split())
    slot = None if card.is_copy or card.repeat else card.unit
    if written.is_list:
        return _Block(Unit(repr(card.spec.prompt)), slot)
    template = written.units[0 if card.unit is None else card.unit]
    if template.mark is None:
        return _Block(Unit(prompt), slot)
    mark = template.text[slice(*template.mark)]
    return _Block(Unit(mark + prompt, (0, len(mark))), slot)


def _gaps(written: Written, blocks: Sequence[_Block]) -> list[str]:
    """Return what stands between the blocks: paragraphs that stay keep what is around them."""
    num_old, num_new, gaps = len(written.units), len(blocks), list(written.gaps)
    start = 0
    while start < min(num_old, num_new) and blocks[start].slot == start:
        start += 1
    end = 0
    while end < min(num_old, num_new) - start and blocks[num_new - 1 - end].slot == num_old - 1 - end:
        end += 1
    inner = gaps[start : num_old - end + 1]  # around the paragraphs that change
    needed = num_new - start - end + 1
    if len(inner) > needed:
        inner = _merged(inner, needed, is_first=start == 0, is_last=end == 0, joint=written)
    elif len(inner) == 1 and start == 0 and end:
        inner += [written.separator] * (needed - 1)
    elif len(inner) < needed:
        added = [written.separator] * (needed - len(inner))
        inner = [*inner[:-1], *added, inner[-1]]
    if start == num_old < num_new and not inner[-1].strip() and not written.is_plain:
        inner[-1] = written.newline
    return [*gaps[:start], *inner, *gaps[len(gaps) - end :]] if end else [*gaps[:start], *inner]


def _merged(gaps: list[str], needed: int, *, is_first: bool, is_last: bool, joint: Written) -> list[str]:
    """Return `needed` of `gaps`, without those that only separate."""
    gaps = list(gaps)
    while len(gaps) > needed:
        separators = ("", ",") if joint.is_list else ("", "|") if joint.split is PromptSplit.BARS else ("",)
        inner = range(1 if is_first else 0, len(gaps) - (1 if is_last else 0))
        spare = [at for at in inner if gaps[at].strip() in separators]
        if spare:
            del gaps[spare[-1]]
        else:
            at = len(gaps) - 2
            gaps[at : at + 2] = [gaps[at] + gaps[at + 1]]
    return gaps


def _written_anew(written: Written, cards: Sequence[Card]) -> str | None:
    """Return the whole text written anew, without comments and numbers."""
    prompts = [" ".join(card.spec.prompt.split()) for card in cards]
    if written.is_list:
        return f"prompts = [\n{''.join(f'{_LIST_INDENT}{prompt!r},{chr(10)}' for prompt in prompts)}]\n"
    if written.split is PromptSplit.LINES:
        return "\n".join(prompts) + "\n"
    if written.split is PromptSplit.BARS:
        return " | ".join(prompts)
    try:
        return format_schedule(
            Schedule(tuple(Paragraph(replace(c.spec, prompt=p)) for c, p in zip(cards, prompts, strict=True)))
        )
    except ValueError:
        return None
