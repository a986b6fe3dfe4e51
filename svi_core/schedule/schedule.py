"""The schedule: one text that says for every clip what happens, and optionally how it is made.

A schedule is the prompt stream with options. Clips are paragraphs separated by blank lines. A paragraph may begin with one
line of options in square brackets; the rest is the prompt:

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

import copy
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path

from ..geometry import num_latent_slots
from ..video.seams import Seam
from .prompt_lists import PromptSplit, is_plain_list, normalised_text, parse_prompts

_log = logging.getLogger(__name__)

MAX_CLIPS = 10_000
MAX_SEED = 2**53 - 1  # the largest integer that survives a browser's JSON
MAX_HOLD_FRAMES = 10_000


@dataclass(frozen=True)
class LoraStrength:
    """A strength for the LoRA row whose file name contains `name`, for each expert."""

    name: str
    high: float
    low: float


@dataclass(frozen=True)
class ClipSpec:
    """What a schedule says of one clip; None means "as the node says".

    Attributes:
        prompt: its text.
        seed: noise seed.
        num_frames: pixel frames, 4n + 1.
        num_motion_frames: pixel frames of the clip before that carry motion.
        cfg: guidance scale.
        anchor: name of the anchor, which then holds for later clips too.
        end: name of the end image.
        loras: strengths that differ from the rows' own.
        cut: start anew from the anchor, without motion and without overlap.
        seam: what becomes of the frames shared with the clip before.
        hold: how many times the last frame is repeated.
    """

    prompt: str
    seed: int | None = None
    num_frames: int | None = None
    num_motion_frames: int | None = None
    cfg: float | None = None
    anchor: str | None = None
    end: str | None = None
    loras: tuple[LoraStrength, ...] = ()
    cut: bool = False
    seam: Seam | None = None
    hold: int = 0


Requirement = Callable[[int, ClipSpec], None]  # raises ValueError where clip `index` cannot be what the spec asks


@dataclass(frozen=True)
class Paragraph:
    """One paragraph of a schedule: a clip, and how many clips are made of it."""

    spec: ClipSpec
    repeat: int = 1


@dataclass(frozen=True)
class Schedule:
    """The clips of a video in order, as written."""

    paragraphs: tuple[Paragraph, ...]
    _specs: tuple[ClipSpec, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self):
        object.__setattr__(self, "_specs", tuple(_expanded(self.paragraphs)))

    def __len__(self) -> int:
        return len(self._specs)

    def snapshot(self) -> "Schedule":
        """Return the schedule as it is now: itself, since it does not change."""
        return self

    def for_run(self) -> "Schedule":
        """Return the schedule for one run: itself, since it does not change."""
        return self

    def at(self, clip_index: int, require: Requirement | None = None) -> ClipSpec:
        """Return what is said of clip `clip_index` (0-based). After the last one its prompt and anchor hold on.

        `require` is not asked: a schedule that does not change is checked before the run.
        """
        if clip_index < len(self._specs):
            return self._specs[clip_index]
        last = self._specs[-1]
        return replace(last, seed=None, cut=False, end=None, hold=0)

    @property
    def prompts(self) -> list[str]:
        """The different prompts in order of appearance."""
        return list(dict.fromkeys(paragraph.spec.prompt for paragraph in self.paragraphs))


class LiveSchedule:
    """A schedule in a file that is read again before each clip, so that a run can be steered while it goes.

    A file that cannot be read, or has a mistake, leaves the last good schedule in force and says so in the log. What a
    spec may name and ask for is known to the run only, which passes a function that raises ValueError.
    """

    def __init__(self, path: Path, split: PromptSplit = PromptSplit.PARAGRAPHS):
        """Read the file for the first time.

        Raises:
            ValueError: the file cannot be read or holds no schedule.
        """
        self.path = path
        self.split = split
        self.schedule = self._read()

    def __len__(self) -> int:
        return len(self.schedule)

    def snapshot(self) -> Schedule:
        """Return the schedule at the last reading."""
        return self.schedule

    def for_run(self) -> "LiveSchedule":
        """Return one for a run of its own: what was in force last in another run may ask for what this one lacks."""
        return copy.copy(self)

    def at(self, clip_index: int, require: Requirement | None = None) -> ClipSpec:
        """Return what the file says now of clip `clip_index` (0-based), if `require` has nothing against it."""
        try:
            schedule = self._read()
            if require is not None:
                require(clip_index, schedule.at(clip_index))
            self.schedule = schedule
        except ValueError as error:
            _log.warning("SVI: %s; going on with the schedule as it was.", error)
        return self.schedule.at(clip_index)

    @property
    def prompts(self) -> list[str]:
        """The different prompts at the last reading."""
        return self.schedule.prompts

    def _read(self) -> Schedule:
        try:
            return parse_schedule(self.path.read_text(encoding="utf-8-sig"), self.split)
        except (OSError, UnicodeDecodeError) as error:
            raise ValueError(f"the schedule file {self.path} cannot be read as UTF-8 text ({error}): save it anew.") from error


class ScheduleError(ValueError):
    """A mistake in a schedule, with its place."""

    def __init__(self, message: str, line: int, column: int):
        super().__init__(f"schedule, line {line}, column {column}: {message}")
        self.line = line
        self.column = column


def parse_schedule(text: str, split: PromptSplit = PromptSplit.PARAGRAPHS) -> Schedule:
    """Read a schedule. Texts split by lines, and ``prompts = [...]`` files, are plain prompts without options.

    Raises:
        ScheduleError: an option that is not known or has a senseless value, or a paragraph without prompt.
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
    """Whether `line`, the first of a paragraph, holds its options."""
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
        ValueError: a prompt that would read as a comment, as options, as a list or on one line, as one from a list may.
    """
    for prompt in schedule.prompts:
        if not _reads_as_itself(prompt):
            raise ValueError(f"the prompt {prompt!r} cannot stand in a paragraph, where it has another meaning: reword it.")
    return "\n\n".join(_format_paragraph(paragraph) for paragraph in schedule.paragraphs) + "\n"


def format_options(spec: ClipSpec) -> str:
    """Return the options of a clip as a schedule writes them, without brackets: "cut, seed 7", "" for none."""
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
    """Whether a paragraph of `prompt` alone is a clip with that prompt."""
    try:
        return parse_schedule(prompt).paragraphs == (Paragraph(ClipSpec(prompt)),)
    except ValueError:
        return False


def _expanded(paragraphs: tuple[Paragraph, ...]) -> Iterator[ClipSpec]:
    """Yield one spec per clip. An anchor holds until the next one; repeats differ in seed and are cut only once."""
    anchor = None
    for paragraph in paragraphs:
        spec = paragraph.spec
        anchor = spec.anchor or anchor
        for repetition in range(paragraph.repeat):
            last = repetition == paragraph.repeat - 1
            yield replace(
                spec,
                anchor=anchor,
                seed=spec.seed if repetition == 0 else None,
                cut=spec.cut and repetition == 0,
                end=spec.end if last else None,
                hold=spec.hold if last else 0,
            )


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
    paragraph, seen = Paragraph(ClipSpec("")), set()
    body = line[: line.rindex("]")]
    for match in re.finditer(r"[^,]+", body[body.index("[") + 1 :]):
        text = match.group().strip()
        column = body.index("[") + 2 + match.start() + len(match.group()) - len(match.group().lstrip())
        if not text:
            continue
        name = re.match(r"x(?=\d)|\S+", text).group()
        if name in seen and name != "lora":
            raise ScheduleError(f"{name!r} stands here twice: keep one.", number, column)
        seen.add(name)
        try:
            paragraph = _with_option(paragraph, name, text[len(name) :].strip())
        except ValueError as error:
            raise ScheduleError(str(error), number, column) from error
    return paragraph


def _with_option(paragraph: Paragraph, name: str, value: str) -> Paragraph:
    """Return `paragraph` with one option applied.

    Raises:
        ValueError: unknown option or senseless value.
    """
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
        raise ValueError(f"option {' '.join((name, value)).strip()!r} is not known: use {known}.")
    attribute, low, high = integers[name]
    if name == "frames":
        num_latent_slots(_integer(name, value, low, high))
    return replace(paragraph, spec=replace(spec, **{attribute: _integer(name, value, low, high)}))


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
    options = [format_options(paragraph.spec)] if format_options(paragraph.spec) else []
    options += [f"x{paragraph.repeat}"] if paragraph.repeat > 1 else []
    return (f"[{', '.join(options)}]\n" if options else "") + paragraph.spec.prompt


def _plain(number: float) -> str:
    """Return `number` without exponent and without losing digits."""
    text = format(Decimal(repr(number)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
