"""Is error recycling likely to help a model on these clips? What a diagnosis measures, and the verdict that follows from it.

Where chains of clips fade and the model copies what it is handed, errors in the known frames teach it not to. Where the model
restores by itself, or its chains only wander, they cost quality and give nothing back (the repository's DECISIONS.md).
Source: SVI (arXiv:2510.09212), Sec. 4.1 and Table 4 (errors of the known frames matter most).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum

MIN_SCENES = 6  # intervals of fewer are too wide, and the spread itself is hardly known
MIN_CLIPS = 6  # a base that keeps a third of the contrast after 30 clips has 0.97, 0.95, 0.93, 0.90, 0.87 in clips 1 to 5
INTERVAL = 2.6  # standard errors on either side: 95 % of Student's t for 6 scenes
COPIES, RESTORES = 0.7, 0.6  # gain: 0.9 where recycling stopped the fading, 0.5 where it made chains worse
FADED = 0.8  # of the true clips' contrast, detail or motion
STILL_FALLS = 0.95  # of the value in the middle of the chain: what is lost once, in the first clips, is not drift
LOST = 0.5  # of the value in clip 1: so little is left that it need not fall any more
GROWN = 1.25  # the inverse of FADED
COLOURS_LEFT = 3.0  # distance from the mean colour, in that of true clips
NOT_THIS_DATA = (0.5, 2.0)  # contrast and motion of clip 1: outside, the model does not make such clips at all
NOISY = 0.5  # injected errors over the latents: half the signal's size is what an untrained model's errors have
FAINT = 0.2  # the same: in the study's world where they were so small they did not stop chains from fading
UNLIKE = 3.0  # factor between the errors that a chain hands over and those that are injected, either way


@dataclass(frozen=True)
class Estimate:
    """A mean over scenes and its standard error; NaN where it means nothing, such as motion where true clips stand still."""

    value: float
    error: float

    @property
    def low(self) -> float:
        """Lower end of the interval."""
        return self.value - INTERVAL * self.error

    @property
    def high(self) -> float:
        """Upper end of the interval."""
        return self.value + INTERVAL * self.error

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {INTERVAL * self.error:.2f}"


@dataclass(frozen=True)
class Measures:
    """What a diagnosis measures on chains of K clips in N scenes; the latents' own size is about 1.

    Attributes:
        num_scenes: N.
        gain: share of a small error in the known slots that arrives in those that the clip hands over.
        contrast, spectrum, motion, saturation: of each clip, over those of true clips, see `svi_core.look.fade.Fade`.
        colour: of each clip, the distance of its mean colour from the true clips', in that of a true clip.
        error_to_signal: (noise level, RMS of the one-step errors over that of the latents) of each grid cell with errors.
        common: share of the squared error that a clip hands over that all scenes have in common.
        handed_over: RMS of that error, against the same clip's truth, over that of the latents.
        injected: RMS over that of the latents of the errors that a bank of these errors puts into the known slots; None if the
            settings put none there.
        has_anchor: the layout shows each clip an anchor.
    """

    num_scenes: int
    gain: Estimate
    contrast: tuple[Estimate, ...]
    spectrum: tuple[Estimate, ...]
    motion: tuple[Estimate, ...]
    saturation: tuple[Estimate, ...]
    colour: tuple[Estimate, ...]
    error_to_signal: tuple[tuple[float, float], ...]
    common: float
    handed_over: float
    injected: float | None
    has_anchor: bool

    @property
    def num_clips(self) -> int:
        """K."""
        return len(self.contrast)

    @property
    def fading(self) -> dict[str, Sequence[Estimate]]:
        """The measures that show fading, without one that the true clips lack."""
        fading = {"contrast": self.contrast, "fine detail": self.spectrum, "motion": self.motion}
        return {name: clips for name, clips in fading.items() if clips[-1].value == clips[-1].value}

    def as_dict(self) -> dict[str, object]:
        """Return the measures as plain data for JSON, where NaN is None."""
        return {name: _plain(value) for name, value in asdict(self).items()}


def _plain(value):
    if isinstance(value, dict):
        return {name: _plain(entry) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Answer(StrEnum):
    """Whether error recycling helps."""

    LIKELY = "likely to help"
    UNLIKELY = "unlikely to help"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True)
class Verdict:
    """The answer, the reason for it, and what else is worth knowing."""

    answer: Answer
    reason: str
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "\n".join([f"{self.answer}: {self.reason}", *(f"- {note}" for note in self.notes)])


def judge(measures: Measures) -> Verdict:
    """Return whether error recycling is likely to help."""
    answer, reason = _first_reason(measures)
    return Verdict(answer, reason, tuple(_notes(measures)))


def _first_reason(measures: Measures) -> tuple[Answer, str]:
    """Return the answer and the first reason that settles it."""
    reasons = (_too_little, _no_gain, _useless_errors, _not_this_data, _restores, _faded, _changed_otherwise, _holds)
    return next(found for reason in reasons if (found := reason(measures)) is not None)


def _too_little(measures: Measures) -> tuple[Answer, str] | None:
    if measures.num_scenes >= MIN_SCENES and measures.num_clips >= MIN_CLIPS:
        return None
    return Answer.CANNOT_TELL, (
        f"too little was chained (scenes: {measures.num_scenes}, clips of each: {measures.num_clips}); use {MIN_SCENES} "
        f"scenes and {MIN_CLIPS} clips or more."
    )


def _no_gain(measures: Measures) -> tuple[Answer, str] | None:
    if math.isfinite(measures.gain.value):
        return None
    return Answer.CANNOT_TELL, "a clip handed over exactly the truth, so there is no error whose way could be followed."


def _useless_errors(measures: Measures) -> tuple[Answer, str] | None:
    """The errors that would be injected are absent or as large as the picture itself."""
    if measures.injected is None:
        return Answer.UNLIKELY, "these settings put no error into the known frames, and those errors are what stops fading."
    if measures.injected > NOISY:
        return Answer.UNLIKELY, (
            f"the errors that would be injected have {measures.injected:.2f} of the latents' size, so they replace the picture "
            "instead of spoiling it: the model is not trained enough for its errors to teach anything."
        )
    return None


def _not_this_data(measures: Measures) -> tuple[Answer, str] | None:
    low, high = NOT_THIS_DATA
    for name, clips in measures.fading.items():
        if name != "fine detail" and not low <= clips[0].value <= high:
            return Answer.CANNOT_TELL, (
                f"already clip 1 has {clips[0].value:.2f} of the true clips' {name}: the model does not make clips like these, "
                "so its chains say nothing about drift. Check prompts, layout, steps and guidance."
            )
    return None


def _restores(measures: Measures) -> tuple[Answer, str] | None:
    gain = measures.gain
    if gain.value > RESTORES or gain.high > COPIES:
        return None
    return Answer.UNLIKELY, (
        f"of a small error in the known frames {gain} arrives at the end of the clip: the model restores by itself, and there "
        "is little for recycled errors to teach."
    )


def _faded(measures: Measures) -> tuple[Answer, str] | None:
    found = [(name, clips) for name, clips in measures.fading.items() if clips[-1].high < FADED]
    fading = [f"{name} {clips[-1]}" for name, clips in found if _falls(clips) or clips[-1].value < LOST * clips[0].value]
    if not found:
        return None
    if not fading:
        name, clips = found[0]
        return Answer.CANNOT_TELL, (
            f"{name} is at {clips[-1]} of the truth's, but no longer falls: what is lost once, for example by the VAE or by "
            "few steps, is not drift. Chain more clips to be sure."
        )
    what = f"after {measures.num_clips} clips the chains have lost to fading ({', '.join(fading)} of the truth's)"
    if measures.injected is not None and measures.injected < FAINT:
        return Answer.UNLIKELY, (
            f"{what}, but the errors that would be injected have only {measures.injected:.2f} of the latents' size: too little "
            "to teach the model that what it is handed may be wrong."
        )
    if measures.gain.low < COPIES:
        return (
            Answer.CANNOT_TELL,
            f"{what}, but whether the model copies errors is open (gain {measures.gain}): more scenes help.",
        )
    return Answer.LIKELY, f"{what}, and the model copies the errors that it is handed (gain {measures.gain})."


def _changed_otherwise(measures: Measures) -> tuple[Answer, str] | None:
    """The chains leave the look of their data in another way than by fading, of which nothing is known."""
    grown = [f"{name} {clips[-1]}" for name, clips in measures.fading.items() if clips[-1].low > GROWN]
    if measures.colour[-1].low > COLOURS_LEFT:
        grown.append(f"colours {measures.colour[-1]} times as far from the mean as true ones")
    if not grown:
        return None
    return Answer.CANNOT_TELL, (
        f"the chains do not fade but leave the look of true clips otherwise ({', '.join(grown)}); whether recycling stops "
        "that has not been studied."
    )


def _holds(measures: Measures) -> tuple[Answer, str]:
    open_ends = [f"{name} {clips[-1]}" for name, clips in measures.fading.items() if clips[-1].low < FADED or _falls(clips)]
    if open_ends:
        return Answer.CANNOT_TELL, (
            f"whether the chains fade is open after {measures.num_clips} clips ({', '.join(open_ends)} of the truth's): "
            "more clips show where it leads, more scenes narrow the intervals."
        )
    ends = ", ".join(f"{name} {clips[-1]}" for name, clips in measures.fading.items())
    return Answer.UNLIKELY, f"the chains do not fade ({ends} of the truth's after {measures.num_clips} clips); they may wander."


def _falls(clips: Sequence[Estimate]) -> bool:
    """Whether a measure still falls in the second half of the chain."""
    return clips[-1].value < STILL_FALLS * clips[len(clips) // 2].value


def _notes(measures: Measures) -> Iterator[str]:
    if measures.has_anchor:
        yield "each clip sees the anchor: plain fine-tuning may already stop the fading while the scene still shows it."
    if measures.injected and not measures.handed_over / UNLIKE < measures.injected < UNLIKE * measures.handed_over:
        size = "larger" if measures.injected > measures.handed_over else "smaller"
        yield (
            f"the injected errors ({measures.injected:.2f} of the latents' size) are much {size} than those that a clip hands "
            f"over ({measures.handed_over:.2f})."
        )
