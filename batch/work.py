"""The stories of a batch that wait, run, and have ended, for whoever places them: on servers, or on a cluster."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from batch.outcome import LOST, Outcome
from batch.prepare import PreparedStory
from batch.progress import Progress
from batch.records import FAILED, QUEUED, OutputFolder, Record
from batch.workflow.convert import Graph

MOST_LOSSES = 5  # of servers, while one story runs
_MODEL_SUFFIXES = (".safetensors", ".sft", ".gguf", ".ckpt", ".pt", ".pth", ".bin")


@dataclass
class Batch:
    """What several places work on: servers, known by their addresses, or the workers of a cluster by their names.

    Attributes:
        waiting: name of a story -> each place that can make it -> the graph for that place.
        held_by: name of a story -> the server that still has it, from a command that was killed.
        made, failed: how the stories ended; a story without a place stays in `waiting`.
        lost_servers: place -> why it is not asked any more.
        lost_prompts: name of a story -> its prompts during which a server was lost.
    """

    waiting: dict[str, Mapping[str, PreparedStory]]
    folder: OutputFolder
    progress: Progress
    held_by: Mapping[str, str] = field(default_factory=dict)
    made: dict[str, Record] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    lost_servers: dict[str, str] = field(default_factory=dict)
    lost_prompts: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    should_stop: threading.Event = field(default_factory=threading.Event)
    _running: dict[str, Mapping[str, PreparedStory]] = field(default_factory=dict)
    _loaded: dict[str, frozenset[str]] = field(default_factory=dict)  # place -> the models that its last story named
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next_for(self, place: str, offer: str = "") -> PreparedStory | None:
        """Take the next story for a place: one that it has already, else one whose models it holds, else the first.

        Args:
            offer: the name in `waiting` of what this place can make; that of the place by default.
        """
        offer = offer or place
        with self._lock:
            fitting = [name for name, graphs in self.waiting.items() if offer in graphs]
            free = [name for name in fitting if self.held_by.get(name, place) in (place, *self.lost_servers)]
            if not free:
                return None
            models = {name: _models_of(self.waiting[name][offer].graph) for name in free}
            loaded = self._loaded.get(place)
            name = min(free, key=lambda name: (name not in self.held_by, models[name] != loaded))  # the first of the best
            self._loaded[place] = models[name]
            self._running[name] = self.waiting.pop(name)
            return self._running[name][offer]

    def note(self, name: str, place: str, outcome: Outcome) -> None:
        """Note how a try of a story ended; one that may do better waits again, before all others."""
        if outcome.record is not None:
            self.made[name] = outcome.record
            self._end(name)
            self.progress.end(name, f"{outcome.record.video['file']} in {outcome.record.seconds:.0f} s")
        elif outcome.status == FAILED:
            self._fail(name, outcome.reason)
        else:
            self.progress.drop(name)
            if not (outcome.status == LOST and self._kills_servers(name, place, outcome.reason)):
                self._put_back(name)

    def has_more_for(self, offer: str) -> bool:
        """Whether a place may get a story later: one that waits or runs, since its place may be lost."""
        with self._lock:
            return bool(self._running) or any(offer in graphs for graphs in self.waiting.values())

    def _fail(self, name: str, reason: str) -> None:
        self.failed[name] = reason
        self._end(name)
        self.progress.end(name, f"failed: {reason}")

    def _kills_servers(self, name: str, place: str, reason: str) -> bool:
        """Note that a server was lost; return whether its story fails, since it seems to be what kills servers."""
        self._loaded.pop(place, None)
        record = self.folder.record(name)
        if record is None or record.status != QUEUED:
            return False
        self.lost_prompts[name].add(record.prompt_id)
        times = len(self.lost_prompts[name])
        if times < MOST_LOSSES:
            return False
        reason = f"its server was lost {times} times while it was made ({reason}); the log of the server may say why"
        self.folder.write_record(name, replace(record, status=FAILED, error=reason))
        self._fail(name, reason)
        return True

    def _put_back(self, name: str) -> None:
        with self._lock:
            self.waiting = {name: self._running.pop(name), **self.waiting}

    def _end(self, name: str) -> None:
        with self._lock:
            del self._running[name]


def _models_of(graph: Graph) -> frozenset[str]:
    """Return the model files that a graph names."""
    values = (value for node in graph.values() for value in node["inputs"].values())
    return frozenset(value for value in values if isinstance(value, str) and value.lower().endswith(_MODEL_SUFFIXES))
