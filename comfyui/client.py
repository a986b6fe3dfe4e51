"""Talk to a running ComfyUI over HTTP: queue graphs, wait for their outputs, listen to events."""

from __future__ import annotations

import asyncio
import http.client
import json
import queue
import shutil
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

Graph = Mapping[str, Mapping[str, Any]]
Event = tuple[str, dict[str, Any]]
# What the functions here raise if the server does not answer, or not in full; other OSErrors are those of files here.
NETWORK_ERRORS = (urllib.error.URLError, ConnectionError, TimeoutError, http.client.HTTPException, json.JSONDecodeError)


class ServerError(RuntimeError):
    """The server did not start, died, or gave an unexpected answer."""


class PromptRejected(ServerError):
    """The server refused a graph before running it; `node_errors` maps node ids to their errors."""

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


class ComfyClient:
    """The HTTP requests to a ComfyUI process; a base class for whoever starts one.

    Attributes:
        url: its address, without a trailing slash.
    """

    url: str

    def require_alive(self, error: BaseException) -> None:
        """Raise ServerError if the process is known to have ended, as `error` suggests."""

    def log_tail(self, num_lines: int = 40) -> str:
        """Return the last lines of the server's log, if known."""
        return ""

    def get_json(self, path: str, timeout: float = 60) -> Any:
        """Return the JSON answer to GET `path`. Raises OSError if the server does not answer."""
        return self._request(urllib.request.Request(self.url + path), timeout)

    def post_json(self, path: str, body: object, timeout: float = 60) -> Any:
        """Return the JSON answer to POST `path`, or None if it is empty. Raises OSError as get_json does."""
        data = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        return self._request(urllib.request.Request(self.url + path, data, headers), timeout)

    def _request(self, request: urllib.request.Request, timeout: float) -> Any:
        with _opener().open(request, timeout=timeout) as answer:
            content = answer.read()
        return json.loads(content) if content else None

    def queue(self, graph: Graph, client_id: str | None = None, prompt_id: str | None = None) -> str:
        """Queue a graph in API format and return its prompt id, which is `prompt_id` if given (a UUID).

        Raises:
            PromptRejected: the server refused it; the message names each node, input and reason.
            OSError: the server does not answer, or fails.
        """
        body: dict[str, object] = {"prompt": graph, "client_id": client_id or uuid.uuid4().hex}
        if prompt_id is not None:
            body["prompt_id"] = prompt_id
        try:
            answer = self.post_json("/prompt", body)
        except urllib.error.HTTPError as error:
            if error.code != 400:
                raise
            raise _rejection(error.read()) from error
        if answer.get("node_errors"):  # the server would run only the outputs that are in order
            self.post_json("/queue", {"delete": [answer["prompt_id"]]})
            self.interrupt(answer["prompt_id"])
            raise _rejection(json.dumps({"error": "a part of the graph is not valid", **answer}).encode())
        return str(answer["prompt_id"])

    def is_queued(self, prompt_id: str) -> bool:
        """Whether a prompt waits or runs."""
        queued = self.get_json("/queue")
        return any(entry[1] == prompt_id for entry in [*queued["queue_running"], *queued["queue_pending"]])

    def history(self, prompt_id: str) -> dict[str, Any] | None:
        """Return the history entry of a finished prompt; None while it waits or runs."""
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
            ExecutionFailed, ExecutionInterrupted: it did not succeed.
            ServerError: the server died, or the timeout passed.
        """
        deadline = time.monotonic() + timeout
        while True:
            entry = self._history_of_living(prompt_id)
            if on_poll is not None:
                on_poll()
            if entry is not None:
                return outputs_of(entry)
            if time.monotonic() > deadline:
                raise ServerError(f"prompt {prompt_id} did not finish within {timeout:.0f} s:\n{self.log_tail()}")
            time.sleep(0.1)

    def _history_of_living(self, prompt_id: str) -> dict[str, Any] | None:
        try:
            return self.history(prompt_id)
        except OSError as error:
            self.require_alive(error)
            return None  # busy: ask again

    def run(self, graph: Graph, timeout: float = 600) -> dict[str, dict[str, Any]]:
        """Queue a graph and return its outputs; raises as queue() and wait() do."""
        return self.wait(self.queue(graph), timeout)

    def interrupt(self, prompt_id: str | None = None) -> None:
        """Stop the running prompt, or only `prompt_id` if that runs; waiting ones follow."""
        self.post_json("/interrupt", {} if prompt_id is None else {"prompt_id": prompt_id})

    def upload(self, file: Path, name: str, subfolder: str) -> None:
        """Put a file into the server's input folder, over one of the same name. Raises OSError."""
        boundary = uuid.uuid4().hex
        fields = {"subfolder": subfolder, "overwrite": "true"}
        parts = [
            f'--{boundary}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{value}\r\n' for key, value in fields.items()
        ]
        parts.append(f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n')
        head = "".join([*parts, "Content-Type: application/octet-stream\r\n\r\n"]).encode()
        data = b"".join([head, file.read_bytes(), f"\r\n--{boundary}--\r\n".encode()])
        headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
        self._request(urllib.request.Request(f"{self.url}/upload/image", data, headers), timeout=600)

    def download(self, saved: Mapping[str, Any], file: Path) -> None:
        """Write one file of a node's outputs ({"filename", "subfolder", "type"}) to `file`. Raises OSError."""
        query = urllib.parse.urlencode({key: saved.get(key, "") for key in ("filename", "subfolder", "type")})
        with _opener().open(f"{self.url}/view?{query}", timeout=600) as answer, file.open("wb") as copy:
            shutil.copyfileobj(answer, copy, 1 << 20)
            num_bytes = copy.tell()
        if num_bytes != int(answer.headers.get("Content-Length", num_bytes)):  # urllib does not notice
            raise ConnectionError(f"{self.url} was lost while {saved.get('filename')} was fetched")

    def object_info(self) -> dict[str, Any]:
        """Return the definitions of all nodes, as the front end reads them."""
        info: dict[str, Any] = self.get_json("/object_info", timeout=120)
        return info

    @contextmanager
    def events(self, client_id: str) -> Iterator[Events]:
        """Receive the events that the server sends for `client_id` while the block runs."""
        stream = Events(f"{self.url}/ws?clientId={client_id}")
        try:
            yield stream
        finally:
            stream.close()


def _opener() -> urllib.request.OpenerDirector:
    """Return what opens addresses without the user's proxy, which must not apply to a local server."""
    return urllib.request.build_opener(urllib.request.ProxyHandler({}))


class RemoteServer(ComfyClient):
    """A ComfyUI that runs elsewhere, or was started by somebody else."""

    def __init__(self, url: str) -> None:
        """`url`: such as http://127.0.0.1:8188; without a scheme it is http."""
        self.url = (url if "://" in url else f"http://{url}").rstrip("/")


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
            self.close()
            raise ServerError(f"no websocket at {url}") from self._error

    @property
    def is_connected(self) -> bool:
        """Whether events may still come; a server that dies ends this at once."""
        return self._thread.is_alive()

    def drain(self) -> list[Event]:
        """Return the (type, data) of all events since the last call."""
        events = []
        while not self._queue.empty():
            events.append(self._queue.get())
        return events

    def wait(self, timeout: float) -> list[Event]:
        """Return the events since the last call, or those that come within `timeout` seconds, as soon as there is one."""
        try:
            first = self._queue.get(timeout=timeout)
        except queue.Empty:
            return []
        return [first, *self.drain()]

    def close(self) -> None:
        """Disconnect."""
        with suppress(RuntimeError):  # the loop has ended by itself: the server is gone
            self._loop.call_soon_threadsafe(self._receiving.cancel)
        self._thread.join(10)

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._receiving)
        except asyncio.CancelledError:
            pass  # close() was called
        except Exception as error:  # aiohttp has errors of many kinds; wait() notices a server that died
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


def _rejection(answer: bytes) -> PromptRejected:
    content = json.loads(answer)
    node_errors: dict[str, Any] = content.get("node_errors") or {}
    error = content["error"] if isinstance(content["error"], dict) else {"message": content["error"]}
    lines = [str(error.get("message", error))]
    if details := error.get("details"):
        lines.append(str(details))
    for node_id, node in node_errors.items():
        lines += [f"{node['class_type']} ({node_id}): {error['message']}: {error['details']}" for error in node["errors"]]
    return PromptRejected("; ".join(line.strip() for line in lines), node_errors)


def outputs_of(entry: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the outputs of an entry of the history.

    Raises:
        ExecutionFailed, ExecutionInterrupted: it did not succeed.
    """
    messages = dict(entry["status"]["messages"])
    if "execution_interrupted" in messages:
        raise ExecutionInterrupted(f"interrupted in node {messages['execution_interrupted'].get('node_id')}")
    if "execution_error" in messages:
        raise ExecutionFailed(messages["execution_error"])
    outputs: dict[str, dict[str, Any]] = entry["outputs"]
    return outputs
