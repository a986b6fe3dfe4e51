"""The servers of a batch: those of the user, or one of our own with the models of the demo."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from batch.demo_environment import demo_environment
from comfyui.client import ComfyClient, RemoteServer, ServerError
from comfyui.environment import REPOSITORY
from comfyui.server import ComfyServer

DEMO_MODELS = REPOSITORY / "demo" / "models"


@contextmanager
def open_servers(
    urls: Sequence[str], models: Sequence[Path], folder: Path, say: Callable[[str], None]
) -> Iterator[list[ComfyClient]]:
    """Yield the servers at `urls`; without any, one that is started for the block and keeps its files in `folder`.

    Args:
        say: tells the user of a server that does not answer.
        models: folders like ComfyUI's ``models``, for a server of our own; the demo's if empty.

    Raises:
        ServerError: no server answers, or none can be started; NoEnvironment: nor set up.
    """
    if urls:
        yield _answering([RemoteServer(url) for url in dict.fromkeys(urls)], say)
        return
    roots = list(models) or [DEMO_MODELS]
    with ComfyServer(demo_environment(), folder, model_roots=roots) as server:
        yield [server]


def _answering(servers: Sequence[RemoteServer], say: Callable[[str], None]) -> list[ComfyClient]:
    """Return the servers that answer, and tell of the others."""
    found: list[ComfyClient] = []
    for server in servers:
        try:
            server.get_json("/system_stats", timeout=30)
            found.append(server)
        except (OSError, ValueError) as error:
            say(f"no ComfyUI answers at {server.url} ({error}); going on without it")
    if not found:
        raise ServerError("no ComfyUI answers: start one, or correct --server")
    return found
