"""Spread stories over a Ray cluster: an actor for each GPU, which owns a ComfyUI process, see `batch.ray_worker`.

Ray finds the GPUs, gives each actor one, starts it again on any free one when its process or its machine dies, and tells of
every death. What is left here: which story a free worker gets, and that a story whose worker died goes to another one at once.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from batch.outcome import LOST, UNFIT, Outcome
from batch.placement import ENDING
from batch.ray_worker import Started, Worker
from batch.servers import OwnComfyUI
from batch.work import Batch
from batch.workflow.node_inputs import ObjectInfo
from comfyui.client import ServerError
from comfyui.environment import REPOSITORY

PATIENCE_SECONDS = 900.0  # while no story is made and no worker gets ready
AGAIN_SECONDS = 2.0  # between two questions to a worker that is started again
MOST_RESTARTS = 100  # of one worker by Ray, in the whole batch
MOST_LOSSES = 10  # of one worker in a row; its machine or its ComfyUI is not in order then
_OFFER = "ray"  # all workers offer the same; one that does not is left out


def no_ray() -> str:
    """Return how to install the package ray where this command runs, "" if it is there."""
    if importlib.util.find_spec("ray") is not None:
        return ""
    own = f"{sys.executable} -m pip install 'ray>=2.40,<3'"
    how = own if os.environ.get("COMFYUI_PYTHON") else "python -m dev.environment --extra ray"
    return f"--ray needs the package ray, which {sys.executable} lacks: {how}"


@contextmanager
def open_cluster(address: str, own: OwnComfyUI, output: Path, say: Callable[[str], None]) -> Iterator[RayCluster]:
    """Yield the cluster at `address`; with "" the one that RAY_ADDRESS or this machine has, else one of this machine alone.

    Raises:
        ServerError: there is no cluster at `address`.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray: Any = importlib.import_module("ray")
    paths = {"env_vars": {"PYTHONPATH": str(REPOSITORY)}}
    try:
        ray.init(address or None, logging_level=logging.ERROR, log_to_driver=False, runtime_env=paths)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ServerError(f"no Ray cluster at {address or 'this machine'}: {error}") from error
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # Ray has put its own there
    mark = output / "server" / f"seen-by-all-{uuid.uuid4().hex}"
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    try:
        yield RayCluster(ray, own, output, mark, say)
    finally:
        mark.unlink(missing_ok=True)
        ray.shutdown()  # ends the actors, and with them their ComfyUIs


@dataclass
class _Hired:
    """A worker, and what it does.

    Attributes:
        needs: what it has one of to itself, GPU or CPU.
        job: what it does: start or make `story`; None if it does nothing.
        machine: where it is ready; "" until it is.
        ask_at: when to ask it to start, if it is not ready.
        share_job: the question how much of its story is done, until it is answered.
        num_losses: how often in a row its ComfyUI did not start, or was lost without a story that is to blame.
        lacks: what stories need that it does not have, as far as told.
    """

    name: str
    needs: str
    actor: Any
    job: Any = None
    machine: str = ""
    story: str = ""
    ask_at: float = 0.0
    share_job: Any = None
    num_losses: int = 0
    lacks: set[str] = field(default_factory=set)

    @property
    def place(self) -> str:
        return f"{self.name} on {self.machine}" if self.machine else self.name


class RayCluster:
    """The workers of a cluster, as a place for stories."""

    def __init__(self, ray: Any, own: OwnComfyUI, output: Path, mark: Path, say: Callable[[str], None]) -> None:
        self._ray, self._own, self._output, self._mark, self._say = ray, own, output, mark, say
        self._hired: list[_Hired] = []
        self._left_out: dict[str, str] = {}  # name -> why
        self._num_hired = {"GPU": 0, "CPU": 0}  # with those that are left out
        self._seen = time.monotonic()  # when a story was made last, or a worker hired or ready
        kind, wanted = self._wanted()
        say(f"workers: {wanted}, {'one for each GPU' if kind == 'GPU' else 'as many as machines, on the CPU'}")

    @property
    def names(self) -> list[str]:
        return [worker.place for worker in self._hired if worker.machine]

    def offers(self, say: Callable[[str], None]) -> Iterator[tuple[str, ObjectInfo]]:
        """Yield the nodes of the worker that is ready first. Raises ServerError if none will be."""
        while True:
            self._look()
            ready = next((worker for worker in self._hired if worker.machine), None)
            if ready is None and (why := self._hopeless()):
                raise ServerError(f"no worker of the cluster can make anything: {why}")
            if ready is not None:
                info: ObjectInfo = {}
                with suppress(self._ray.exceptions.RayError):
                    info = self._ray.get(ready.actor.object_info.remote())
                if info:
                    yield _OFFER, info
                    return
                ready.machine = ""  # it died since, and is to start again

    def make(self, batch: Batch) -> None:
        """Make all stories; return when every one is made, failed, or has no worker left.

        Ctrl-C ends the running stories in order, and then raises KeyboardInterrupt; a second one does not wait.
        """
        self._say = batch.progress.say  # which ends the progress line first
        try:
            while batch.has_more:
                if why := self._hopeless():
                    batch.lost_places = {"cluster": why}
                    return
                batch.places |= dict.fromkeys((worker.name for worker in self._hired), _OFFER)
                self._assign(batch)
                self._look(batch)
        except KeyboardInterrupt:
            batch.should_stop.set()
            batch.progress.say(ENDING)
            for worker in self._hired:
                worker.actor.stop.remote()
            while any(worker.story for worker in self._hired):
                self._look(batch)
            raise

    def _count(self, resource: str) -> int:
        return sum(int(node["Resources"].get(resource, 0)) for node in self._ray.nodes() if node["Alive"])

    def _wanted(self) -> tuple[str, int]:
        """Return GPU or CPU, and how many such workers the cluster has room for now; machines may come and go.

        Once a GPU was there, no further worker is to run on a CPU.
        """
        num_gpus = self._count("GPU")
        if num_gpus or self._num_hired["GPU"]:
            return "GPU", num_gpus
        return "CPU", sum(node["Alive"] and node["Resources"].get("CPU", 0) >= 1 for node in self._ray.nodes())

    def _hire(self) -> None:
        kind, wanted = self._wanted()
        # A machine may have fewer CPUs than GPUs: a worker that wants one of each would wait there for ever.
        room = {"num_gpus": 1, "num_cpus": 0} if kind == "GPU" else {"num_cpus": 1, "scheduling_strategy": "SPREAD"}
        while self._num_hired[kind] < wanted:
            self._num_hired[kind], self._seen = self._num_hired[kind] + 1, time.monotonic()
            name = f"worker-{sum(self._num_hired.values())}"
            # Threads: one for its story, others to ask it and to stop it.
            actors = self._ray.remote(Worker).options(max_restarts=MOST_RESTARTS, max_concurrency=3, **room)
            actor = actors.remote(self._own, self._output, name, os.environ.get("OMP_NUM_THREADS"))
            self._hired.append(_Hired(name, kind, actor))

    def _assign(self, batch: Batch) -> None:
        for worker in self._hired:
            if worker.machine and worker.job is None and (prepared := batch.next_for(worker.name)) is not None:
                worker.story = prepared.story.name
                worker.job = worker.actor.make.remote(prepared)
                batch.progress.begin(worker.story, worker.place)

    def _look(self, batch: Batch | None = None) -> None:
        """Wait half a second at most for something to end, and note it."""
        self._hire()
        for worker in self._hired:
            if not worker.machine and worker.job is None and time.monotonic() >= worker.ask_at:
                worker.job = worker.actor.start.remote(self._mark.relative_to(self._output).as_posix())
        if any(worker.story for worker in self._hired):
            self._seen = time.monotonic()
        jobs = [worker.job for worker in self._hired if worker.job is not None]
        if jobs:
            self._ray.wait(jobs, timeout=0.5)
            ended = self._ray.wait(jobs, num_returns=len(jobs), timeout=0)[0]
        else:
            time.sleep(0.1)
            ended = []
        for worker in [worker for worker in self._hired if worker.job in ended]:
            self._note(worker, batch)
        if time.monotonic() - self._seen > PATIENCE_SECONDS:
            self._leave_out_late(batch)
        if batch is not None:
            self._show(batch)

    def _note(self, worker: _Hired, batch: Batch | None) -> None:
        """Note how the job of a worker ended."""
        job, story, was_told, has_died = worker.job, worker.story, True, False
        worker.job, worker.story, worker.share_job = None, "", None
        try:
            result: Started | Outcome = self._ray.get(job)
        except self._ray.exceptions.RayError as error:  # of many kinds: of an actor, its process, its machine, its memory
            was_told = False  # by the worker
            errors = self._ray.exceptions  # those two are for ever; after all others it is started again
            has_died = isinstance(error, (errors.ActorDiedError, errors.ActorUnschedulableError))
            result = Outcome(LOST, reason=_last_line(error))
        if isinstance(result, Started):
            self._note_start(worker, result, batch)
            return
        if story and batch is not None:
            batch.note(story, worker.name, result)
            worker.num_losses = worker.num_losses + 1 if result.status == LOST and story not in batch.failed else 0
            if why := batch.lost_places.get(worker.name):
                self._leave_out(worker, why, batch)
                return
        elif was_told:
            worker.num_losses += 1  # at its start
        if has_died or worker.num_losses > MOST_LOSSES:
            self._leave_out(worker, result.reason, batch)
        elif result.status == UNFIT and result.reason not in worker.lacks:
            worker.lacks.add(result.reason)
            self._say(f"{worker.place} leaves {story} to others: {result.reason}")
        elif result.status == LOST:
            if worker.machine or was_told:
                self._say(f"{worker.place}: {result.reason}; it is started again")
            worker.machine, worker.ask_at = "", time.monotonic() + AGAIN_SECONDS

    def _note_start(self, worker: _Hired, started: Started, batch: Batch | None) -> None:
        worker.machine, self._seen = started.machine, time.monotonic()
        if started.problem:
            self._leave_out(worker, started.problem, batch)
        else:
            self._say(f"{worker.place} is ready")

    def _leave_out(self, worker: _Hired, reason: str, batch: Batch | None) -> None:
        self._say(f"{worker.place} is left out: {reason}")
        self._left_out[worker.name] = reason
        self._hired.remove(worker)
        if batch is not None:
            batch.lose(worker.name, reason)
        self._ray.kill(worker.actor)

    def _leave_out_late(self, batch: Batch | None) -> None:
        """Leave out the workers that are still not ready: nothing goes on without them, and nothing tells that they will be."""
        late = [worker for worker in self._hired if not worker.machine]
        answers = [worker.actor.share.remote() for worker in late]  # one that Ray has put nowhere does not answer
        answered = self._ray.wait(answers, num_returns=len(answers), timeout=2)[0] if answers else []
        waited = f"{PATIENCE_SECONDS / 60:.0f} minutes"
        for worker, answer in zip(late, answers, strict=True):
            log = self._output / "server" / worker.name / "server.log"
            why = f"no {worker.needs} was free for it in {waited}: end what else holds one, or add a machine (see `ray status`)"
            if answer in answered:
                try:
                    self._ray.get(answer)
                    why = f"its ComfyUI did not start in {waited}: {log} may say why"
                except self._ray.exceptions.RayError as error:
                    why = f"its process died, and none stayed, or found a {worker.needs}, in {waited}: {log} may say why"
                    why = f"{why}; Ray says: {_last_line(error)}"
            self._leave_out(worker, why, batch)

    def _hopeless(self) -> str:
        """Return why no worker will be ready, "" if one may be."""
        if self._hired:
            return ""
        if self._left_out:
            return "; ".join(f"{name}: {why}" for name, why in self._left_out.items())
        has_waited = time.monotonic() - self._seen > PATIENCE_SECONDS
        return "it has neither a GPU nor a machine with a whole CPU: add one with `ray start`" if has_waited else ""

    def _show(self, batch: Batch) -> None:
        """Ask the workers how far they are, without waiting, and tell the user."""
        for worker in self._hired:
            if worker.story and worker.share_job is None:
                worker.share_job = worker.actor.share.remote()
            elif worker.share_job is not None and self._ray.wait([worker.share_job], timeout=0)[0]:
                with suppress(self._ray.exceptions.RayError):  # it died: its job tells
                    batch.progress.advance(worker.story, self._ray.get(worker.share_job))
                worker.share_job = None
        batch.progress.show()


def _last_line(error: Exception) -> str:
    """Return the last line of one of Ray's errors, which holds the cause."""
    return (str(error).strip() or type(error).__name__).splitlines()[-1].strip()
