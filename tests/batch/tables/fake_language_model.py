"""A stand-in for an OpenAI-compatible server that answers as told and keeps what it was asked."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class FakeLanguageModel:
    """Answers each request with the next of `replies`, a text, a status or an address to go to; the last again and again."""

    def __init__(self, *replies: str | int) -> None:
        self.replies = list(replies)
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                fake.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))) | {"path": self.path})
                fake.keys.append(self.headers.get("Authorization"))
                reply = fake.replies.pop(0) if len(fake.replies) > 1 else fake.replies[0]
                self.answer(reply)

            def do_GET(self) -> None:  # what a client makes of a POST that is sent elsewhere
                fake.asked.append({"path": self.path})
                fake.keys.append(self.headers.get("Authorization"))
                self.answer(fake.replies[0])

            def answer(self, reply: str | int) -> None:
                if isinstance(reply, str) and reply.startswith("http"):
                    self.send_response(302)
                    self.send_header("Location", reply)
                    self.end_headers()
                    return
                body = {"choices": [{"message": {"content": reply}}]} if isinstance(reply, str) else {"error": fake.keys[-1]}
                self.send_response(200 if isinstance(reply, str) else reply)
                self.end_headers()
                self.wfile.write(json.dumps(body).encode())

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"

    def __enter__(self) -> "FakeLanguageModel":
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()
