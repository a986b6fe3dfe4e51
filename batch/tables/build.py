"""Make the rows of a benchmark's table from a user's images, with prompts by SVI Storyline's engine."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from batch.tables.benchmarks import FRAMES_PER_CLIP, PRODUCTION, Benchmark
from batch.tables.kept_prompts import KeptPrompts
from batch.tables.language_model import PromptWriter
from batch.tables.subjects import SUFFIXES, Subject
from svi_core.files.fingerprint import file_sha256, fingerprint
from svi_core.files.strict_json import read_json
from svi_core.schedule.storyline import TOKENS_PER_CLIP, Storyline, instruction, read_answer, story_text, write_prompts

_ANSWERS = 3  # that a language model may give until one can be read
_CASES = Path(__file__).parent / "production.json"


@dataclass(frozen=True)
class TableSize:
    """How long a table and its videos are.

    Attributes:
        num_samples: rows.
        num_clips: of each video.
        checks_length: refuse sounds and pose videos that are shorter than the clips together.
    """

    num_samples: int
    num_clips: int
    checks_length: bool


def rows(
    benchmark: Benchmark, subjects: Sequence[Subject], size: TableSize, seed: int, model: PromptWriter | None, kept: KeptPrompts
) -> Iterator[dict[str, object]]:
    """Yield a row for each story. With fewer images than rows, images come again with other seeds and stories.

    Raises:
        ValueError: an image lacks its sound or pose video, or the language model fails.
    """
    if benchmark.follows:
        for subject in subjects:
            _require_recording(subject, benchmark, size)
    for number, subject in zip(range(size.num_samples), itertools.cycle(subjects), strict=False):
        name, prompts = _prompts(benchmark, subject, size, number, seed + number, model, kept)
        row: dict[str, object] = {
            "name": f"{benchmark.name}-{number + 1:03d}-{name}",
            "image": str(subject.image.absolute()),
            "prompts": prompts,
            "clips": size.num_clips,
            "seed": seed + number,
        }
        if benchmark.follows:
            row[benchmark.follows] = str(_recording(subject, benchmark.follows).absolute())
        yield row


def _prompts(
    benchmark: Benchmark,
    subject: Subject,
    size: TableSize,
    number: int,
    seed: int,
    model: PromptWriter | None,
    kept: KeptPrompts,
) -> tuple[str, str]:
    """Return what names a story, and its prompts as SVI Prompt Stream reads them."""
    if benchmark.name == PRODUCTION:
        case, texts = _production_case(number)
        filled = tuple(_filled(text, subject) for text in texts[: size.num_clips])
        return case, story_text(filled, f"Case {case!r} of the production example")
    story = Storyline(
        subject=subject.text,
        kind=subject.kind,
        num_clips=size.num_clips if benchmark.is_stream else 1,
        style=subject.style,
        place=subject.place,
        seed=seed,
    )
    if model is None:
        return _plain_name(subject), story_text(write_prompts(story), f"Written from templates, seed {seed}")
    return _plain_name(subject), story_text(_answered(story, subject, model, kept), f"Written by {model.model}, seed {seed}")


def _answered(story: Storyline, subject: Subject, model: PromptWriter, kept: KeptPrompts) -> tuple[str, ...]:
    """Return the prompts that a language model wrote; it is asked again if its answer cannot be read."""
    asked = instruction(story, sees_image=model.sees_images)
    seen = file_sha256(subject.image) if model.sees_images else ""
    key = fingerprint("prompts of a story", model.key, asked, seen, story.seed)
    if (known := kept.get(key)) is not None:
        return known
    for attempt in range(_ANSWERS):
        answer = model.answer(asked, subject.image, TOKENS_PER_CLIP * story.num_clips + 200, story.seed + attempt)
        try:
            prompts = read_answer(answer, story)
        except ValueError as error:
            complaint = str(error).removeprefix("text_model ").partition("): use ")[0]
            continue
        kept.keep(key, prompts)
        return prompts
    raise ValueError(
        f"{subject.image.name}: {model.model} was asked {_ANSWERS} times, and {complaint}): use another model, or fewer --clips"
    )


def _production_case(number: int) -> tuple[str, list[str]]:
    """Return the name and the prompts of a case; they begin again after the last."""
    cases = read_json(_CASES)["cases"]  # type: ignore[index]
    case = cases[number % len(cases)]
    return case["case"], case["prompts"]


def _filled(text: str, subject: Subject) -> str:
    """Return a prompt of the production example about a subject."""
    filled = text.replace("{subject}", subject.text)
    filled = filled[:1].upper() + filled[1:]
    return " ".join(filter(None, (filled, f"{subject.style.rstrip('.')}." if subject.style else "")))


def _plain_name(subject: Subject) -> str:
    """Return the name of an image with letters, digits and dashes only."""
    return "-".join("".join(letter if letter.isalnum() else " " for letter in subject.image.stem).split())[:40] or "image"


def _recording(subject: Subject, column: str) -> Path:
    path = subject.beside(column)
    if path is None:
        names = ", ".join(f"{subject.image.stem}{suffix}" for suffix in SUFFIXES[column])
        raise ValueError(f"{subject.image.name} has no {column} beside it: put one of {names} into {subject.image.parent}")
    return path


def _require_recording(subject: Subject, benchmark: Benchmark, size: TableSize) -> None:
    """Refuse an image without its sound or pose video, and one that ends before the last clip begins."""
    path = _recording(subject, benchmark.follows)
    if not size.checks_length:
        return
    lasts = _duration(path)
    if lasts * benchmark.frame_rate <= 1 + FRAMES_PER_CLIP * (size.num_clips - 1):
        raise ValueError(
            f"{path} lasts {lasts:.1f} s and {benchmark.seconds} s are needed: give a longer one, or fewer --clips"
        )


def _duration(path: Path) -> float:
    """Return the length of a sound or video in seconds. Raises ValueError if it cannot be read here."""
    try:
        import av
        import av.error
    except ImportError as error:
        raise ValueError(f"this Python lacks av, which reads {path}: run it with that of your ComfyUI") from error
    try:
        with av.open(str(path)) as container:
            return float(container.duration or 0) / av.time_base
    except (av.error.FFmpegError, OSError) as error:
        raise ValueError(f"{path} is not a readable sound or video: {error}") from error


def as_jsonl(table: Sequence[dict[str, object]]) -> bytes:
    """Return rows as `python -m batch run` reads them."""
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table).encode()
