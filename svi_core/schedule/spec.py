"""What a schedule says of each clip, as data."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from ..files.fingerprint import NOT_HASHED
from ..video.seams import Seam

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
        prompt: text.
        seed: noise seed.
        num_frames: pixel frames, 4n + 1.
        num_motion_frames: motion frames taken from the clip before.
        cfg: guidance scale.
        anchor: name of the anchor, which holds for later clips too.
        end: name of the end image.
        loras: strengths that override those of the LoRA rows.
        cut: start from the anchor, without motion and overlap.
        seam: how the frames shared with the clip before are joined.
        hold: how often the last frame is repeated.
        take: the beginning of the key of a stored clip, which is shown in place of a new one.
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
    take: str | None = field(default=None, metadata=NOT_HASHED)  # a pinned clip has the key of its take

    def repeated(self, is_first: bool, is_last: bool) -> "ClipSpec":
        """Return what this asks of one repeat: seed, cut and take hold for the first, end and hold for the last."""
        first = self if is_first else replace(self, seed=None, cut=False, take=None)
        return first if is_last else replace(first, end=None, hold=0)


Requirement = Callable[[int, ClipSpec], None]  # (clip index, spec): raises ValueError if the run cannot make that clip


@dataclass(frozen=True)
class Paragraph:
    """One paragraph of a schedule: a clip, and how often it is made."""

    spec: ClipSpec
    repeat: int = 1

    def clips(self) -> Iterator[ClipSpec]:
        """Yield what the paragraph itself asks of each of its clips."""
        for repetition in range(self.repeat):
            yield self.spec.repeated(repetition == 0, repetition == self.repeat - 1)


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
        return self

    def for_run(self) -> "Schedule":
        return self

    @property
    def pinned(self) -> set[str]:
        """The beginnings of the keys of all takes that it pins, also of clips that a run does not come to."""
        return {spec.take for spec in self._specs if spec.take is not None}

    def at(self, clip_index: int, require: Requirement | None = None) -> ClipSpec:
        """Return what clip `clip_index` (0-based) shall be; the last prompt and anchor hold beyond the end.

        `require` is ignored: a schedule that does not change is checked before the run.
        """
        if clip_index < len(self._specs):
            return self._specs[clip_index]
        return self._specs[-1].repeated(is_first=False, is_last=False)

    @property
    def prompts(self) -> list[str]:
        """The different prompts in order of appearance."""
        return list(dict.fromkeys(paragraph.spec.prompt for paragraph in self.paragraphs))


def _expanded(paragraphs: tuple[Paragraph, ...]) -> Iterator[ClipSpec]:
    """Yield one spec per clip. An anchor holds until the next."""
    anchor = None
    for paragraph in paragraphs:
        anchor = paragraph.spec.anchor or anchor
        for own in paragraph.clips():
            yield replace(own, anchor=anchor)
