"""The edits of a storyboard: each changes the text of a schedule, which stays the only truth.

An edit is a change of the list of clips. `rebuild` writes it into the text, and clips that it is not about keep every letter.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from .options import MIN_TAKE_DIGITS, option_name, pieces, with_option
from .paragraphs import seen
from .prompt_lists import PromptSplit
from .rebuild import Card, cards_of, rebuilt
from .spec import MAX_CLIPS, ClipSpec, Paragraph, Schedule
from .text import format_schedule, parse_schedule

WRITTEN_TAKE_DIGITS = 12  # of a key of 64
_UNIT = re.compile(r"\r\n|[\s\S]")  # a line end, or a character
_SENTENCE_END = re.compile(r"[.!?。！？][\"'”’)]*\s*")
_UNSET = ClipSpec("")
_OPTIONS = {"frames": "num_frames", "motion": "num_motion_frames"} | {  # by name, the field of ClipSpec
    name: name for name in ("seed", "cfg", "anchor", "end", "cut", "seam", "hold", "take")
}
Cards = list[Card]
Change = Callable[[Cards], int]  # changes the list and returns the place of the clip that the edit is about


@dataclass(frozen=True)
class Edited:
    """A changed text.

    Attributes:
        text: as it is now.
        split: what separates its prompts.
        clip: the clip that the edit is about, 0-based, in the new text.
        start, stop: what changed, as offsets into the new text.
    """

    text: str
    split: PromptSplit
    clip: int
    start: int
    stop: int


def set_prompt(clip: int, prompt: str) -> Change:
    """Return the edit that gives a clip another prompt.

    Raises:
        ValueError: it is empty.
    """
    _require_prompt(prompt)
    return _with_spec(clip, lambda spec: replace(spec, prompt=prompt))


def set_option(clip: int, name: str, value: str | None) -> Change:
    """Return the edit that sets an option of a clip, or removes it.

    Args:
        name: "seed", "cut", "lora svi", ...
        value: as it stands in the text; "" for cut; None removes the option.

    Raises:
        ValueError: an unknown option or an invalid value.
    """
    kind, _, lora = name.partition(" ")
    if value is not None:
        if kind == "x":
            raise ValueError("option x is about a whole paragraph: duplicate or delete clips instead.")
        text = f"{name}={value}" if kind == "lora" else f"{name} {value}".strip()
        with_option(ClipSpec(""), text)
        return _with_spec(clip, lambda spec: with_option(spec, text))
    if kind == "lora" and lora.strip():
        kept = lora.strip()
        return _with_spec(clip, lambda spec: replace(spec, loras=tuple(one for one in spec.loras if one.name != kept)))
    if kind not in _OPTIONS:
        raise ValueError(f"option {name[:80]!r} is not known: use {', '.join(_OPTIONS)}, lora NAME.")
    field = _OPTIONS[kind]
    return _with_spec(clip, lambda spec: replace(spec, **{field: getattr(_UNSET, field)}))


def reroll(clip: int, seed: int) -> Change:
    """Return the edit that gives a clip another seed, and no take.

    Raises:
        ValueError: a seed out of range.
    """
    with_option(ClipSpec(""), f"seed {seed}")
    return _with_spec(clip, lambda spec: replace(spec, seed=seed, take=None))


def pin(clip: int, key: str) -> Change:
    """Return the edit that shows a stored clip in place of a new one.

    Raises:
        ValueError: `key` is no key, or too few digits of one.
    """
    if not re.fullmatch(rf"[0-9a-f]{{{MIN_TAKE_DIGITS},64}}", key):
        raise ValueError(f"key is {key[:80]!r}: send the 64 hex digits of a stored clip.")
    return set_option(clip, "take", key[:WRITTEN_TAKE_DIGITS])


def insert(clip: int, prompt: str, options: str = "") -> Change:
    """Return the edit that adds a clip before clip `clip`, or at the end.

    Args:
        options: as between brackets, such as "cfg 3.5, cut".

    Raises:
        ValueError: an empty prompt, an unknown option or an invalid value.
    """
    _require_prompt(prompt)
    spec = ClipSpec(prompt)
    for _, option in pieces(options):
        if option_name(option) == "x":
            raise ValueError("option x is about a whole paragraph: insert a clip for each.")
        spec = with_option(spec, option)

    def change(cards: Cards) -> int:
        cards.insert(clip, Card(spec))
        return clip

    return change


def duplicate(clip: int) -> Change:
    """Return the edit that adds a copy behind a clip, without seed, cut and take."""

    def change(cards: Cards) -> int:
        card = cards[clip]
        cards.insert(clip + 1, replace(card, spec=replace(card.spec, seed=None, cut=False, take=None), is_copy=True))
        return clip + 1

    return change


def delete(clip: int) -> Change:
    """Return the edit that removes a clip."""

    def change(cards: Cards) -> int:
        if len(cards) == 1:
            raise ValueError("this is the only clip of the text, and a video has at least one: change its prompt instead.")
        del cards[clip]
        return min(clip, len(cards) - 1)

    return change


def split_clip(clip: int, at: int | None = None) -> Change:
    """Return the edit that makes two clips of one: its prompt up to `at`, and the rest.

    Args:
        at: a place in the prompt; None for the end of the sentence nearest its middle. A prompt of one sentence is doubled.
    """

    def change(cards: Cards) -> int:
        card = cards[clip]
        first, second = _divided(card.spec.prompt, at)
        one = replace(card.spec, prompt=first, end=None, hold=0, take=None)
        two = replace(card.spec, prompt=second, seed=None, cut=False, anchor=None, take=None)
        cards[clip : clip + 1] = [replace(card, spec=one), replace(card, spec=two, is_copy=True)]
        return clip + 1

    return change


def move(clip: int, to: int) -> Change:
    """Return the edit that moves a clip to the place `to`."""

    def change(cards: Cards) -> int:
        if not 0 <= to < len(cards):
            raise ValueError(f"to is {to}: the clips are 0 to {len(cards) - 1}.")
        cards.insert(to, cards.pop(clip))
        return to

    return change


def edited(text: str, split: PromptSplit, change: Change, clip: int, is_new: bool = False) -> Edited:
    """Return `text` with one edit.

    Args:
        clip: the clip that the edit is about, which may lie beyond the end of the text.
        is_new: it is to be made, so that its place may be the end of the list.

    Raises:
        ScheduleError: a mistake in the text.
        ValueError: a clip that no run reaches, or an edit that the text cannot hold.
    """
    schedule = parse_schedule(text, split)
    if not 0 <= clip < MAX_CLIPS:
        raise ValueError(f"clip is {clip}: clips count from 0, and a run has at most {MAX_CLIPS}.")
    cards = cards_of(schedule, clip + (not is_new))
    about = change(cards)
    if len(cards) > MAX_CLIPS:
        raise ValueError(f"the schedule would ask for {len(cards)} clips: at most {MAX_CLIPS} can be made in one run.")
    new = rebuilt(text, split, schedule, cards)
    return Edited(new, split, about, *changed_span(text, new))


def as_paragraphs(text: str, split: PromptSplit) -> Edited:
    """Return a list of plain prompts as paragraphs, which take options.

    Raises:
        ValueError: a mistake in the text, or a prompt that no paragraph can hold.
    """
    schedule = parse_schedule(text, split)
    plain = (" ".join(paragraph.spec.prompt.split()) for paragraph in schedule.paragraphs)
    new = format_schedule(Schedule(tuple(Paragraph(ClipSpec(prompt)) for prompt in plain)))
    return Edited(new, PromptSplit.PARAGRAPHS, 0, 0, len(new))


def changed_span(before: str, after: str) -> tuple[int, int]:
    """Return the offsets into `after` between which it differs from `before`."""
    most = min(len(before), len(after))
    start = next((at for at in range(most) if before[at] != after[at]), most)
    rest = most - start
    end = next((at for at in range(rest) if before[-1 - at] != after[-1 - at]), rest)
    return start, len(after) - end


def with_line_ends_of(before: str, new: str) -> str:
    """Return `new`, from a field whose lines all end with newlines, with the line ends that `before` has."""
    units = _UNIT.findall(before)
    plain = "".join("\n" if unit[0] == "\r" else unit for unit in units)
    if plain == before or "\r" in new:
        return new
    start, stop = changed_span(plain, new)
    newline = "\r\n" if "\r\n" in before else "\r"
    rest = len(units) - (len(new) - stop)
    return "".join(units[:start]) + new[start:stop].replace("\n", newline) + "".join(units[rest:])


def _with_spec(clip: int, function: Callable[[ClipSpec], ClipSpec]) -> Change:
    def change(cards: Cards) -> int:
        cards[clip] = replace(cards[clip], spec=function(cards[clip].spec))
        return clip

    return change


def _require_prompt(prompt: str) -> None:
    if not any(seen(line) for line in prompt.splitlines()):
        raise ValueError("the prompt is empty: write one, or delete the clip.")


def _divided(prompt: str, at: int | None) -> tuple[str, str]:
    if at is None:
        ends = [match.end() for match in _SENTENCE_END.finditer(prompt) if match.end() < len(prompt)]
        if not ends:
            return prompt, prompt
        at = min(ends, key=lambda end: abs(end - len(prompt) // 2))
    first, second = prompt[:at].strip(), prompt[at:].strip()
    if not first or not second:
        raise ValueError(f"at is {at}, an end of the prompt: choose a place inside, so that both clips have one.")
    return first, second
