"""The options of a clip as text: ``seed 7, cfg 3.5, lora svi=0.8/1.0``. `text` says where they stand."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal

from ..geometry import num_latent_slots
from ..video.seams import Seam
from .paragraphs import ScheduleError
from .spec import MAX_CLIPS, MAX_HOLD_FRAMES, MAX_SEED, ClipSpec, LoraStrength, Paragraph

_NUMERIC = re.compile(r"(seed|frames|motion|cfg|hold)\s*[=:]?\s*[-+.]?\d|x\d+$|lora\s*\S+\s*=", re.IGNORECASE)
_NAME = re.compile(r"[xX](?=\d)|\S+")
MIN_TAKE_DIGITS = 8  # of a key of 64
_KEEP_WORDS = " If this belongs to the prompt, write [] in the line above it."


@dataclass(frozen=True)
class OptionGroup:
    """Options in one pair of brackets.

    Attributes:
        content: what stands between the brackets.
        line: its line, from 1.
        column: of its first character, from 1.
        is_certain: the brackets fill the first line of a paragraph, so that they can hold nothing else.
    """

    content: str
    line: int
    column: int
    is_certain: bool = False

    def error(self, message: str, offset: int = -1) -> ScheduleError:
        """Return an error at a character of the content, or at the bracket before it."""
        return ScheduleError(message + ("" if self.is_certain else _KEEP_WORDS), self.line, self.column + offset)


def parse_options(groups: Iterable[OptionGroup]) -> Paragraph:
    """Return a paragraph with these options and no prompt.

    Raises:
        ScheduleError: an unknown option, an invalid value, or an option that appears twice.
    """
    paragraph, known, loras = Paragraph(ClipSpec("")), set[str](), list[LoraStrength]()
    for group in groups:
        for offset, text in pieces(group.content):
            name = option_name(text)
            if name in known and name != "lora":
                raise group.error(f"{name!r} appears twice: keep one.", offset)
            known.add(name)
            try:
                value = text[len(name) :].strip()
                if name == "lora":
                    loras.append(_lora(value))
                else:
                    paragraph = _with_option(paragraph, name, value)
            except ValueError as error:
                raise group.error(str(error), offset) from error
    return replace(paragraph, spec=replace(paragraph.spec, loras=tuple(loras)))


def with_option(spec: ClipSpec, option: str) -> ClipSpec:
    """Return `spec` with an option such as "seed 7" or "lora svi=0.8" applied.

    Raises:
        ValueError: an unknown option, or an invalid value.
    """
    name = option_name(option)
    value = option[len(name) :].strip()
    if name == "lora":
        lora = _lora(value)
        return replace(spec, loras=(*(other for other in spec.loras if other.name != lora.name), lora))
    return _with_option(Paragraph(spec), name, value).spec


def option_name(option: str) -> str:
    """Return the name of an option: "seed" of "seed 7", "x" of "x2"."""
    match = _NAME.search(option)
    assert match is not None, option
    return match.group().lower()


def option_names(content: str) -> set[str]:
    """Return the names of all options between two brackets."""
    return {option_name(text) for _, text in pieces(content)}


def has_numbers(content: str) -> bool:
    """Whether what stands between two brackets holds an option with a number, right or wrong: "seed 7", "x2"."""
    return any(_NUMERIC.match(text) for _, text in pieces(content))


def holds_options(content: str) -> bool:
    """Whether what stands between two brackets holds an option; brackets in prose do not."""
    return has_numbers(content) or any(_is_option(text) for _, text in pieces(content))


def pieces(content: str) -> Iterator[tuple[int, str]]:
    """Yield each option between commas, and where it begins."""
    for match in re.finditer(r"[^,]+", content):
        if text := match.group().strip():
            yield match.start() + match.group().index(text[0]), text


def _is_option(text: str) -> bool:
    try:
        parse_options([OptionGroup(text, 1, 1)])
    except ScheduleError:
        return False
    return True


def _with_option(paragraph: Paragraph, name: str, value: str) -> Paragraph:
    """Return `paragraph` with one option applied; raise ValueError for an unknown option or an invalid value."""
    spec = paragraph.spec
    if name == "x":
        return replace(paragraph, repeat=_integer("x", value, 1, MAX_CLIPS))
    if name == "cut" and not value:
        return replace(paragraph, spec=replace(spec, cut=True))
    if name == "seam":
        if value.lower() not in list(Seam):
            raise ValueError(f"seam is {value!r}: write seam {', seam '.join(Seam)}.")
        return replace(paragraph, spec=replace(spec, seam=Seam(value.lower())))
    if name in ("anchor", "end"):
        if not re.fullmatch(r"[\w.-]+", value):
            raise ValueError(f"{name} is {value!r}: write a name of letters, digits, '_', '-' or '.'.")
        return replace(paragraph, spec=replace(spec, **{name: value}))
    if name == "take":
        if not re.fullmatch(rf"[0-9a-f]{{{MIN_TAKE_DIGITS},64}}", value):
            raise ValueError(f"take is {value!r}: write the first {MIN_TAKE_DIGITS} digits of a stored clip's key, or more.")
        return replace(paragraph, spec=replace(spec, take=value))
    if name == "cfg":
        return replace(paragraph, spec=replace(spec, cfg=_number("cfg", value, 0.0, 100.0)))
    integers = {
        "seed": ("seed", 0, MAX_SEED),
        "frames": ("num_frames", 5, 1001),
        "motion": ("num_motion_frames", 1, 80),
        "hold": ("hold", 1, MAX_HOLD_FRAMES),
    }
    if name not in integers:
        known = "seed, frames, motion, cfg, anchor, end, lora, cut, seam, hold, take, xN"
        raise ValueError(f"option {f'{name} {value}'.strip()!r} is not known: use {known}.")
    attribute, low, high = integers[name]
    number = _integer(name, value, low, high)
    if name == "frames":
        num_latent_slots(number)
    return replace(paragraph, spec=replace(spec, **{attribute: number}))


def _integer(name: str, value: str, low: int, high: int) -> int:
    if not re.fullmatch(r"\d{1,16}", value) or not low <= int(value) <= high:
        raise ValueError(f"{name} is {value!r}: write a whole number from {low} to {high}.")
    return int(value)


def _number(name: str, value: str, low: float, high: float) -> float:
    if not re.fullmatch(r"-?(\d+(\.\d*)?|\.\d+)", value) or not low <= float(value) <= high:
        raise ValueError(f"{name} is {value!r}: write a number from {low:g} to {high:g}.")
    return float(value)


def _lora(value: str) -> LoraStrength:
    match = re.fullmatch(r"([\w.-]+)\s*=\s*([^/\s]+)(?:\s*/\s*(\S+))?", value)
    if match is None:
        raise ValueError(f"lora is {value!r}: write NAME=STRENGTH or NAME=HIGH/LOW, lora svi=0.8/1.0 for instance.")
    high = _number("strength", match[2], -10.0, 10.0)
    return LoraStrength(match[1], high, _number("strength", match[3], -10.0, 10.0) if match[3] else high)


def format_options(spec: ClipSpec) -> str:
    """Return the options of a clip in schedule syntax without brackets: "cut, seed 7"; "" for none."""
    named = {
        "seed": spec.seed,
        "frames": spec.num_frames,
        "motion": spec.num_motion_frames,
        "anchor": spec.anchor,
        "end": spec.end,
        "take": spec.take,
    }
    options = ["cut"] if spec.cut else []
    options += [f"{name} {value}" for name, value in named.items() if value is not None]
    options += [f"cfg {_plain(spec.cfg)}"] if spec.cfg is not None else []
    options += [f"lora {lora.name}={_plain(lora.high)}/{_plain(lora.low)}" for lora in spec.loras]
    options += [f"seam {spec.seam}"] if spec.seam else []
    options += [f"hold {spec.hold}"] if spec.hold else []
    return ", ".join(options)


def _plain(number: float) -> str:
    """Return `number` in full precision, without exponent."""
    text = format(Decimal(repr(number)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
