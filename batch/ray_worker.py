"""A worker of a cluster: an actor that owns a ComfyUI process and makes one story at a time on it. It needs no Ray itself."""

from __future__ import annotations

import os
import socket
import threading
from dataclasses import dataclass
from pathlib import Path

from batch.outcome import FAILED, LOST, UNFIT, Outcome, described, line_of, try_story
from batch.prepare import PreparedStory, what_is_lacking
from batch.records import OutputFolder
from batch.run_story import Control
from batch.servers import OwnComfyUI
from batch.workflow.node_inputs import ObjectInfo
from comfyui.client import NETWORK_ERRORS, ServerError


@dataclass(frozen=True)
class Started:
    """A worker whose ComfyUI runs, or never will.

    Attributes:
        machine: where it is.
        problem: why it can make nothing there; "" if it can.
    """

    machine: str
    problem: str = ""


class Worker:
    """One ComfyUI process, with files of its own in ``server/<name>`` of the output folder and results in ``server/output``.

    All workers share the results, so a story that one of them lost is continued by another, from its last finished clip.

    Args:
        output: the output folder of the batch, on storage that all machines see under the same path.
        num_threads: OMP_NUM_THREADS of the command, if set; Ray gives its processes one thread each.
    """

    def __init__(self, own: OwnComfyUI, output: Path, name: str, num_threads: str | None) -> None:
        os.environ.pop("OMP_NUM_THREADS", None)
        if num_threads is not None:
            os.environ["OMP_NUM_THREADS"] = num_threads
        self._output = output
        self._folder = OutputFolder(output)
        results = output / "server" / "output"
        self._server = own.server(output / "server" / name, ["--output-directory", str(results)])
        self._info: ObjectInfo = {}
        self._should_stop = threading.Event()
        self._is_given_away = threading.Event()  # the story: the command took this worker for lost
        self._is_making = threading.Lock()
        self._share = 0.0

    def start(self, mark: str) -> Started | Outcome:
        """Start ComfyUI, after the end of a story that the command has given to another worker; lost if it may start next time.

        Args:
            mark: a file that the command wrote into the output folder.
        """
        machine = socket.gethostname()
        self._is_given_away.set()
        with self._is_making:
            self._is_given_away.clear()
        try:
            return Started(machine, self._problem(mark))
        except (
            ServerError,
            OSError,
            *NETWORK_ERRORS,
        ) as error:  # such as a slow disk, or memory that another process has for now
            return Outcome(LOST, reason=f"its ComfyUI does not start on {machine}: {line_of(error).rstrip(':')}")
        except Exception as error:  # a mistake of ours: the other workers go on
            return Started(machine, described(error))

    def _problem(self, mark: str) -> str:
        """Start ComfyUI; return why it is of no use here, "" if it runs. Raises ServerError, OSError."""
        if not (self._output / mark).is_file():
            return f"{self._output} is another folder there: --output must be on storage that all machines share"
        if not self._server.is_running:
            self._server.start()
        self._info = self._server.object_info()
        return ""

    def object_info(self) -> ObjectInfo:
        """Return the nodes of its ComfyUI; none if Ray has started this worker again, and ComfyUI is not started yet."""
        return self._info

    def make(self, prepared: PreparedStory) -> Outcome:
        """Make a story; one that this machine lacks something for is left to others."""
        if not self._info:
            return Outcome(LOST, reason="its process died while it had no story")
        with self._is_making:
            try:
                lost = next((file for file in prepared.uploads.values() if not file.is_file()), None)
                lack = f"{lost} is not there" if lost else what_is_lacking(prepared.graph, self._info)
                if lack:
                    return Outcome(UNFIT, reason=lack)
                self._share = 0.0
                return try_story(prepared, self._server, self._folder, Control(self._should_end, self._tell))
            except Exception as error:  # a mistake of ours, or storage that does not answer: the other stories go on
                return Outcome(FAILED, reason=described(error))

    def share(self) -> float:
        """Return the share of its story that is done, 0 to 1."""
        return self._share

    def stop(self) -> None:
        """End its story after the clip that is just being stored."""
        self._should_stop.set()

    def _should_end(self) -> bool:
        return self._should_stop.is_set() or self._is_given_away.is_set()

    def _tell(self, done: float) -> None:
        self._share = done
