"""The stories of a batch that wait, run, and have ended, for whoever places them: on servers, or on a cluster."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from batch.outcome import LOST, UNFIT, Outcome, described
from batch.prepare import PreparedStory
from batch.progress import Progress
from batch.records import FAILED, QUEUED, OutputFolder, Record

MOST_LOSSES = 5  # of servers, while one story runs: then those places give it up; after as many more losses it fails
MOST_GIVEN_UP = 3  # stories that a place gave up, with none made there between: then the place is not in order


@dataclass
class Batch:
    """What several places work on: servers, known by their addresses, or the workers of a cluster by their names.

    Attributes:
        waiting: name of a story -> each place that can make it -> the graph for that place.
        held_by: name of a story -> the server that still has it, from a command that was killed.
        made, failed: how the stories ended; a story without a place stays in `waiting`.
        places: each place that is asked -> the name in `waiting` of what it can make.
        lost_places: place -> why it is not asked any more.
    """

    waiting: dict[str, Mapping[str, PreparedStory]]
    folder: OutputFolder
    progress: Progress
    held_by: Mapping[str, str] = field(default_factory=dict)
    made: dict[str, Record] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    lost_places: dict[str, str] = field(default_factory=dict)
    should_stop: threading.Event = field(default_factory=threading.Event)
    _running: dict[str, Mapping[str, PreparedStory]] = field(default_factory=dict)
    _loaded: dict[str, frozenset[str]] = field(default_factory=dict)  # place -> the models that its last story named
    _barred: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))  # story -> place -> why not there
    _lost_prompts: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))  # story -> prompt -> place
    _given_up: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))  # place -> stories, none made since
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def next_for(self, place: str) -> PreparedStory | None:
        """Take the next story for a place: one that it has already, else one whose models it holds, else the first."""
        with self._lock:
            held = (name for name in self.held_by if self._is_for(place, name))
            free = (name for name in self.waiting if self._is_for(place, name))
            loaded = self._loaded.get(place)
            fitting = (name for name in self.waiting if self._is_for(place, name) and self._way(place, name).models == loaded)
            name = next(held, None) or next(fitting, None) or next(free, None)  # each looks no further than its first
            if name is None:
                return None
            story = self._way(place, name)
            self._loaded[place] = story.models
            self._running[name] = self.waiting.pop(name)
            return story

    def note(self, name: str, place: str, outcome: Outcome) -> None:
        """Note how a try of a story ended; one that may do better waits again, before all others."""
        try:
            self._note(name, place, outcome)
        except Exception as error:  # such as a full disk here: nobody may wait for this story for ever
            self._fail(name, described(error))

    @property
    def has_more(self) -> bool:
        """Whether a story waits or runs."""
        with self._lock:
            return bool(self._running or self.waiting)

    def has_more_for(self, place: str) -> bool:
        """Whether a place may get a story later: one that waits or runs, since its place may be lost."""
        with self._lock:
            return bool(self._running) or any(self._fits(place, *entry) for entry in self.waiting.items())

    def lose(self, place: str, reason: str) -> None:
        """Ask a place no more; a story that no other one can make now fails, if it was tried."""
        with self._lock:
            self.places.pop(place, None)
            self.lost_places[place] = reason
            for name in [name for name in self._barred if name in self.waiting]:
                if not any(self._fits(other, name, self.waiting[name]) for other in self.places):
                    self._barred[name][place] = reason
                    self._running[name] = self.waiting.pop(name)
                    self._fail(name, self._why_barred(name))

    def _note(self, name: str, place: str, outcome: Outcome) -> None:
        if outcome.record is not None:
            self._given_up.pop(place, None)
            self.made[name] = outcome.record
            self._end(name)
            self.progress.end(name, f"{outcome.record.video['file']} in {outcome.record.seconds:.0f} s")
        elif outcome.status == FAILED:
            self._fail(name, outcome.reason)
        else:
            self.progress.drop(name)
            with self._lock:
                if outcome.status == UNFIT:
                    self._barred[name][place] = outcome.reason
                elif outcome.status == LOST:
                    self._note_loss(name, place, outcome.reason)
                self._put_back(name)

    def _note_loss(self, name: str, place: str, reason: str) -> None:
        """Note that a server was lost; a story that seems to be what kills servers is given up where they were lost."""
        self._loaded.pop(place, None)
        record = self.folder.record(name)
        lost = self._lost_prompts[name]
        if record is None or record.status != QUEUED or record.prompt_id in lost:
            return
        lost[record.prompt_id] = place
        if len(lost) % MOST_LOSSES:
            return
        why = f"its server was lost {len(lost)} times while it was made ({reason}); the log of the server may say why"
        for other in list(lost.values())[-MOST_LOSSES:]:
            self._barred[name][other] = why
            self._given_up[other].add(name)
        if len(lost) >= 2 * MOST_LOSSES:
            self._barred[name] |= dict.fromkeys(self.places, why)
        if len(self._given_up[place]) >= MOST_GIVEN_UP and len(self.places) > 1:
            self.lose(place, f"{len(self._given_up[place])} stories were given up there, one after the other ({reason})")

    def _put_back(self, name: str) -> None:
        """Let a story wait again; it fails if it was tried wherever it can be made."""
        if name in self._barred and not any(self._fits(place, name, self._running[name]) for place in self.places):
            reason = self._why_barred(name)
            if (record := self.folder.record(name)) is not None and record.status == QUEUED:
                with suppress(OSError):  # a full disk: the list of problems has the reason, too
                    self.folder.write_record(name, replace(record, status=FAILED, error=reason))
            self._fail(name, reason)
        else:
            self.waiting = {name: self._running.pop(name), **self.waiting}

    def _fits(self, place: str, name: str, graphs: Mapping[str, PreparedStory]) -> bool:
        """Whether a place may still make a story."""
        return self.places.get(place) in graphs and place not in self._barred.get(name, ())

    def _is_for(self, place: str, name: str) -> bool:
        """Whether a story waits for a place, and for no other that has it already and may still make it."""
        graphs, holder = self.waiting.get(name, {}), self.held_by.get(name, place)
        return self._fits(place, name, graphs) and (holder == place or not self._fits(holder, name, graphs))

    def _way(self, place: str, name: str) -> PreparedStory:
        """Return a waiting story as a place makes it."""
        return self.waiting[name][self.places[place]]

    def _why_barred(self, name: str) -> str:
        return "; ".join(dict.fromkeys(self._barred[name].values()))

    def _fail(self, name: str, reason: str) -> None:
        self.failed[name] = reason
        self._end(name)
        self.progress.end(name, f"failed: {reason}")

    def _end(self, name: str) -> None:
        with self._lock:
            self._running.pop(name, None)
