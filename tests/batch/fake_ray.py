"""A stand-in for the package ray in this process: its actors are objects whose methods run in threads, and can be killed."""

import threading
import time
from concurrent.futures import FIRST_COMPLETED, Future, wait
from types import SimpleNamespace


class RayError(Exception):
    pass


class RayActorError(RayError):
    pass


class ActorDiedError(RayActorError):
    pass


class ActorUnavailableError(RayActorError):
    pass


class ActorUnschedulableError(RayError):
    pass


class RayTaskError(RayError):
    pass


class OutOfMemoryError(RayError):
    pass


class FakeActor:
    """`die` is the death of its process: what runs is lost, and a new object takes its place unless it is the end."""

    def __init__(self, make_worker, has_place: bool) -> None:
        self._make_worker, self.is_gone, self.has_place = make_worker, False, has_place
        self._jobs: dict[Future, str] = {}  # what runs -> its method
        self.worker = make_worker()

    def __getattr__(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(remote=lambda *arguments: self._run(name, arguments))

    def die(self, for_good: bool = False) -> None:
        jobs, self._jobs = self._jobs, {}  # first: a dead process tells nothing
        self.is_gone = for_good
        self.worker._server.kill()
        if not for_good:
            self.worker = self._make_worker()
        for job in jobs:
            job.set_exception(self._death())

    def fail(self, error: RayError) -> None:
        """Let what runs end with an error for the command, although its threads go on: a link that is cut."""
        jobs, self._jobs = self._jobs, {}
        for job in jobs:
            job.set_exception(error)

    def is_making(self) -> bool:
        """Whether it makes a story now."""
        return "make" in self._jobs.values()

    def _death(self) -> RayActorError:
        return ActorDiedError("The actor died.\nits machine burns") if self.is_gone else RayActorError("it is restarting")

    def _run(self, name: str, arguments: tuple) -> Future:
        job: Future = Future()
        if self.is_gone:
            job.set_exception(self._death())
            return job
        self._jobs[job] = name
        if not self.has_place:
            return job
        threading.Thread(target=self._work, args=(job, getattr(self.worker, name), arguments), daemon=True).start()
        return job

    def _work(self, job: Future, method, arguments: tuple) -> None:
        try:
            result = method(*arguments)
        except Exception as error:
            if self._jobs.pop(job, None):
                job.set_exception(RayTaskError(f"{method.__name__} raised\n{error}"))
            return
        if self._jobs.pop(job, None):
            job.set_result(result)


class FakeRay:
    """A cluster in this process.

    Attributes:
        machines: the resources of each, such as {"CPU": 4, "GPU": 1}.
        num_free: how many actors get a place; the others wait for one without end.
        room: what each actor asked for, in order.
    """

    exceptions = SimpleNamespace(
        RayError=RayError,
        RayActorError=RayActorError,
        ActorDiedError=ActorDiedError,
        ActorUnschedulableError=ActorUnschedulableError,
    )
    __spec__ = object()

    def __init__(self, *machines: dict) -> None:
        self.machines, self.actors, self.room = list(machines), [], []
        self.address, self.interrupts_at, self.num_free = None, lambda: False, 100

    def init(self, address: str | None, **_: object) -> None:
        if address == "nowhere:1":
            raise ConnectionError("nothing there")
        self.address = address

    def shutdown(self) -> None:
        for actor in self.actors:
            actor.die(for_good=True)

    def nodes(self) -> list[dict]:
        return [{"Alive": bool(resources), "Resources": resources} for resources in self.machines]

    def remote(self, kind) -> SimpleNamespace:
        def options(**room: object) -> SimpleNamespace:
            return SimpleNamespace(remote=lambda *arguments: self._hire(lambda: kind(*arguments), room))

        return SimpleNamespace(options=options)

    def _hire(self, make_worker, room: dict) -> FakeActor:
        self.room.append(room)
        self.actors.append(FakeActor(make_worker, len(self.actors) < self.num_free))
        return self.actors[-1]

    def wait(self, jobs: list[Future], num_returns: int = 1, timeout: float = 0) -> tuple[list, list]:
        if self.interrupts_at():
            self.interrupts_at = lambda: False
            raise KeyboardInterrupt
        done, left = wait(jobs, timeout, return_when=FIRST_COMPLETED)
        return list(done), list(left)

    def get(self, job: Future) -> object:
        return job.result(60)

    def kill(self, actor: FakeActor) -> None:
        actor.die(for_good=True)


def until(condition, seconds: float = 60) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
