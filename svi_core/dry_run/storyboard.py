"""The clips of a requested run as the cards of a storyboard: what is ready, outdated and why, or planned; and their takes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from ..schedule.options import format_options
from ..schedule.spec import ClipSpec, Paragraph, Schedule
from ..schedule.unit_text import identity
from ..store.records import ClipRecord
from ..store.takes import takes_by_index
from ..video.seams import Seam, Showing
from .expected_clips import ExpectedClip
from .requested_run import RequestedRun
from .run_estimate import RunEstimate

_NO_FRAMES = Showing(range(0), 0, Seam.DROP, 0, False)


class CardState(StrEnum):
    """What the next run does with a clip."""

    READY = "ready"  # it is stored
    OUTDATED = "outdated"  # another version of it is stored
    PLANNED = "planned"
    DROPPED = "dropped"  # the text lists it beyond the number of clips


@dataclass(frozen=True)
class StoryCard:
    """One clip of a storyboard.

    Attributes:
        clip: as the run will make it.
        state: what the next run does with it.
        reason: why it is outdated.
        shown: the stored clip to show: the ready one, or the last version before; None for none.
        number: of `shown` among its takes, from 1; 0 without.
        num_takes: stored clips that were made for its place.
        by_before: it is outdated only because a clip before it is.
        follows: whether `shown` was made to continue the clip before; None if unknown.
    """

    clip: ExpectedClip
    state: CardState
    reason: str = ""
    shown: ClipRecord | None = None
    number: int = 0
    num_takes: int = 0
    by_before: bool = False
    follows: bool | None = None


def story_cards(estimate: RunEstimate, last_shown: Mapping[int, str]) -> list[StoryCard]:
    """Return the cards of a run's clips.

    Args:
        last_shown: by place, the keys of the clips that the last run finished.
    """
    takes, records = takes_by_index(estimate.records), {record.key: record for record in estimate.records}
    cards, changed = list[StoryCard](), -1  # place of the clip that outdated those after it
    for index, clip in enumerate(estimate.clips):
        own, before = list(takes.get(index, ())), cards[-1] if cards else None
        shown = clip.record or records.get(last_shown.get(index, "")) or (own[-1] if own else None)
        if shown is not None and shown not in own:
            own.append(shown)
        state, reason, is_later = CardState.PLANNED, "", False
        if clip.is_stored:
            state = CardState.READY
        elif shown is not None and clip.is_stored is False:
            state = CardState.OUTDATED
            reason = _own_change(clip, shown)
            if not reason:
                starts_anew = clip.request.starts_anew
                is_later = before is not None and before.state is not CardState.READY and not starts_anew
                reason = f"clip {changed + 1} changed" if is_later else _other_change(shown, None if starts_anew else before)
                changed = changed if is_later else index
            else:
                changed = index
        else:
            changed = index
        number = own.index(shown) + 1 if shown in own else 0
        follows = None if shown is None else _follows(shown, None if clip.request.starts_anew else before, estimate.run)
        cards.append(StoryCard(clip, state, reason, shown, number, len(own), is_later, follows))
    return cards


def dropped_cards(run: RequestedRun) -> list[StoryCard]:
    """Return the cards of the clips that the text lists beyond the number of clips."""
    schedule, plan = run.plan.schedule.snapshot(), replace(run.plan, takes=None)
    cards = list[StoryCard]()
    for index in range(run.plan.num_clips, run.num_listed):
        request = plan.request_for(index, schedule.at(index))
        cards.append(StoryCard(ExpectedClip(request, _NO_FRAMES, 0, 0.0), CardState.DROPPED))
    return cards


def without_missing_takes(run: RequestedRun) -> tuple[RequestedRun, dict[int, str]]:
    """Return `run` without the takes that its folder does not hold, and why, by the place of the clip."""
    find, missing = run.plan.takes, dict[int, str]()
    schedule = run.plan.schedule.snapshot()
    if find is None:
        return run, missing
    specs = [schedule.at(index) for index in range(len(schedule))]
    for index, spec in enumerate(specs):
        if spec.take is not None:
            try:
                find(spec.take)
            except ValueError as error:
                missing[index] = f"clip {index + 1} of the schedule: {error}"
                specs[index] = replace(spec, take=None)
    if not missing:
        return run, missing
    paragraphs = tuple(Paragraph(spec) for spec in specs)
    return replace(run, plan=replace(run.plan, schedule=Schedule(paragraphs))), missing


def named_options(spec: ClipSpec) -> dict[str, str]:
    """Return the options of a clip as texts, by what names them: "seed", "lora svi"; "cut" is ""."""
    return _named(format_options(spec))


def _own_change(clip: ExpectedClip, shown: ClipRecord) -> str:
    """Return what the text says of a clip that is not true of the stored one."""
    spec = clip.request.spec
    if spec.prompt != shown.prompt:
        return "the prompt changed"
    if clip.request.seed != shown.seed:
        return "the seed changed"
    if shown.options is None:
        return ""
    now, then = _options_in_key(clip.request.index, spec), _named(shown.options)
    names = [name for name in (*now, *then) if now.get(name) != then.get(name)]
    return f"{names[0]} changed" if names else ""


def _options_in_key(index: int, spec: ClipSpec) -> dict[str, str]:
    """Return the options that a clip's record names."""
    return named_options(replace(spec, seed=None, hold=0, seam=None, take=None, cut=spec.cut and index > 0))


def _named(options: str) -> dict[str, str]:
    named = {identity(option): option for option in options.split(", ")} if options else {}
    return {name: option[len(name) :].lstrip(" =") for name, option in named.items()}


def _other_change(shown: ClipRecord, before: StoryCard | None) -> str:
    if before is not None and before.clip.record is not None and shown.parent not in (None, before.clip.record.key):
        return "the clip before is another take"
    return "the graph changed"


def _follows(shown: ClipRecord, before: StoryCard | None, run: RequestedRun) -> bool | None:
    if shown.parent is None or (before is None and run.plan.continues):
        return None
    if before is None:
        return shown.parent == ""
    return None if before.shown is None else shown.parent == before.shown.key
