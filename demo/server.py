"""Run a real ComfyUI process with this pack in it, and talk to it over HTTP; used by the demo and by the tests.

    with ComfyServer(environment, base_directory, model_roots=[models]) as server:
        outputs = server.run(graph)          # API format

The process is ComfyUI's own main.py on CPU, with a base directory of its own: it writes nothing into the ComfyUI tree.
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from demo.environment import REPOSITORY, Environment, Layout, clean_python_variables

PACK_NAME = "ComfyUI-StableVideoInfinity"
PACK_NODES = {PACK_NAME: REPOSITORY, "svi_tiny_encoders": REPOSITORY / "demo" / "tiny_encoders"}
MODEL_FOLDERS = (
    "diffusion_models",
    "vae",
    "text_encoders",
    "clip_vision",
    "loras",
    "datasets",
    "audio_encoders",
    "model_patches",
)
# What the name of a model file in a folder without subfolders (demo/models) says about its kind; the first that fits.
MODEL_KINDS = (
    ("lora", "loras"),
    ("vae", "vae"),
    ("umt5", "text_encoders"),
    ("clip", "clip_vision"),
    ("wan", "diffusion_models"),
)
START_SECONDS = 300.0
STOP_SECONDS = 15.0
NOT_COPIED = shutil.ignore_patterns(".git", ".runtime", "__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis")

# The server's standard input is a pipe from us that nobody writes to: it ends when we end, however we end (SIGKILL
# too), and then the server leaves. os.read takes no lock, so the waiting thread cannot disturb a normal exit.
LAUNCHER = """
import os, runpy, sys, threading
def leave_with_parent():
    os.read(0, 1)
    os._exit(1)
threading.Thread(target=leave_with_parent, daemon=True).start()
main = sys.argv[1]
sys.argv = sys.argv[1:]
sys.path[0] = os.path.dirname(main)
runpy.run_path(main, run_name="__main__")
"""

Graph = Mapping[str, Mapping[str, Any]]
Event = tuple[str, dict[str, Any]]


class ServerError(RuntimeError):
    """The server did not start, died, or answered something that it should not."""


class PromptRejected(ServerError):
    """The server refused a graph before running it; `node_errors` maps node ids to what is wrong with each."""

    def __init__(self, message: str, node_errors: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.node_errors = node_errors


class ExecutionFailed(ServerError):
    """A node raised while a graph ran."""

    def __init__(self, details: Mapping[str, Any]) -> None:
        self.node_id = str(details.get("node_id", ""))
        self.node_type = str(details.get("node_type", ""))
        self.exception_type = str(details.get("exception_type", ""))
        self.exception_message = str(details.get("exception_message", "")).strip()
        self.traceback = "".join(details.get("traceback", []))
        super().__init__(f"{self.node_type} ({self.node_id}): {self.exception_type}: {self.exception_message}")


class ExecutionInterrupted(ServerError):
    """A graph was interrupted before it finished."""


class ComfyServer:
    """One ComfyUI process with a base directory of its own; a context manager that leaves no process behind.

    Args:
        environment: the Python and the ComfyUI tree to run.
        base_directory: made if absent; holds input, output, temp, user, models and custom_nodes.
        model_roots: folders with any of MODEL_FOLDERS inside, whose files the server lists, or with the model files
            themselves, each of a kind that its name tells (MODEL_KINDS).
        custom_nodes: name in custom_nodes/ -> folder linked there; by default this pack and the tiny encoders.
        arguments: further command-line arguments of main.py.
    """

    def __init__(
        self,
        environment: Environment,
        base_directory: Path,
        *,
        model_roots: Sequence[Path] = (),
        custom_nodes: Mapping[str, Path] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.environment = environment
        self.base_directory = base_directory.absolute()
        self.model_roots = [root.absolute() for root in model_roots]
        self.custom_nodes = dict(PACK_NODES if custom_nodes is None else custom_nodes)
        self.arguments = list(arguments)
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    # ------------------------------------------------------------------------------------------------ life cycle

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def url(self) -> str:
        """Where the server answers, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log_path(self) -> Path:
        """The file that receives everything the server prints."""
        return self.base_directory / "server.log"

    @property
    def output_directory(self) -> Path:
        return self.base_directory / "output"

    @property
    def pid(self) -> int | None:
        """The process id of the server; None while none was started."""
        return self._process.pid if self._process else None

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, timeout: float = START_SECONDS) -> None:
        """Start the process and return once it answers and every linked pack was imported.

        Args:
            timeout: seconds to wait; generous, because a loaded machine may need a minute.

        Raises:
            ServerError: it died, did not answer in time, or could not import a pack; the message ends with its log.
        """
        if self.is_running:
            raise ServerError(f"the server is running already, as process {self.pid}")
        self._prepare_base_directory()
        try:
            for attempt in range(3):
                self._launch()
                if self._wait_until_ready(time.monotonic() + timeout):
                    break
                if "address already in use" not in self.log_tail() or attempt == 2:
                    raise self._startup_error("ComfyUI ended while it started")
            self._check_packs()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """End the process: ask it, and after STOP_SECONDS force it. Does nothing if it is not running."""
        if self._process is None:
            return
        if self.is_running:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                pass
        self.kill()

    def kill(self) -> None:
        """End the process at once, as a crash or a power cut would (SIGKILL)."""
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        if self._process.stdin:
            self._process.stdin.close()

    def log_tail(self, num_lines: int = 40) -> str:
        """Return the last lines of the server's log."""
        lines = self.log_path.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-num_lines:])

    def _launch(self) -> None:
        self.port = _free_port()
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [str(self.environment.python), "-u", "-c", LAUNCHER, *self._main_arguments()],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.base_directory,  # not the repository root, whose nodes/ would shadow ComfyUI's nodes.py
                env=process_variables(self.environment),
                # Ctrl-C is for us: we interrupt the run, keep what is finished and then end the server ourselves.
                start_new_session=os.name != "nt",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )

    def _main_arguments(self) -> list[str]:
        arguments = [str(self.environment.comfyui / "main.py"), "--cpu", "--listen", "127.0.0.1"]
        arguments += ["--port", str(self.port), "--disable-auto-launch", "--disable-api-nodes"]
        arguments += ["--base-directory", str(self.base_directory), "--database-url", "sqlite:///:memory:"]
        if self.model_roots:
            arguments += ["--extra-model-paths-config", str(self._write_model_paths())]
        return arguments + self.arguments

    def _write_model_paths(self) -> Path:
        """Write the list of model folders; JSON is YAML too, and full paths are taken literally ('$' and '~' as well)."""
        paths = {
            f"models_{number}": {name: str(root / name) for name in MODEL_FOLDERS if (root / name).is_dir()}
            for number, root in enumerate(self.model_roots)
        }
        config = self.base_directory / "model_paths.yaml"
        config.write_text(json.dumps(paths, indent=1), encoding="utf-8")
        return config

    def _prepare_base_directory(self) -> None:
        for name in ("custom_nodes", "input", "output", "temp", "user/default", *(f"models/{m}" for m in MODEL_FOLDERS)):
            (self.base_directory / name).mkdir(parents=True, exist_ok=True)
        for name, folder in self.custom_nodes.items():
            link_folder(folder, self.base_directory / "custom_nodes" / name)
        for root in self.model_roots:
            for file in root.glob("*.safetensors"):
                link_file(file, self.base_directory / "models" / model_folder(file) / file.name)

    def _wait_until_ready(self, deadline: float) -> bool:
        while self.is_running:
            try:
                self.get_json("/system_stats", timeout=5)
                return True
            except (OSError, ValueError):
                pass  # not listening yet
            if time.monotonic() > deadline:
                raise self._startup_error("ComfyUI did not answer in time")
            time.sleep(0.1)
        return False

    def _check_packs(self) -> None:
        log = self.log_path.read_text(encoding="utf-8", errors="replace")
        failed = [line for line in log.splitlines() if "(IMPORT FAILED)" in line]
        if any(name in line for line in failed for name in self.custom_nodes):
            raise self._startup_error("ComfyUI could not import a pack", num_lines=120)

    def _startup_error(self, what: str, num_lines: int = 40) -> ServerError:
        return ServerError(f"{what}; the end of {self.log_path}:\n{self.log_tail(num_lines)}")

    # --------------------------------------------------------------------------------------------------- requests

    def get_json(self, path: str, timeout: float = 60) -> Any:
        """Return the JSON that GET `path` answers. Raises OSError if the server does not answer."""
        return self._request(urllib.request.Request(self.url + path), timeout)

    def post_json(self, path: str, body: object, timeout: float = 60) -> Any:
        """Return the JSON that POST `path` answers (None for an empty answer). Raises OSError as get_json does."""
        data = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        return self._request(urllib.request.Request(self.url + path, data, headers), timeout)

    def _request(self, request: urllib.request.Request, timeout: float) -> Any:
        # The user's proxy settings are not for a server on this machine.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=timeout) as answer:
            content = answer.read()
        return json.loads(content) if content else None

    def queue(self, graph: Graph, client_id: str | None = None) -> str:
        """Queue a graph in API format and return its prompt id.

        Raises:
            PromptRejected: the server refused it; the message names each node, input and reason.
        """
        body = {"prompt": graph, "client_id": client_id or uuid.uuid4().hex}
        try:
            return str(self.post_json("/prompt", body)["prompt_id"])
        except urllib.error.HTTPError as error:
            raise _rejection(error.read()) from error

    def history(self, prompt_id: str) -> dict[str, Any] | None:
        """Return the history entry of a finished prompt, None while it waits or runs."""
        entry: dict[str, Any] | None = self.get_json(f"/history/{prompt_id}").get(prompt_id)
        return entry

    def wait(
        self, prompt_id: str, timeout: float = 600, on_poll: Callable[[], None] | None = None
    ) -> dict[str, dict[str, Any]]:
        """Return the outputs (node id -> its ui outputs) once the prompt has finished.

        Args:
            timeout: seconds.
            on_poll: called several times a second while waiting.

        Raises:
            ExecutionFailed, ExecutionInterrupted: it ended otherwise.
            ServerError: the server died, or the time is over.
        """
        deadline = time.monotonic() + timeout
        while True:
            entry = self._history_of_living(prompt_id)
            if on_poll is not None:
                on_poll()
            if entry is not None:
                return _outputs(entry)
            if time.monotonic() > deadline:
                raise ServerError(f"prompt {prompt_id} did not finish within {timeout:.0f} s:\n{self.log_tail()}")
            time.sleep(0.1)

    def _history_of_living(self, prompt_id: str) -> dict[str, Any] | None:
        try:
            return self.history(prompt_id)
        except OSError as error:
            if not self.is_running:
                raise ServerError(f"ComfyUI died; the end of {self.log_path}:\n{self.log_tail()}") from error
            return None  # busy: asked again at once

    def run(self, graph: Graph, timeout: float = 600) -> dict[str, dict[str, Any]]:
        """Queue a graph and return its outputs; raises as queue() and wait() do."""
        return self.wait(self.queue(graph), timeout)

    def interrupt(self) -> None:
        """Stop the prompt that runs now; waiting ones go on."""
        self.post_json("/interrupt", {})

    def object_info(self) -> dict[str, Any]:
        """Return the definitions of all nodes, as the front end reads them."""
        info: dict[str, Any] = self.get_json("/object_info", timeout=120)
        return info

    def add_input(self, path: Path, name: str | None = None) -> str:
        """Copy a file into the input folder; return the name under which a LoadImage node finds it."""
        name = name or path.name
        shutil.copyfile(path, self.base_directory / "input" / name)
        return name

    def saved_file(self, saved: Mapping[str, Any]) -> Path:
        """Return the path of one file of a node's outputs ({"filename", "subfolder", "type"})."""
        return self.base_directory / str(saved["type"]) / str(saved["subfolder"]) / str(saved["filename"])

    @contextmanager
    def events(self, client_id: str) -> Iterator[Events]:
        """Receive the events that the server sends for `client_id` while the block runs."""
        stream = Events(f"{self.url}/ws?clientId={client_id}")
        try:
            yield stream
        finally:
            stream.close()


class Events:
    """The server's events for one client, received by a thread over a websocket.

    Previews, which are binary, are counted in `num_previews` and dropped.
    """

    def __init__(self, url: str) -> None:
        self.num_previews = 0
        self._queue: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._connected = threading.Event()
        self._error: BaseException | None = None
        self._loop = asyncio.new_event_loop()
        self._receiving = self._loop.create_task(self._receive(url))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        if not self._connected.wait(30) or self._error is not None:
            raise ServerError(f"no websocket at {url}") from self._error

    def drain(self) -> list[Event]:
        """Return the (type, data) of all events that came since the last call."""
        events = []
        while not self._queue.empty():
            events.append(self._queue.get())
        return events

    def close(self) -> None:
        """Disconnect."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._receiving.cancel)
        self._thread.join(10)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._receiving)
        except asyncio.CancelledError:
            pass  # close() was called
        except OSError as error:  # aiohttp's connection errors are OSErrors; wait() notices a server that died
            self._error = error
        finally:
            self._connected.set()
            self._loop.close()

    async def _receive(self, url: str) -> None:
        import aiohttp

        async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
            self._connected.set()
            async for message in socket:
                if message.type == aiohttp.WSMsgType.TEXT:
                    content = json.loads(message.data)
                    self._queue.put((content["type"], content.get("data") or {}))
                else:
                    self.num_previews += 1


def process_variables(environment: Environment) -> dict[str, str]:
    """Return the environment variables for a process that runs ComfyUI: offline, and no writing into a user's tree."""
    variables = {**clean_python_variables(), "HF_HUB_OFFLINE": "1", "DO_NOT_TRACK": "1", "PYTHONUTF8": "1"}
    if environment.comfyui != Layout().comfyui:
        variables["PYTHONDONTWRITEBYTECODE"] = "1"
    return variables


def link_folder(folder: Path, link: Path) -> None:
    """Make `link` lead to `folder`; where the system allows neither symlinks nor junctions, copy the folder there.

    An earlier link (or copy) at that place is replaced.
    """
    if not folder.is_dir():
        raise ServerError(f"{folder} is not a folder")
    _remove_link(link)
    try:
        link.symlink_to(folder, target_is_directory=True)
        return
    except OSError:
        if os.name != "nt":
            raise
    import _winapi

    try:
        _winapi.CreateJunction(str(folder), str(link))
    except OSError:  # another drive, or a file system without junctions
        shutil.copytree(folder, link, ignore=NOT_COPIED)


def link_file(file: Path, link: Path) -> None:
    """Make `link` lead to `file`, by a symlink, else a hard link, else a copy; an earlier one at that place is replaced."""
    link.unlink(missing_ok=True)
    for make in (os.symlink, os.link, shutil.copyfile):
        try:
            make(file, link)
            return
        except OSError:
            if make is shutil.copyfile:
                raise


def model_folder(file: Path) -> str:
    """Return the model folder that a file belongs to, by its name. Raises ServerError if the name does not tell."""
    for word, folder in MODEL_KINDS:
        if word in file.name.lower():
            return folder
    raise ServerError(f"{file} could be any kind of model: put one of {', '.join(w for w, _ in MODEL_KINDS)} in its name")


def _remove_link(link: Path) -> None:
    if link.is_symlink():
        link.unlink()
    elif link.exists():
        if os.name != "nt":
            raise ServerError(f"{link} is not a link: move it away, a link is made there")
        try:
            link.rmdir()  # removes a junction, never what it leads to
        except OSError:
            shutil.rmtree(link)  # a copy, made by us


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _rejection(answer: bytes) -> PromptRejected:
    content = json.loads(answer)
    node_errors: dict[str, Any] = content.get("node_errors") or {}
    lines = [str(content["error"].get("message", content["error"]))]
    if details := content["error"].get("details"):
        lines.append(str(details))
    for node_id, node in node_errors.items():
        for error in node["errors"]:
            lines.append(f"{node['class_type']} ({node_id}): {error['message']}: {error['details']}")
    return PromptRejected("; ".join(line.strip() for line in lines), node_errors)


def _outputs(entry: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    messages = dict(entry["status"]["messages"])
    if "execution_interrupted" in messages:
        raise ExecutionInterrupted(f"interrupted in node {messages['execution_interrupted'].get('node_id')}")
    if "execution_error" in messages:
        raise ExecutionFailed(messages["execution_error"])
    outputs: dict[str, dict[str, Any]] = entry["outputs"]
    return outputs
