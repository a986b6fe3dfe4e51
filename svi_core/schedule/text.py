"""The text format of a schedule: one prompt per clip, with options.

Clips are paragraphs separated by blank lines. A paragraph may begin with one line of options in square brackets; the rest is
the prompt:

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
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

from ..geometry import num_latent_slots
from ..video.seams import Seam
from .prompt_lists import PromptSplit, is_plain_list, normalised_text, parse_prompts
from .spec import MAX_CLIPS, MAX_HOLD_FRAMES, MAX_LORAS, MAX_SEED, ClipSpec, LoraStrength, Paragraph, Schedule


class ScheduleError(ValueError):
    """A mistake in a schedule, with line and column."""

    def __init__(self, message: str, line: int, column: int):
        shown = message if len(message) <= 400 else f"{message[:200]}...{message[-200:]}"  # it may quote a value of any length
        super().__init__(f"schedule, line {line}, column {column}: {shown}")
        self.line = line
        self.column = column


def parse_schedule(text: str, split: PromptSplit = PromptSplit.PARAGRAPHS) -> Schedule:
    """Parse a schedule. Texts split by lines and ``prompts = [...]`` files hold plain prompts without options.

    Raises:
        ScheduleError: an unknown option, an invalid value, or a paragraph without prompt.
        ValueError: no prompt at all, or a broken prompt list.
    """
    text = normalised_text(text)
    if is_plain_list(text, split):
        return Schedule(tuple(Paragraph(ClipSpec(prompt)) for prompt in parse_prompts(text)))
    paragraphs = tuple(_parse_paragraph(lines) for lines in paragraph_lines(text))
    if not paragraphs:
        raise ValueError("the prompt stream holds no prompt: write one prompt per clip, separated by blank lines.")
    if (total := sum(paragraph.repeat for paragraph in paragraphs)) > MAX_CLIPS:
        raise ValueError(f"the schedule asks for {total} clips: at most {MAX_CLIPS} can be made in one run.")
    return Schedule(paragraphs)


def is_options_line(line: str) -> bool:
    """Whether `line`, the first of a paragraph, is its options line."""
    return re.fullmatch(r"\s*\[[^\[\]]*\]\s*", line) is not None


def paragraph_lines(text: str) -> Iterator[list[tuple[int, str]]]:
    """Yield the (line number, line) pairs of each paragraph, without comments and blank lines."""
    lines: list[tuple[int, str]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.lstrip().startswith("#"):
            continue
        if line.strip():
            lines.append((number, line))
        elif lines:
            yield lines
            lines = []
    if lines:
        yield lines


def format_schedule(schedule: Schedule) -> str:
    """Return the text of `schedule`; parsing it by paragraphs gives `schedule` again.

    Raises:
        ValueError: a prompt that would parse as something else: a comment, options, a list, several lines.
    """
    for prompt in schedule.prompts:
        if not _reads_as_itself(prompt):
            shown = repr(prompt if len(prompt) <= 200 else prompt[:200] + "...")
            raise ValueError(f"the prompt {shown} cannot be a paragraph, since it would parse as something else: reword it.")
    return "\n\n".join(_format_paragraph(paragraph) for paragraph in schedule.paragraphs) + "\n"


def format_options(spec: ClipSpec) -> str:
    """Return the options of a clip in schedule syntax without brackets: "cut, seed 7"; "" for none."""
    named = {
        "seed": spec.seed,
        "frames": spec.num_frames,
        "motion": spec.num_motion_frames,
        "anchor": spec.anchor,
        "end": spec.end,
    }
    options = ["cut"] if spec.cut else []
    options += [f"{name} {value}" for name, value in named.items() if value is not None]
    options += [f"cfg {_plain(spec.cfg)}"] if spec.cfg is not None else []
    options += [f"lora {lora.name}={_plain(lora.high)}/{_plain(lora.low)}" for lora in spec.loras]
    options += [f"seam {spec.seam}"] if spec.seam else []
    options += [f"hold {spec.hold}"] if spec.hold else []
    return ", ".join(options)


def _reads_as_itself(prompt: str) -> bool:
    """Whether `prompt` as a paragraph parses to itself."""
    try:
        return parse_schedule(prompt).paragraphs == (Paragraph(ClipSpec(prompt)),)
    except ValueError:
        return False


def _parse_paragraph(lines: list[tuple[int, str]]) -> Paragraph:
    number, first = lines[0]
    paragraph = Paragraph(ClipSpec(""))
    if is_options_line(first):
        paragraph = _parse_options(first, number)
        lines = lines[1:]
    prompt = " ".join(" ".join(line.split()) for _, line in lines)
    if not prompt:
        raise ScheduleError("these options have no prompt: write one below them, without a blank line between.", number, 1)
    return replace(paragraph, spec=replace(paragraph.spec, prompt=prompt))


def _parse_options(line: str, number: int) -> Paragraph:
    paragraph, seen = Paragraph(ClipSpec("")), set[str]()
    body = line[: line.rindex("]")]
    for match in re.finditer(r"[^,]+", body[body.index("[") + 1 :]):
        text = match.group().strip()
        column = body.index("[") + 2 + match.start() + len(match.group()) - len(match.group().lstrip())
        if not text:
            continue
        name = re.findall(r"x(?=\d)|\S+", text)[0]
        if name in seen and name != "lora":
            raise ScheduleError(f"{name!r} appears twice: keep one.", number, column)
        seen.add(name)
        try:
            paragraph = _with_option(paragraph, name, text[len(name) :].strip())
        except ValueError as error:
            raise ScheduleError(str(error), number, column) from error
    return paragraph


def _with_option(paragraph: Paragraph, name: str, value: str) -> Paragraph:
    """Return `paragraph` with one option applied; raise ValueError for an unknown option or an invalid value."""
    spec = paragraph.spec
    if name == "x":
        return replace(paragraph, repeat=_integer("x", value, 1, MAX_CLIPS))
    if name == "cut" and not value:
        return replace(paragraph, spec=replace(spec, cut=True))
    if name == "seam":
        if value not in list(Seam):
            raise ValueError(f"seam is {value!r}: write seam {', seam '.join(Seam)}.")
        return replace(paragraph, spec=replace(spec, seam=Seam(value)))
    if name == "lora":
        if len(spec.loras) == MAX_LORAS:
            raise ValueError(f"the options of this clip hold more than {MAX_LORAS} strengths: keep one for each LoRA row.")
        return replace(paragraph, spec=replace(spec, loras=(*spec.loras, _lora(value))))
    if name in ("anchor", "end"):
        if not re.fullmatch(r"[\w.-]+", value):
            raise ValueError(f"{name} is {value!r}: write a name of letters, digits, '_', '-' or '.'.")
        return replace(paragraph, spec=replace(spec, **{name: value}))
    if name == "cfg":
        return replace(paragraph, spec=replace(spec, cfg=_number("cfg", value, 0.0, 100.0)))
    integers = {
        "seed": ("seed", 0, MAX_SEED),
        "frames": ("num_frames", 5, 1001),
        "motion": ("num_motion_frames", 1, 80),
        "hold": ("hold", 1, MAX_HOLD_FRAMES),
    }
    if name not in integers:
        known = "seed, frames, motion, cfg, anchor, end, lora, cut, seam, hold, xN"
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


def _format_paragraph(paragraph: Paragraph) -> str:
    options = [format_options(paragraph.spec), f"x{paragraph.repeat}" if paragraph.repeat > 1 else ""]
    return (f"[{', '.join(filter(None, options))}]\n" if any(options) else "") + paragraph.spec.prompt


def _plain(number: float) -> str:
    """Return `number` in full precision, without exponent."""
    text = format(Decimal(repr(number)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
