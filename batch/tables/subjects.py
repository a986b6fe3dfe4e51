"""What a user's images show, and what lies beside them: the subject in a text file, the sound to speak, the poses to follow."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from svi_core.files.text_file import read_text
from svi_core.schedule.storyline_actions import SubjectKind

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tiff")
SUFFIXES = {"sound": (".wav", ".mp3", ".flac", ".ogg", ".m4a"), "pose": (".mp4", ".webm", ".mov", ".mkv")}
_KEYS = ("place", "style", "kind")
_ARTICLES = ("a", "an", "the", "two", "three", "some", "several", "many")
_SAY_NOTHING = {"img", "image", "dsc", "dscn", "dscf", "pxl", "photo", "pic", "picture", "frame", "screenshot", "untitled"}


@dataclass(frozen=True)
class Subject:
    """One image of the user.

    Attributes:
        image: the file.
        text: who or what it shows.
        place, style: where it is and how it looks, or "".
        kind: decides which actions the templates choose from.
    """

    image: Path
    text: str
    place: str = ""
    style: str = ""
    kind: SubjectKind = SubjectKind.PERSON

    def beside(self, column: str) -> Path | None:
        """Return the sound or pose video of the same name as the image; None if there is none."""
        return next((path for suffix in SUFFIXES[column] if (path := self.image.with_suffix(suffix)).is_file()), None)


def read_subjects(folder: Path) -> list[Subject]:
    """Return the images of a folder by name, each with its subject: from the text file beside it, or from its own name.

    Raises:
        ValueError: no image, or a text that says something else.
    """
    try:
        images = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    except OSError as error:
        raise ValueError(f"{folder} is no folder of images: {error.strerror}") from error
    if not images:
        raise ValueError(f"{folder} holds no image ({', '.join(IMAGE_SUFFIXES)})")
    return [_subject(image) for image in images]


def _subject(image: Path) -> Subject:
    description = image.with_suffix(".txt")
    if not description.is_file():
        return Subject(image, _named(image))
    lines = [(number, line.strip()) for number, line in enumerate(read_text(description).split("\n"), start=1)]
    lines = [(number, line) for number, line in lines if line and not line.startswith("#")]
    if not lines:
        raise ValueError(f"{description} is empty: write who or what {image.name} shows, such as 'a boy in a red coat'")
    values = dict(_value(description, number, line) for number, line in lines[1:])
    if values.get("kind", SubjectKind.PERSON) not in list(SubjectKind):
        raise ValueError(f"{description}: there is no kind {values['kind']!r}: use {', '.join(SubjectKind)}")
    return Subject(
        image,
        lines[0][1],
        values.get("place", ""),
        values.get("style", ""),
        SubjectKind(values.get("kind", SubjectKind.PERSON)),
    )


def _named(image: Path) -> str:
    """Return what the name of an image says, with an article: "a young woman". Numbers are left out."""
    words = re.findall(r"[^\W\d_]+", image.stem)
    if not any(len(word) > 2 and word.lower() not in _SAY_NOTHING for word in words):
        raise ValueError(
            f"the name {image.name} does not say who or what the image shows: rename it, or write that into "
            f"{image.with_suffix('.txt')}"
        )
    if words[0].lower() not in _ARTICLES:
        words.insert(0, "an" if words[0][0].lower() in "aeiou" else "a")
    return " ".join(words)


def _value(file: Path, number: int, line: str) -> tuple[str, str]:
    key, separator, value = line.partition(":")
    if not separator or key.strip().lower() not in _KEYS:
        raise ValueError(
            f"{file}, line {number}: {line[:60]!r} is none of {', '.join(f'{key}:' for key in _KEYS)}. The first line says who "
            "or what the image shows; the command writes the prompts"
        )
    return key.strip().lower(), value.strip()
