"""A stand-in for ComfyUI's server, without models: it takes prompts, sends events, and fails as a test tells it to."""

import asyncio
import json
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

LORAS = ["svi_high.safetensors", "svi_low.safetensors"]
OBJECT_INFO = {
    "LoadImage": {"input": {"required": {"image": [["example.png"], {"image_upload": True}]}}},
    "SVILora": {
        "input": {
            "required": {"lora": ["COMBO", {"options": LORAS}], "strength": ["FLOAT", {"default": 1.0, "min": -9, "max": 9}]}
        }
    },
    "SVIPromptStream": {
        "input": {
            "required": {"text": ["STRING", {"multiline": True}], "split": [["paragraphs", "lines"], {"default": "paragraphs"}]}
        }
    },
    "SVIGenerate": {
        "input": {
            "required": {
                "model": ["MODEL", {}],
                "prompts": ["SVI_PROMPTS", {}],
                "anchor": ["IMAGE", {}],
                "num_clips": ["INT", {"default": 3, "min": 0, "max": 10_000}],
                "seed": ["INT", {"default": 0, "min": 0, "control_after_generate": "fixed"}],
                "filename_prefix": ["STRING", {"default": "svi/video"}],
            }
        }
    },
    "SaveVideo": {"input": {"required": {"video": ["VIDEO", {}], "filename_prefix": ["STRING", {}]}}, "output_node": True},
}


def workflow() -> dict:
    """A workflow in API format for the stand-in."""

    def node(kind: str, title: str, **inputs: object) -> dict:
        return {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}

    return {
        "1": node("LoadImage", "Load Image", image="example.png"),
        "2": node("SVILora", "SVI LoRA", lora="svi_high.safetensors", strength=1.0),
        "3": node("SVIPromptStream", "Story", text="a cat", split="paragraphs"),
        "4": node(
            "SVIGenerate", "Loop", model=["2", 0], prompts=["3", 0], anchor=["1", 0], num_clips=3, seed=7, filename_prefix="a/b"
        ),
        "5": node("SaveVideo", "Save", video=["4", 0], filename_prefix="svi/story"),
    }


class FakeComfyUI:
    """One server on a port of its own; `kill` and `start` are a crash and a restart, which forgets all prompts.

    Attributes:
        outcome: graph -> "ok", "out of memory", "in use", "error", "reject", "half valid", "no video", "gone", "hang", or
            "crash": the server dies and is there again before anybody asks; or "late events": they come behind the history.
        queued: every graph that was taken, in order, over all restarts.
    """

    def __init__(self, outcome: Callable[[dict], str] = lambda _: "ok", port: int = 0) -> None:
        self.outcome = outcome
        self.queued: list[dict] = []
        self.uploads: dict[str, bytes] = {}
        self.freed = 0
        self.interrupted: list[str] = []
        self.port = port
        self.loras = LORAS
        self.is_bare = False  # without any node
        self.cuts_downloads = 0
        self.largest_upload = 1 << 26
        self.start()

    def __enter__(self) -> "FakeComfyUI":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.running: dict[str, dict] = {}
        self.history: dict[str, dict] = {}
        self.sockets: set[web.WebSocketResponse] = set()
        ready = threading.Event()
        self.thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)), daemon=True)
        self.thread.start()
        assert ready.wait(30)

    def kill(self) -> None:
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(self.dead.set)
            self.thread.join(30)

    async def _serve(self, ready: threading.Event) -> None:
        self.loop, self.dead = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application(client_max_size=1 << 26)
        for method, path, handler in (
            ("GET", "/system_stats", answering(dict)),
            ("GET", "/object_info", answering(self._object_info)),
            ("GET", "/queue", answering(self._queue)),
            ("POST", "/queue", answering(dict)),
            ("GET", "/history/{id}", self._history),
            ("POST", "/prompt", self._prompt),
            ("POST", "/interrupt", self._interrupt),
            ("POST", "/free", self._free),
            ("POST", "/upload/image", self._upload),
            ("GET", "/view", self._view),
            ("GET", "/ws", self._socket),
        ):
            app.router.add_route(method, path, handler)
        runner = web.AppRunner(app, shutdown_timeout=0)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = runner.addresses[0][1]
        ready.set()
        await self.dead.wait()
        for socket in list(self.sockets):
            await socket.close()
        await runner.cleanup()

    def _object_info(self) -> dict:
        info = json.loads(json.dumps(OBJECT_INFO))
        info["SVILora"]["input"]["required"]["lora"][1]["options"] = self.loras
        return {} if self.is_bare else info

    def _queue(self) -> dict:
        return {"queue_running": [[0, key, graph] for key, graph in self.running.items()], "queue_pending": []}

    async def _history(self, request: web.Request) -> web.Response:
        key = request.match_info["id"]
        return web.json_response({key: self.history[key]} if key in self.history else {})

    async def _prompt(self, request: web.Request) -> web.Response:
        body = await request.json()
        graph, key = body["prompt"], body.get("prompt_id") or uuid.uuid4().hex
        self.queued.append(graph)
        outcome = self.outcome(graph)
        errors = {"4": {"class_type": "SVIGenerate", "errors": [{"message": "Value not in list", "details": "seed: 'x'"}]}}
        if outcome == "reject":
            return web.json_response({"error": {"message": "invalid"}, "node_errors": errors}, status=400)
        self.running[key] = graph
        asyncio.get_running_loop().create_task(self._execute(key, graph, outcome))
        return web.json_response({"prompt_id": key, "node_errors": errors if outcome == "half valid" else {}})

    async def _execute(self, key: str, graph: dict, outcome: str) -> None:
        await self._send("progress_state", key, nodes={"4": {"value": 1, "max": 2, "state": "running"}})
        while outcome == "hang" and key in self.running:
            await asyncio.sleep(0.01)
        if outcome == "crash":
            self.running, self.history = {}, {}
            for socket in list(self.sockets):
                await socket.close()
            return
        if outcome == "late events":
            self.end(key, "ok", graph)
            await asyncio.sleep(0.2)
        if outcome in ("ok", "late events"):
            for run, inputs in self._runs(graph):
                for number in range(inputs["num_clips"] or 2):
                    await self._send("svi.clip", key, node=run, run=inputs["filename_prefix"], index=number, reused=number == 1)
            await self._send("svi.clip", key, node="4", run="of somebody else", index=7, reused=False)
        if key in self.running:
            self.end(key, outcome, graph)
        if outcome == "ok":
            await self._send("progress_state", key, nodes={"4": {"value": 2, "max": 2, "state": "finished"}})
        await self._send("executing", key, node=None)

    @staticmethod
    def _runs(graph: dict) -> list[tuple[str, dict]]:
        return [(key, node["inputs"]) for key, node in graph.items() if node["class_type"] == "SVIGenerate"]

    def end(self, key: str, outcome: str, graph: dict) -> None:
        """Put a prompt into the history, as it ended."""
        self.running.pop(key, None)
        messages, outputs = [["execution_start", {"timestamp": 1000}]], {}
        if outcome in ("out of memory", "error", "in use"):
            kind = "torch.OutOfMemoryError" if outcome == "out of memory" else "ValueError"
            message = "the run folder runs/one is in use by process 7" if outcome == "in use" else outcome
            error = {"node_id": "4", "node_type": "SVIGenerate", "exception_type": kind, "exception_message": message}
            messages.append(["execution_error", error])
        elif outcome == "interrupted":
            messages.append(["execution_interrupted", {"node_id": "4"}])
        elif outcome != "no video":
            prefix = Path(graph["5"]["inputs"]["filename_prefix"])
            name = "removed.mp4" if outcome == "gone" and not self.freed else f"{prefix.name}_00001_.mp4"
            saved = {"filename": name, "subfolder": prefix.parent.as_posix(), "type": "output"}
            outputs = {"5": {"images": [saved], "animated": [True]}, "6": {"images": [{**saved, "filename": "row.png"}]}}
        if outputs:
            messages.append(["execution_success", {"timestamp": 3000}])
        self.history[key] = {"status": {"messages": messages}, "outputs": outputs}

    async def _send(self, kind: str, key: str, **data: object) -> None:
        for socket in [socket for socket in self.sockets if not socket.closed]:
            await socket.send_json({"type": kind, "data": {"prompt_id": key, **data}})

    async def _interrupt(self, request: web.Request) -> web.Response:
        key = (await request.json()).get("prompt_id", "")
        self.interrupted.append(key)
        if key in self.running:
            self.end(key, "interrupted", self.running[key])
        return web.Response()

    async def _free(self, request: web.Request) -> web.Response:
        self.freed += 1
        return web.Response()

    async def _upload(self, request: web.Request) -> web.Response:
        if (request.content_length or 0) > self.largest_upload:
            raise web.HTTPRequestEntityTooLarge(self.largest_upload, request.content_length or 0)
        form = await request.post()
        self.uploads[f"{form['subfolder']}/{form['image'].filename}"] = form["image"].file.read()
        return web.json_response({"name": form["image"].filename})

    async def _view(self, request: web.Request) -> web.Response:
        if request.query["filename"] == "removed.mp4":
            return web.Response(status=404)
        if self.cuts_downloads:
            self.cuts_downloads -= 1
            answer = web.StreamResponse(headers={"Content-Length": "1000"})
            await answer.prepare(request)
            await answer.write(b"half")
            request.transport.close()
            return answer
        return web.Response(body=json.dumps(dict(request.query)).encode())

    async def _socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets.add(socket)
        async for _ in socket:
            pass
        self.sockets.discard(socket)
        return socket


def answering(value: Callable[[], dict]) -> Callable:
    """Return a handler that answers with a value as JSON."""

    async def handler(_: web.Request) -> web.Response:
        return web.json_response(value())

    return handler
