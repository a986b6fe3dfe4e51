"""One graph on a real ComfyUI process, watched from outside: wall time, CPU time, resident memory."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.watch import looking
from comfyui.client import ComfyClient
from comfyui.server import PACK_NODES, ComfyServer

SAMPLE_SECONDS = 0.01
PROBED_NODES = PACK_NODES | {"svi_benchmark_probe": Path(__file__).with_name("probe")}


@dataclass(frozen=True)
class Watched:
    """The cost of one run.

    Attributes:
        wall_seconds: from ComfyUI's own records of begin and end.
        cpu_seconds: of the server and of the processes that it started (ffmpeg).
        child_cpu_seconds: of these processes alone.
        peak_bytes: peak of the server's own memory (see :func:`own_bytes`), sampled every 10 ms.
        child_peak_bytes: the same for all processes that it started.
        bytes_before: the server's own memory before the run.
    """

    wall_seconds: float
    cpu_seconds: float
    child_cpu_seconds: float
    peak_bytes: int
    child_peak_bytes: int
    bytes_before: int


def run_watched(server: ComfyServer, graph: dict[str, Any]) -> dict[str, float]:
    """Run `graph` and return the fields of :class:`Watched`.

    Raises:
        ServerError: it did not finish.
    """
    process = psutil.Process(server.pid)
    before, bytes_before = process.cpu_times(), own_bytes(process)
    with peak_memory(process) as peak:
        prompt_id = server.queue(graph)
        server.wait(prompt_id, timeout=3600)
    after = process.cpu_times()
    own = after.user + after.system - before.user - before.system
    children = after.children_user + after.children_system - before.children_user - before.children_system
    wall = execution_seconds(server.history(prompt_id))
    return asdict(Watched(wall, own + children, children, *peak, bytes_before))


@contextmanager
def peak_memory(process: psutil.Process) -> Iterator[list[int]]:
    """Yield the peak of `process`'s own bytes, and of its children together, during the block."""
    peak = [0, 0]

    def sample() -> None:
        peak[:] = max(peak[0], own_bytes(process)), max(peak[1], bytes_of_children(process))

    with looking(sample, SAMPLE_SECONDS):
        yield peak


def own_bytes(process: psutil.Process) -> int:
    """Return the resident memory of `process`, if possible without file pages (libraries, mapped models).

    The kernel evicts and reloads file pages as it likes, which changes the total by several percent.
    """
    memory = process.memory_info()
    return memory.rss - getattr(memory, "shared", 0)


def bytes_of_children(process: psutil.Process) -> int:
    """Return the memory of the running programs that `process` has started.

    A forked child that has not yet executed its program shares its parent's pages and is not counted.
    """
    total = 0
    for child in process.children(recursive=True):
        try:
            total += 0 if child.exe() == process.exe() else own_bytes(child)
        except psutil.Error:
            continue  # it ended meanwhile
    return total


def forget_cached(server: ComfyClient) -> None:
    """Let ComfyUI drop its cached outputs and unload its models, as its own "free memory" button does."""
    server.post_json("/free", {"unload_models": True, "free_memory": True})


def execution_seconds(entry: dict[str, Any]) -> float:
    """Return the time between begin and end of a prompt, from its entry in ComfyUI's history."""
    noted = {kind: data["timestamp"] for kind, data in entry["status"]["messages"]}
    return (noted["execution_success"] - noted["execution_start"]) / 1000
