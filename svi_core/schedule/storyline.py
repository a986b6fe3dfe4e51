"""The storyline engine: subject and style in, one prompt per clip out.

Templates (storyline_actions.py) need no model: each clip is one small action that begins in the pose that the clip before
ended in. A language model gets the rules as an instruction instead, and its answer is read strictly.

Source: SVI (arXiv:2510.09212), Appendix A: an automatic engine writes prompt streams from a storyline. Its web images and its
particular models are left out; templates and rules here are ours.
"""

import re
from collections import Counter
from dataclasses import dataclass
from random import Random

from ..files.text_file import require_unicode
from .spec import ClipSpec, Paragraph, Schedule
from .storyline_actions import ACTIONS, CAMERA_AT_REST, CAMERA_FOLLOWING, STILL_CAMERA, Action, Role, SubjectKind
from .text import format_schedule

MAX_STORY_CLIPS = 200
TOKENS_PER_CLIP = 120  # room for a prompt of about 60 words
_PREPOSITIONS = (
    "in", "with", "on", "of", "at", "from", "near", "by", "under", "inside", "outside", "over", "behind", "between", "along",
    "among", "above", "across", "against", "around", "before", "beside", "next", "wearing", "holding", "who", "that",
)  # fmt: skip
_SEVERAL = {
    "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "several", "some", "many", "few", "both", "twin",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Storyline:
    """What a story is about.

    Attributes:
        subject: who or what, with its appearance: "a young woman in a pink dress".
        kind: what the subject is.
        num_clips: prompts to write, 1 to 200.
        style: how the video looks: "watercolour animation, soft light".
        place: where it happens, with its preposition: "on a green hill under a blue sky".
        prefix: text before every prompt.
        suffix: text after every prompt.
        seed: the same seed gives the same story.
    """

    subject: str
    kind: SubjectKind = SubjectKind.PERSON
    num_clips: int = 3
    style: str = ""
    place: str = ""
    prefix: str = ""
    suffix: str = ""
    seed: int = 0

    def __post_init__(self):
        if not 1 <= self.num_clips <= MAX_STORY_CLIPS:
            raise ValueError(f"num_clips is {self.num_clips}: a story has 1 to {MAX_STORY_CLIPS} clips.")
        for name in ("subject", "style", "place", "prefix", "suffix"):
            require_unicode(getattr(self, name), name)

    def require_subject(self) -> None:
        """Raise ValueError if the subject is empty, or nothing but punctuation."""
        if not _plain(self.subject):
            raise ValueError(
                "subject is empty: say who or what the story is about, 'a young woman in a pink dress' for instance."
            )


def write_prompts(story: Storyline) -> tuple[str, ...]:
    """Return one prompt per clip of `story`, from templates alone.

    Raises:
        ValueError: the story has no subject.
    """
    story.require_subject()
    draw = Random(story.seed)
    actions = _walk(story, draw)
    cameras = _camera_moves(actions, draw)
    return tuple(
        dressed(story, f"{_sentence(story, action, index)} {camera}")
        for index, (action, camera) in enumerate(zip(actions, cameras, strict=True))
    )


def story_text(prompts: tuple[str, ...], origin: str) -> str:
    """Return `prompts` as the text of a schedule, headed by a comment that names their `origin`.

    Raises:
        ValueError: a prompt that a schedule would read as something else.
    """
    schedule = Schedule(tuple(Paragraph(ClipSpec(prompt)) for prompt in prompts))
    return f"# {origin}. One paragraph is one clip: edit freely.\n\n{format_schedule(schedule)}"


def dressed(story: Storyline, prompt: str) -> str:
    """Return `prompt` with the style and the global prefix and suffix of `story` around it."""
    parts = (_closed(story.prefix), prompt, _closed(_upper(_plain(story.style))), _closed(story.suffix))
    return " ".join(part for part in parts if part)


def instruction(story: Storyline, sees_image: bool = False) -> str:
    """Return the instruction for a language model.

    Args:
        sees_image: the model also gets a picture, with which the story begins.

    Raises:
        ValueError: neither subject nor picture.
    """
    if not sees_image:
        story.require_subject()
    about = [f"Subject: {_plain(story.subject)}"] if story.subject.strip() else ["Subject: the main subject of the picture"]
    about += [f"Place: {_plain(story.place)}"] if story.place.strip() else []
    about += [f"Style: {_plain(story.style)}"] if story.style.strip() else []
    about += ["The video begins with the picture: the first prompt must fit it."] if sees_image else []
    rules = (
        f"Write the prompts of one continuous video of {story.num_clips} clips of 5 seconds each.",
        "Each prompt is one paragraph of 30 to 60 words in plain English, in the present tense.",
        "Each prompt names the subject in the same words and with the same looks; never use a pronoun for its first mention.",
        "Each prompt has exactly one action, which begins where the prompt before it ended.",
        "Each prompt ends with one sentence on the camera: it stays still, moves closer, follows, circles or pans.",
        "Say only what can be seen: no thoughts, sounds, titles, cuts or numbers of seconds.",
        f"Answer with a numbered list from 1 to {story.num_clips}, one prompt each, and nothing else.",
    )
    return "\n".join([*rules, "", *about])


def read_answer(answer: str, story: Storyline) -> tuple[str, ...]:
    """Return the prompts that a language model wrote for `story`.

    A prompt that does not name the subject gets it in front.

    Raises:
        ValueError: fewer prompts than clips.
    """
    answer = re.sub(r"<think>.*?(</think>|\Z)", "", answer, flags=re.DOTALL)
    found = [prompt for item in _items(answer) if (prompt := _cleaned(item))]
    if len(found) < story.num_clips:
        begin = " ".join(answer.split())[:120]
        raise ValueError(
            f"text_model wrote {len(found)} of {story.num_clips} prompts (it begins {begin!r}): use fewer clips, another seed "
            "or another model, or disconnect text_model for the templates."
        )
    return tuple(dressed(story, _naming(story, prompt)) for prompt in found[: story.num_clips])


def _walk(story: Storyline, draw: Random) -> list[Action]:
    """Return one action per clip, each beginning where the one before ends, with as few repetitions as possible."""
    actions, used = ACTIONS[story.kind], Counter[Action]()
    opening = draw.choice([action for action in actions if action.role is Role.OPENING])
    walk = [opening]
    while len(walk) < story.num_clips:
        role = Role.ENDING if len(walk) == story.num_clips - 1 else Role.MIDDLE
        possible = [action for action in actions if action.before == walk[-1].after and action.role is role]
        if len(walk) > 1 and all(action.before == action.after for action in walk[-2:]):
            possible = [action for action in possible if action.before != action.after] or possible  # time for a change
        rarest = min(used[action] for action in possible)
        chosen = draw.choice([action for action in possible if used[action] == rarest])
        used[chosen] += 1
        walk.append(chosen)
    return walk


def _camera_moves(actions: list[Action], draw: Random) -> list[str]:
    """Return one camera move per clip: still where the action names the camera, else never the same twice running."""
    moves: list[str] = []
    for action in actions:
        if "camera" in action.text:
            moves.append(STILL_CAMERA)
            continue
        pool = CAMERA_FOLLOWING if action.after == "moving" else CAMERA_AT_REST
        moves.append(draw.choice([move for move in pool if moves[-1:] != [move]]))
    return moves


def _sentence(story: Storyline, action: Action, index: int) -> str:
    """Return the sentence of clip `index`; later clips say "the" where the first one said "a"."""
    subject = _plain(story.subject)
    number = 1 + _is_several(subject)
    if index or not action.text.startswith("{subject}"):
        subject = re.sub(r"^(a|an)\s+", "the ", subject, flags=re.IGNORECASE)
    text = re.sub(r"(\w+)/(\w+)", lambda verb: verb[number], action.text).replace("{subject}", subject)
    place = _plain(story.place)
    if not place:
        return f"{_upper(text)}."
    if not action.text.startswith("{subject}"):
        text = text[0].lower() + text[1:]
    return f"{_upper(place)}, {text}."


def _is_several(subject: str) -> bool:
    """Whether `subject` is plural: "two children", "Tom and Jerry", "a boy and a dog"."""
    words = subject.split()
    if words[0].lower() in _SEVERAL or (words[0].isdecimal() and words[0] != "1"):
        return True
    return re.search(r"\sand\s+(?:an?\s|the\s|one\s|two\s|[A-Z])", _head(subject)) is not None


def _head(subject: str) -> str:
    """Return `subject` up to its first preposition or comma."""
    return re.split(rf"\b(?:{'|'.join(_PREPOSITIONS)})\b|,", subject)[0]


def _items(answer: str) -> list[str]:
    """Return the entries of a numbered list, or the paragraphs of an answer without one."""
    numbered = re.compile(r"^[\s*#>-]*(?:(?:clip|prompt|scene|shot)\s*)?#?\d{1,3}\s*[.):\]-]+\**\s*", re.IGNORECASE)
    items: list[str] = []
    for line in answer.splitlines():
        if numbered.match(line):
            items.append(numbered.sub("", line))
        elif items and line.strip():
            items[-1] += " " + line.strip()
    return items or re.split(r"\n\s*\n", answer)


def _cleaned(item: str) -> str:
    """Return one prompt without Markdown and quotation marks."""
    return _closed(_plain(re.sub(r"[*_`]{1,3}", "", item)).strip("\"'“”[]# "))


def _naming(story: Storyline, prompt: str) -> str:
    """Return `prompt`, with the subject in front where it does not name it."""
    subject = _plain(story.subject)
    if not subject:
        return prompt
    head = _head(subject).split()
    if head and re.search(rf"\b{re.escape(head[-1])}\b", prompt, re.IGNORECASE):
        return prompt
    return f"{_closed(_upper(subject))} {prompt}"


def _plain(text: str) -> str:
    """Return `text` on one line, without a period at its end."""
    return " ".join(text.split()).rstrip(" .,;")


def _closed(text: str) -> str:
    """Return `text` on one line, ended by a period unless it ends a sentence already."""
    text = " ".join(text.split())
    return text if not text or text[-1] in ".!?:" else f"{text}."


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
